"""Products that a message names word for word."""

import pytest

from gpt2flow.agent.shop.mentions import named_products

NAMES = {
    "tea": ["green tea", "绿茶", "tea"],
    "towel": ["tea towel"],
    "lamp": ["desk lamp", "台灯"],
    "knife": ["chef's knife"],
}


@pytest.mark.parametrize(
    "text, skus",
    [
        ("two desk lamps and some green tea, please", ["lamp", "tea"]),
        ("绿茶来两盒,再加台灯", ["tea", "lamp"]),
        ("a tea towel", ["towel"]),
        ("a tea towel with tea", ["towel", "tea"]),
        ("two chefs knives", ["knife"]),
        ("DESK LAMP", ["lamp"]),
        ("a lamp for the desk", []),
        ("a steady hand", []),
        ("", []),
    ],
)
def test_names_are_found_word_for_word(text: str, skus: list[str]) -> None:
    assert [mention.sku for mention in named_products(text, NAMES)] == skus
