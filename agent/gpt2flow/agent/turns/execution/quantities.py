"""Products and their quantities, where a message has them beyond doubt.

The model reads a message as a whole, and may take the number of another clause. A number that
stands beside a product is beyond doubt, unless the customer corrects it afterwards.
"""

import re
from collections.abc import Collection, Iterable, Iterator

from gpt2flow.agent.flows.numbers import (
    CHINESE_COUNTS,
    CHINESE_TENS,
    QUANTITY_WORDS,
    parse_chinese_number,
)
from gpt2flow.agent.report import CountedProduct
from gpt2flow.agent.shop.matching import CHINESE_MEASURES, split_words, strip_article

_WORDS = "|".join(sorted(QUANTITY_WORDS, key=len, reverse=True))
_ENGLISH_NUMBER = rf"(?<![\w.,:#/$£€¥-])(\d{{1,3}}|(?:{_WORDS})\b)"
# Words between a number and its product describe the product; these do not.
_OTHER_WORDS = (
    "and|or|plus|with|for|to|at|in|on|by|from|the|an?|my|your|some|also|then|but|so|please|if|is|are"
    "|am|i|we|you|he|she|it|they|want|need|buy|get|add|take|have|like|put|order|send|make"
    "|litres?|liters?|l|ml|kg|g|cm|mm|m|inch|inches|ft|feet|watts?|w|gb|tb|years?|days?|hours?"
    "|minutes?|weeks?|months?|people|persons?|rooms?|percent|pounds?|dollars?|euros?|quid|pm|am"
)
_ENGLISH_BEFORE = re.compile(
    rf"{_ENGLISH_NUMBER}\s*(?:[x×*]\s*)?(?:of\s+(?:the\s+|your\s+|those\s+)?)?"
    rf"(?:(?!(?:{_OTHER_WORDS})\b)[a-z'-]+\s+){{0,2}}$",
    re.IGNORECASE,
)
_ENGLISH_AFTER = re.compile(r"^\s*(?:[x×*]|:)\s*(\d{1,3})(?!\d|[.,]\d|[:%])", re.IGNORECASE)
_CHINESE_NUMBER = rf"(?<![\d.:第])(\d{{1,3}}|{CHINESE_TENS}|[{CHINESE_COUNTS}])"
_LEADING = re.compile(rf"{_ENGLISH_NUMBER}\s+|{_CHINESE_NUMBER}[{CHINESE_MEASURES}]")
_CHINESE_BEFORE = re.compile(rf"{_CHINESE_NUMBER}\s*[{CHINESE_MEASURES}]\s*的?$")
# A measure word before another noun counts that one.
_CHINESE_AFTER = re.compile(
    rf"^\s*[x×*]?\s*{_CHINESE_NUMBER}\s*[{CHINESE_MEASURES}](?![^\W\d_a-zA-Z吧呢啊哈呀哦和跟与及再就])"
)
_CONTRARY_BEFORE = re.compile(
    r"(?:\bnot|\binstead of|\brather than|不是|不要|别)\s*$", re.IGNORECASE
)
_CORRECTION = re.compile(
    r"\b(?:sorry|no|not|nope|wait|make|actually|rather|instead|mean|meant|scratch|correction|oops"
    r"|hang on|hold on|change|on second thought|better)\b"
    r"|不|改|错|應該|应该|算了|还是|還是|哦|等等",
    re.IGNORECASE,
)
# In such a clause a product is not wished for, or not yet.
_NO_WISH = re.compile(
    r"\b(?:no|not|never|without|except|already|have|has|had|got|bought|ordered|returned?|refund"
    r"|broken|instead|rather|do|does|did|is|are|was|were|how|what|which|when|where|why|remove|cancel"
    r"|if|maybe|perhaps)\b|n['’]t\b|不|别|没|已|有|退|换|吗|嗎|多少|什么|买过|上次|上回|删|取消|如果|要是",
    re.IGNORECASE,
)
# What is sold by the pair.
_PAIRS = (
    *("shoes", "trainers", "sneakers", "boots", "sandals", "slippers"),
    *("gloves", "socks", "trousers", "jeans", "pants", "shorts"),
    *("headphones", "earphones", "earbuds", "headsets", "sunglasses", "goggles"),
)
_PLURALS = ("s", "mice")
_TAKEN_BACK = (
    r"\b(?:not|no|instead of|rather than)\s+(?:(?:an?|the|that|those|any)\s+)?"
    rf"|(?:不要|不是|不买)(?:[这那一]?[{CHINESE_MEASURES}])?"
)
_RETRACTION = (
    r"(?:\b(?:forget|skip|scrap|drop|leave|no|not|without|never mind)(?: about)?"
    r"(?: the| that| those| my| any)? |(?:不用|不要|不买|别)(?:那|这)?)"
)
# Words with which customers order products, and with which they ask about them.
_ORDERING = re.compile(
    r"\b(?:as well|also|too|add|put|chuck|throw|pop|order|buy|take|need|want|forgot|give me|get me)"
    r"\b|要|来|买|加|再|拿|下单|备货",
    re.IGNORECASE,
)
_ASKING = re.compile(
    r"[?？]|\b(?:how|what|whats|which|price[sd]?|cost|costs|charge|stock|available|any|show|see|find"
    r"|look|looking|search|tell|about|info|compare|check|total|fit|would|could|can)\b"
    r"|多少|几块|价|吗|嘛|呢|有没有|有无|库存|有货|看|查|了解|介绍|想知道",
    re.IGNORECASE,
)
_CLAUSE_END = re.compile(r"[,;.!?，。；！？、\n]+(?!\d)")


