"""Product matching: tolerant of typos and plurals, but never of ambiguity."""

from collections.abc import Mapping

import pytest

from gpt2flow.agent.shop.catalogue import load_catalogue
from gpt2flow.agent.shop.matching import match_product, packed_product, same_product, strip_filler

NAMES: Mapping[str, list[str]] = load_catalogue().names

MATCHES = {
    "kettles": "electric-kettle",
    "the electirc kettle": "electric-kettle",
    "large kettle": "electric-kettle",
    "tea kettle": "electric-kettle",
    "red usb cable": "usb-cable",
    "usb cabel": "usb-cable",
    "iphone charger": "phone-charger",
    "mechanical keybord": "mechanical-keyboard",
    "mice": "wireless-mouse",
    "lap top stands": "laptop-stand",
    "runing shoe": "running-shoes",
    "shoes": "running-shoes",
    "t shirts": "cotton-t-shirt",
    "cotton tshirt": "cotton-t-shirt",
    "white tees": "cotton-t-shirt",
    "green tea": "green-tea",
    "tea": "green-tea",
    "POWERBANK": "power-bank",
    "chefs knife": "chef-knife",
    "kitchen knives": "chef-knife",
    "2 brollies": "umbrella",
    "热水壶": "electric-kettle",
    "红色雨伞": "umbrella",
    "大号瑜珈垫": "yoga-mat",
    "机械健盘": "mechanical-keyboard",
    "保温悲": "water-bottle",
    "电热水胡": "electric-kettle",
    "红色雨三": "umbrella",
    "t恤": "cotton-t-shirt",
    "两台电饭煲": "rice-cooker",
}


@pytest.mark.parametrize("phrase", MATCHES)
def test_phrase_is_matched(phrase: str) -> None:
    assert match_product(phrase, NAMES).sku == MATCHES[phrase]


@pytest.mark.parametrize("sku", NAMES)
def test_every_name_is_matched(sku: str) -> None:
    for name in NAMES[sku]:
        assert match_product(name, NAMES).sku == sku
        assert match_product(f"The {name.upper()}", NAMES).sku == sku


@pytest.mark.parametrize(
    "phrase, first",
    [
        ("wireless keyboard", "mechanical-keyboard"),
        ("wired headphones", "bluetooth-headphones"),
        ("black tea", "green-tea"),
        ("红茶", "green-tea"),
        ("phone case", "phone-charger"),
        ("desk", "desk-lamp"),
        ("笔记本", "laptop-stand"),
        ("rice", "rice-cooker"),
        ("kettle descaler", "electric-kettle"),
    ],
)
def test_similar_product_is_only_suggested(phrase: str, first: str) -> None:
    match = match_product(phrase, NAMES)
    assert match.sku is None
    assert match.suggestions[0] == first
    assert len(match.suggestions) == 3


@pytest.mark.parametrize("phrase", ["", "a", "drone", "洗衣机", "充电", "叉", "()", "😀"])
def test_nonsense_and_ambiguity_match_nothing(phrase: str) -> None:
    assert match_product(phrase, NAMES).sku is None


@pytest.mark.parametrize(
    "plural, singular",
    [
        ("brollies", "brolly"),
        ("knives", "knife"),
        ("shelves", "shelf"),
        ("scarves", "scarf"),
        ("leaves", "leaf"),
        ("mice", "mouse"),
    ],
)
def test_irregular_plural_is_matched(plural: str, singular: str) -> None:
    assert match_product(plural, {"wanted": [singular], "other": ["lamp"]}).sku == "wanted"


def test_nothing_matches_in_an_empty_shop() -> None:
    assert match_product("kettle", {}).suggestions == []


def test_same_product_needs_a_product() -> None:
    assert same_product("kettle", "电热水壶", NAMES)
    assert not same_product("kettle", "umbrella", NAMES)
    assert not same_product("drone", "drone", NAMES)


@pytest.mark.parametrize(
    "phrase, name",
    [
        ("brollies in the basket", "brollies"),
        ("yoga mats please", "yoga mats"),
        ("雨伞1把", "雨伞"),
        ("一把雨伞", "雨伞"),
        ("one of those", ""),
        ("green tea", "green tea"),
    ],
)
def test_words_around_a_product_are_filler(phrase: str, name: str) -> None:
    assert strip_filler(phrase) == name


@pytest.mark.parametrize(
    "unit, text, sku",
    [
        ("packs", "two packs of green tea", "green-tea"),
        ("boxes", "two boxes green tea please", "green-tea"),
        ("pieces of", "three pieces of desk lamps for the office", "desk-lamp"),
        # Of two names that begin alike, the longer one counts.
        ("packs", "packs of tea kettles", "electric-kettle"),
        ("packs", "two packs, and a kettle", None),
        ("packs", "packs of unicorns and kettles", None),
        ("toaster", "a toaster to go with my kettle", None),
        ("packs", "two boxes of tea", None),
    ],
)
def test_product_follows_its_unit(unit: str, text: str, sku: str | None) -> None:
    assert packed_product(unit, text, NAMES) == sku
