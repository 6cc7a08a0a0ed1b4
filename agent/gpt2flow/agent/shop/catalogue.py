"""Catalogue file, and the idempotent seeding of the database from it."""

from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator
from sqlalchemy.orm import Session

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.shop.tables.orders import Courier
from gpt2flow.agent.shop.tables.products import Product, ProductAlias
from gpt2flow.files.documents import StrictModel, read_yaml

_CATALOGUE = Path(__file__).with_name("catalogue.yaml")
_Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Item(StrictModel):
    """Product in the catalogue file."""

    sku: _Name
    en: _Name
    zh: _Name
    price: Decimal = Field(ge=0, max_digits=10, decimal_places=2)
    stock: int = Field(ge=0)
    aliases: list[_Name] = []


class Carrier(StrictModel):
    """Courier in the catalogue file."""

    code: _Name
    en: _Name
    zh: _Name


class Catalogue(StrictModel):
    """Products and couriers of a shop."""

    products: list[Item] = Field(min_length=1)
    couriers: list[Carrier] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_distinct(self) -> Self:
        skus = [item.sku for item in self.products]
        codes = [carrier.code for carrier in self.couriers]
        # A name that two products have would name neither.
        names = [
            name.casefold()
            for item in self.products
            for name in (*dict.fromkeys((item.en, item.zh)), *item.aliases)
        ]
        listed = (skus, codes, names)
        if repeated := [key for keys in listed for key in keys if keys.count(key) > 1]:
            raise ValueError(f"{repeated[0]!r} is listed more than once")
        return self

    @cached_property
    def names(self) -> dict[str, list[str]]:
        """Names of each product, by stock-keeping unit."""
        return {item.sku: [item.en, item.zh, *item.aliases] for item in self.products}


def load_catalogue(path: Path | None = None) -> Catalogue:
    """Load a catalogue.

    Args:
        path: YAML file; None loads the one of the demo shop.

    Raises:
        InputError: The file is missing or invalid; the message names the field and its value.
    """
    return read_yaml(path or _CATALOGUE, Catalogue, InputError)


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