def quantity_beside(message: str, phrase: str, read: int | None = None) -> int | None:
    """Return the number that stands beside a phrase of a message.

    Args:
        message: Message of a customer.
        phrase: Product as the customer wrote it.
        read: Number that the model has read for it.

    Returns:
        The number. None without one, with several, or if `read` corrects it later in the message.
    """
    text, part = message.casefold(), phrase.casefold().strip()
    if not part or len(text) != len(message):
        return None
    numbers = set[int]()
    for at in _occurrences(text, part):
        end = at + len(part)
        number = _number_before(text[:at], part)
        # "iPhone 4 charger" asks for one.
        if (number or 1) > 1 and part.isascii() and not part.endswith(_PLURALS):
            continue
        number = number or _number_after(text[end:])
        if number is None:
            continue
        if read is not None and read != number and _corrects(text[end:], read):
            return None
        numbers.add(number)
    return numbers.pop() if len(numbers) == 1 else None


def counted_products(message: str, names: Iterable[Collection[str]]) -> list[CountedProduct]:
    """Return the products that a message has by number and name.

    Names count word for word, and only directly after or before their number. Clauses that negate,
    ask or tell of something else do not count, and neither does what is taken back later.

    Args:
        message: Message of a customer.
        names: Names of each product.
    """
    aliases = sorted({alias for each in names for alias in each}, key=len, reverse=True)
    return [
        counted
        for clause in _CLAUSE_END.split(message)
        if not _NO_WISH.search(clause)
        for counted in _counted_in(clause, aliases)
        if not _is_retracted(message, counted.phrase)
    ]


def orders_products(message: str) -> bool:
    """Return whether a message orders what it counts, and asks nothing."""
    return _ORDERING.search(message) is not None and _ASKING.search(message) is None


def taken_back(message: str, products: Iterable[str]) -> list[str]:
    """Return the products that a message takes back.

    Such as the backpack in "not a backpack, a mat".

    Args:
        message: Message of a customer.
        products: Names of what was added before.
    """
    text = message.casefold()
    return [
        product
        for product in dict.fromkeys(products)
        if (name := strip_article(product))
        and re.search(rf"(?:{_TAKEN_BACK}){re.escape(name)}(?![a-z])", text)
    ]


def _is_retracted(message: str, phrase: str) -> bool:
    """Return whether a message takes a product back that it has counted."""
    name = re.escape(phrase)
    pattern = rf"{_RETRACTION}{name}(?![a-z])|{name}(?:就|也|还是)?(?:不用|不要|不买|算了|别)"
    return re.search(pattern, message, re.IGNORECASE) is not None


def _counted_in(clause: str, aliases: Collection[str]) -> list[CountedProduct]:
    found: dict[int, CountedProduct] = {}
    left = clause.casefold()
    for alias in aliases:
        for at, phrase in _names_in(left, alias):
            end = at + len(phrase)
            number = _number_before(left[:at], phrase) or _number_after(left[end:])
            if number is not None:
                found[at] = CountedProduct(phrase=clause[at:end], quantity=number)
            # A longer name contains shorter ones.
            left = f"{left[:at]}{' ' * len(phrase)}{left[end:]}"
    return [found[at] for at in sorted(found)]


def _names_in(text: str, alias: str) -> Iterator[tuple[int, str]]:
    """Yield position and spelling of a product's name, in singular or plural."""
    if not alias.isascii():
        yield from ((at, alias.casefold()) for at in _occurrences(text, alias.casefold()))
        return
    wanted = split_words(alias)
    words = list(re.finditer(r"[a-z0-9'-]+", text))
    for first in range(len(words)):
        for last in range(first, min(first + len(wanted), len(words))):
            part = text[words[first].start() : words[last].end()]
            if split_words(part) == wanted:
                yield words[first].start(), part


def _occurrences(text: str, part: str) -> Iterator[int]:
    at = text.find(part)
    while at >= 0:
        yield at
        at = text.find(part, at + len(part))


def _number_before(before: str, phrase: str) -> int | None:
    """Return the number in front of a phrase, or at its start."""
    if (leading := _LEADING.match(phrase)) is not None:
        return _value(leading.group(1) or leading.group(2))
    found = _ENGLISH_BEFORE.search(before) or _CHINESE_BEFORE.search(before)
    if found is None or _CONTRARY_BEFORE.search(before[: found.start()]):
        return None
    number = found.group(1)
    return 1 if number.endswith("pair") and phrase.endswith(_PAIRS) else _value(number)


def _number_after(after: str) -> int | None:
    found = _ENGLISH_AFTER.search(after) or _CHINESE_AFTER.search(after)
    return _value(found.group(1)) if found else None


def _corrects(after: str, read: int) -> bool:
    """Return whether a number is said to replace the one before."""
    cue = _CORRECTION.search(after)
    if cue is None:
        return False
    numbers = re.finditer(rf"{_ENGLISH_NUMBER}|{_CHINESE_NUMBER}", after[cue.start() :])
    return any(_value(found.group(1) or found.group(2)) == read for found in numbers)


def _value(number: str) -> int:
    if number.isdecimal():
        return int(number)
    return QUANTITY_WORDS.get(number) or parse_chinese_number(number)
