"""Catalogues from files, and what they add to a database."""

from pathlib import Path

import pytest

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.shop import Courier, Database, Product, database_url
from gpt2flow.agent.shop.catalogue import load_catalogue

_CLOTHES = """
products:
  - {sku: jeans, en: slim jeans, zh: 牛仔裤, price: "59.00", stock: 3, aliases: [jeans]}
  - {sku: shirt, en: shirt, zh: 衬衫, price: 40, stock: 0}
couriers:
  - {code: fast, en: Fast, zh: 快}
"""


def _write(folder: Path, text: str) -> Path:
    path = folder / "catalogue.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def _stocks(database: Database) -> dict[str, int]:
    with database.transaction() as db:
        return {product.sku: product.stock for product in db.query(Product)}


def test_new_database_has_the_goods_of_its_catalogue_alone(tmp_path: Path) -> None:
    catalogue = load_catalogue(_write(tmp_path, _CLOTHES))
    database = Database.open(database_url(str(tmp_path / "shop.sqlite")), catalogue)
    assert _stocks(database) == {"jeans": 3, "shirt": 0}
    with database.transaction() as db:
        assert [courier.code for courier in db.query(Courier)] == ["fast"]
        assert db.get_one(Product, "jeans").names == ["slim jeans", "牛仔裤", "jeans"]
    database.close()


def test_existing_database_gets_what_it_lacks(tmp_path: Path) -> None:
    url = database_url(str(tmp_path / "shop.sqlite"))
    catalogue = load_catalogue(_write(tmp_path, _CLOTHES))
    database = Database.open(url, catalogue)
    with database.transaction() as db:
        db.get_one(Product, "jeans").stock = 1
    database.close()
    more = _CLOTHES.replace(
        "couriers:", "  - {sku: sock, en: sock, zh: 袜子, price: 5, stock: 9}\ncouriers:"
    )
    database = Database.open(url, load_catalogue(_write(tmp_path, more)))
    assert _stocks(database) == {"jeans": 1, "shirt": 0, "sock": 9}
    database.close()


@pytest.mark.parametrize(
    "text, problem",
    [
        ("products: []", "products: List should have at least 1 item"),
        ("products: [{sku: a}]", "field products.0.en: Field required"),
        (
            _CLOTHES.replace("59.00", "-1"),
            "products.0.price: Input should be greater than or equal",
        ),
        (_CLOTHES.replace("59.00", "1.234"), "products.0.price"),
        (_CLOTHES.replace("stock: 3", "stock: -3"), "products.0.stock"),
        (_CLOTHES.replace("sku: shirt", "sku: jeans"), "'jeans' is listed more than once"),
        (_CLOTHES.replace("sku: shirt", "sku: ' '"), "products.1.sku"),
        (_CLOTHES.replace("[jeans]", "[jeans, jeans]"), "'jeans' is listed more than once"),
        (_CLOTHES.replace("en: shirt", "en: Jeans"), "'jeans' is listed more than once"),
        (_CLOTHES + "colour: red", "field colour: Extra inputs are not permitted"),
        ("products: [", "while parsing"),
    ],
)
def test_invalid_catalogue_is_named(tmp_path: Path, text: str, problem: str) -> None:
    path = _write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        load_catalogue(path)
    assert str(path) in str(caught.value)
    assert problem in str(caught.value)


def test_missing_catalogue_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_catalogue(tmp_path / "none.yaml")
