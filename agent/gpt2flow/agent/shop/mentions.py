"""Products that a message names word for word."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from gpt2flow.agent.shop.matching import split_words


@dataclass(frozen=True, order=True)
class ProductMention:
    """Name of a product in a text.

    Attributes:
        start: Index of its first word in the text.
        end: Index after its last word.
        name: Name as the catalogue has it.
        sku: Stock-keeping unit of the product.
    """

    start: int
    end: int
    name: str
    sku: str


def named_products(text: str, names: Mapping[str, Collection[str]]) -> list[ProductMention]:
    """Return the products that a text names, in its order.

    A name has to occur word for word, its plural aside. Of overlapping names the longest counts,
    so that "tea towel" does not name tea.

    Args:
        text: Text of a customer.
        names: Names of each product, by stock-keeping unit.
    """
    words = split_words(text)
    found = [
        ProductMention(start, start + len(parts), name, sku)
        for sku, aliases in names.items()
        for name in aliases
        if (parts := split_words(name))
        for start in range(len(words) - len(parts) + 1)
        if words[start : start + len(parts)] == parts
    ]
    kept: list[ProductMention] = []
    for mention in sorted(found, key=lambda each: (each.start - each.end, each.start)):
        if all(mention.end <= other.start or other.end <= mention.start for other in kept):
            kept.append(mention)
    return sorted(kept)
