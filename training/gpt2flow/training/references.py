"""Words that point back at what the message has named already: "it", "that order"."""

import random

from gpt2flow.training.noise import Segment
from gpt2flow.training.utterances import Language

_ORDERS = {
    "en": ("it", "that order", "that one", "this order", "the same order", "that same one"),
    "zh": ("这个订单", "这单", "这个", "它", "同一个订单", "那单", "该订单"),
}
_PRODUCTS = ("这个", "它", "这款", "那个")
# What "a kettle", "the kettle", "some kettles" become.
_ARTICLES = {
    " a ": ("one", "one of those", "one of them"),
    " an ": ("one", "one of those"),
    " the ": ("it", "that one", "this one"),
    " some ": ("some", "some of those"),
}


def refer_back(slot: str, language: Language, segments: list[Segment], rng: random.Random) -> None:
    """Writes a reference instead of a value.

    Args:
        slot: `product` or `order`.
        language: of the message.
        segments: what is written so far; an article at its end gives way.
        rng: drawn from.
    """
    if slot == "order" or language == "zh":
        words = _ORDERS[language] if slot == "order" else _PRODUCTS
        segments.append(Segment(rng.choice(words)))
        return
    before = segments[-1].text if segments else ""
    counted = len(segments) > 1 and segments[-2].slot == "quantity" and before == " "
    for article, instead in _ARTICLES.items():
        if f" {before}".endswith(article):
            segments[-1].text = before[: len(before) + 1 - len(article)]
            segments.append(Segment((" " if segments[-1].text else "") + rng.choice(instead)))
            return
    segments.append(Segment(rng.choice(("of them", "of those") if counted else ("it", "that one"))))
