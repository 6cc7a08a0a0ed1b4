"""Products of the catalogue, and the search in it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from gpt2flow.agent.shop import Product
from gpt2flow.agent.shop.matching import match_product
from gpt2flow.agent.wording import Language


@dataclass(frozen=True)
class Ware:
    """Product as a page shows it.

    Attributes:
        sku: Stock-keeping unit.
        name: Name in the language of the page.
        price: Price of one.
        stock: Number in stock.
    """

    sku: str
    name: str
    price: Decimal
    stock: int


@dataclass(frozen=True)
class Search:
    """Result of a search.

    Attributes:
        found: Products that fit, by name; all for an empty text.
        closest: Most similar products if none fits.
    """

    found: Sequence[Ware]
    closest: Sequence[Ware] = ()


def search_products(db: Session, text: str, language: Language) -> Search:
    """Search the catalogue, tolerant of typos, in all names of a product.

    Args:
        db: Session on the shop.
        text: What is searched for.
        language: Language of the page.
    """
    products = {
        p.sku: p for p in db.scalars(select(Product).options(selectinload(Product.aliases)))
    }
    wanted = text.strip().casefold()
    if not wanted:
        return Search(_sorted(products.values(), language))
    match = match_product(wanted, {sku: p.names for sku, p in products.items()})
    hits = {sku for sku, p in products.items() if any(wanted in n.casefold() for n in p.names)}
    if match.sku is not None:
        hits.add(match.sku)
    if hits:
        return Search(_sorted((products[sku] for sku in hits), language))
    return Search([], [ware(products[sku], language) for sku in match.suggestions])


def find_ware(db: Session, sku: str, language: Language) -> Ware | None:
    """Return a product of the catalogue, if there is one."""
    product = db.get(Product, sku) if sku.isprintable() else None
    return None if product is None else ware(product, language)


def ware(product: Product, language: Language) -> Ware:
    """Return a product as a page shows it."""
    return Ware(product.sku, product.name(language), product.price, product.stock)


def _sorted(products: Iterable[Product], language: Language) -> list[Ware]:
    wares = [ware(product, language) for product in products]
    return sorted(wares, key=lambda each: each.name.casefold())
