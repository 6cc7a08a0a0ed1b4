"""The catalogue file, and its idempotent way into the database."""

from decimal import Decimal
from functools import cached_property
from importlib.resources import files

import yaml
from pydantic import BaseModel, ConfigDict
from sqlalchemy.orm import Session

from gpt2flow.agent.shop.products import Product, ProductAlias
from gpt2flow.agent.shop.shipments import Courier


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Item(_Part):
    """A product as the file gives it."""

    sku: str
    en: str
    zh: str
    price: Decimal
    stock: int
    aliases: list[str] = []


class Carrier(_Part):
    """A courier as the file gives it."""

    code: str
    en: str
    zh: str


class Catalogue(_Part):
    """All products and couriers of the demo shop."""

    products: list[Item]
    couriers: list[Carrier]

    @cached_property
    def names(self) -> dict[str, list[str]]:
        """All names of each product, by its stock-keeping unit."""
        return {item.sku: [item.en, item.zh, *item.aliases] for item in self.products}


def load_catalogue() -> Catalogue:
    """Read the catalogue that ships with the agent."""
    text = files("gpt2flow.agent.shop").joinpath("catalogue.yaml").read_text(encoding="utf-8")
    return Catalogue.model_validate(yaml.safe_load(text))


def seed(db: Session, catalogue: Catalogue) -> None:
    """Add what is missing; leaves prices and stock of what is there as they are."""
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
