"""Quantities that code reads beside a product."""

import pytest

from gpt2flow.agent.turns.execution.quantities import counted_products, quantity_beside

# Message, product as the model read it, number that it read, and number beside the product.
BESIDE = [
    ("Two pans please.", "pans", None, 2),
    ("Two frying pans please.", "pans", None, 2),
    ("one of those, and two pans", "pans", 1, 2),
    ("a dozen mugs plus two pans", "mugs", 2, 12),
    ("a dozen mugs plus two pans", "pans", 12, 2),
    ("a couple of pans", "pans", None, 2),
    ("a pair of pans", "pans", None, 2),
    ("a pair of running shoes", "running shoes", 2, 1),
    ("one pair of headphones", "headphones", 2, 1),
    ("2 packs of mugs", "packs of mugs", None, 2),
    ("pan x2", "pan", None, 2),
    ("pans: 3, mug: 1", "pans", None, 3),
    ("two pans", "two pans", None, 2),
    ("我要兩個背包", "兩個背包", None, 2),
    ("加一个键盘,就按49块5算", "键盘", 5, 1),
    ("一个背包一盏台灯", "背包", None, 1),
    ("背包两个吧", "背包", None, 2),
    ("背包也来一个,哦不,背包两个吧", "背包", 2, 2),
]
NOT_BESIDE = [
    ("four pans — sorry, five", "pans", 5),
    ("4 pans, make that 5", "pans", 5),
    ("4个键盘,不对,5个", "键盘", 5),
    ("not 2 pans", "pans", 3),
    ("2 pans and mugs", "mugs", None),
    ("a 2 litre kettle", "kettle", None),
    ("an iPhone 4 charger", "charger", None),
    ("from order 1042 a pan", "pan", None),
    ("$5 mugs", "mugs", None),
    ("背包一盏台灯", "背包", None),
    ("第2个键盘", "键盘", None),
    ("2 pans, then 3 pans for a friend", "pans", None),
    ("which pans?", "mugs", None),
    ("pans", "", None),
]
NAMES = [["electric kettle", "kettle", "电热水壶"], ["desk lamp", "lamp", "台灯"], ["knife", "刀"]]
COUNTED = {
    "a kettle and two desk lamps": [("desk lamps", 2)],
    "two electric kettles": [("electric kettles", 2)],
    "3 knives, 1 lamp": [("knives", 3), ("lamp", 1)],
    "电热水壶1个、台灯3盏": [("电热水壶", 1), ("台灯", 3)],
    "一个电热水壶一盏台灯": [("电热水壶", 1), ("台灯", 1)],
    "i got 2 kettles already, give me 3 lamps": [("lamps", 3)],
    "do you have two lamps": [],
    "台灯有2个吗": [],
    "lamps to 5 Oak Rd": [],
    "two lampshades": [],
    "2 kettles no three": [],
    "2 lamps, 3 kettles. forget the kettles": [("lamps", 2)],
    "台灯3盏,刀一把,哦刀不用了": [("台灯", 3)],
}


@pytest.mark.parametrize("message, product, read, number", BESIDE)
def test_a_number_beside_a_product_is_read(
    message: str, product: str, read: int | None, number: int
) -> None:
    assert quantity_beside(message, product, read) == number


@pytest.mark.parametrize("message, product, read", NOT_BESIDE)
def test_another_number_is_left_to_the_model(message: str, product: str, read: int | None) -> None:
    assert quantity_beside(message, product, read) is None


@pytest.mark.parametrize("message", COUNTED)
def test_products_are_counted_by_number_and_name(message: str) -> None:
    counted = [(each.phrase, each.quantity) for each in counted_products(message, NAMES)]
    assert counted == COUNTED[message]
