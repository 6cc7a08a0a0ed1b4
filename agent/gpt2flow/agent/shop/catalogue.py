"""Catalogue file, and the idempotent seeding of the database from it."""

from decimal import Decimal
from functools import cached_property
from importlib.resources import files

import yaml
from sqlalchemy.orm import Session

from gpt2flow.agent.shop.products import Product, ProductAlias
from gpt2flow.agent.shop.shipments import Courier
from gpt2flow.files.documents import StrictModel


class Item(StrictModel):
    """Product in the catalogue file."""

    sku: str
    en: str
    zh: str
    price: Decimal
    stock: int
    aliases: list[str] = []


class Carrier(StrictModel):
    """Courier in the catalogue file."""

    code: str
    en: str
    zh: str


class Catalogue(StrictModel):
    """Products and couriers of the demo shop."""

    products: list[Item]
    couriers: list[Carrier]

    @cached_property
    def names(self) -> dict[str, list[str]]:
        """Names of each product, by stock-keeping unit."""
        return {item.sku: [item.en, item.zh, *item.aliases] for item in self.products}


def load_catalogue() -> Catalogue:
    """Load the built-in catalogue."""
    text = files("gpt2flow.agent.shop").joinpath("catalogue.yaml").read_text(encoding="utf-8")
    return Catalogue.model_validate(yaml.safe_load(text))


def seed(db: Session, catalogue: Catalogue) -> None:
    """Add missing products and couriers; existing rows stay unchanged."""
    for item in catalogue.products:
        if db.get(Product, item.sku) is None:
            db.add(
                Product(
                    sku=item.sku,
                    name_en=item.en,
                    name_zh=item.zh,
                    price=item.price,
                    stock=item.stock,
                    aliases=[ProductAlias(alias=alias) for alias in item.aliases],
                )
            )
    for carrier in catalogue.couriers:
        if db.get(Courier, carrier.code) is None:
            db.add(Courier(code=carrier.code, name_en=carrier.en, name_zh=carrier.zh))
