"""Mentions: slot values as customers write them."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from gpt2flow.agent.flows.schema import Slot
from gpt2flow.agent.flows.slots import LAST_ORDER, SlotKind, candidates
from gpt2flow.training.corpus.noise import Segment
from gpt2flow.training.corpus.sources.lexicon import Lexicon
from gpt2flow.training.corpus.sources.templates import Template, TemplateParser
from gpt2flow.training.corpus.sources.utterances import Language
from gpt2flow.training.errors import CorpusError

# References to an order or product named earlier in the message.
_ORDER_REFERENCES = {
    "en": ("it", "that order", "that one", "this order", "the same order", "that same one"),
    "zh": ("这个订单", "这单", "这个", "它", "同一个订单", "那单", "该订单"),
}

_CHINESE_PRODUCT_REFERENCES = ("这个", "它", "这款", "那个")

# English product references by the article they replace: "a kettle" becomes "one".
_PRODUCT_REFERENCES = {
    " a ": ("one", "one of those", "one of them"),
    " an ": ("one", "one of those"),
    " the ": ("it", "that one", "this one"),
    " some ": ("some", "some of those"),
}


@dataclass(frozen=True, slots=True)
class Mention:
    """Value of a slot as a customer writes it.

    Attributes:
        text: Text in the message.
        value: Value of the slot. None for a span, whose value is the final text, typos included.
    """

    text: str
    value: str | int | None


class MentionGenerator:
    """Generator of random slot mentions in one language."""

    def __init__(
        self,
        language: Language,
        lexicon: Lexicon,
        spans: Mapping[str, Sequence[Template]],
        values: Mapping[str, Mapping[str, Sequence[Template]]],
    ) -> None:
        """Parse the templates of the lexicon.

        Args:
            language: Language of the mentions.
            lexicon: Words of that language.
            spans: Templates of the values of span slots, by slot.
            values: Templates of the values of enum slots, by slot and value.
        """
        parser = TemplateParser(f"lexicon {language}", {})
        self._lexicon = lexicon
        self._chinese = language == "zh"
        self._values = values
        self._orders = [parser.parse(source) for source in lexicon.order_mentions]
        self._addresses = [parser.parse(source) for source in lexicon.address_patterns]
        self._last_order = [parser.parse(source) for source in lexicon.last_order]
        times = [parser.parse(source) for source in lexicon.times]
        self._spans: dict[str, Callable[[random.Random], str]] = {
            "name": self._sample_name,
            "product": self._sample_product,
            "address": self._sample_address,
            "time": partial(_expand_any, times),
            **{slot: partial(_expand_any, templates) for slot, templates in spans.items()},
        }

    def generate(self, name: str, slot: Slot, rng: random.Random) -> Mention:
        """Return a mention of a random value of a slot.

        Args:
            name: Name of the slot.
            slot: Specification of the slot.
            rng: Random generator.

        Raises:
            CorpusError: A span slot has no values, in the lexicon or any utterance file.
        """
        match slot.kind:
            case SlotKind.ENUM:
                value = rng.choice(slot.values)
                return Mention(_expand_any(self._values[name][value], rng), value)
            case SlotKind.SPAN:
                if name not in self._spans:
                    raise CorpusError(f"slot {name}: no `spans` in any utterance file")
                return Mention(self._spans[name](rng), None)
            case SlotKind.INTEGER:
                return self._sample_number(rng)
            case SlotKind.ORDER:
                return self._sample_order(rng)
            case SlotKind.CONTACT:
                text = self._sample_phone(rng) if rng.random() < 0.4 else self._sample_email(rng)
            case SlotKind.CODE:
                digits = _sample_digits(rng, 6)
                text = rng.choice((digits, digits, digits, f"{digits[:3]} {digits[3:]}"))
        return Mention(text, candidates(slot.kind, text)[0])

    def _sample_name(self, rng: random.Random) -> str:
        given, surname = rng.choice(self._lexicon.given_names), rng.choice(self._lexicon.surnames)
        if self._chinese:
            return rng.choice((surname + given, surname + given, given, f"小{surname}"))
        return rng.choice(
            (f"{given} {surname}", f"{given} {surname}", given, f"{surname}, {given}")
        )

    def _sample_product(self, rng: random.Random) -> str:
        words = [rng.choice(self._lexicon.products)]
        if rng.random() < 0.25:
            words.insert(0, rng.choice(self._lexicon.adjectives))
        if rng.random() < 0.08:
            words.insert(0, _invent_word(rng))
        return ("" if self._chinese else " ").join(words)

    def _sample_address(self, rng: random.Random) -> str:
        fields = {
            "number": str(rng.choice((rng.randint(1, 40), rng.randint(1, 400)))),
            "street": rng.choice(self._lexicon.streets),
            "city": rng.choice(self._lexicon.cities),
            "postcode": self._sample_postcode(rng),
            "unit": self._sample_unit(rng),
        }
        parts = rng.choice(self._addresses).expand(rng)
        return "".join(part if isinstance(part, str) else fields[part.slot] for part in parts)

    def _sample_postcode(self, rng: random.Random) -> str:
        if self._chinese:
            return f"{rng.randint(100, 859)}{rng.choice(('000', _sample_digits(rng, 3)))}"
        district = f"{_sample_letters(rng, rng.randint(1, 2))}{rng.randint(1, 29)}"
        return rng.choice(
            (f"{district} {rng.randint(1, 9)}{_sample_letters(rng, 2)}", _sample_digits(rng, 5))
        )

    def _sample_unit(self, rng: random.Random) -> str:
        number = str(rng.randint(1, 30))
        if self._chinese:
            return rng.choice((f"{number}栋{rng.randint(1, 33)}0{rng.randint(1, 8)}", number))
        return rng.choice((number, number + rng.choice("ABCDabcd")))

    def _sample_number(self, rng: random.Random) -> Mention:
        if rng.random() < 0.45:
            text = rng.choice(list(self._lexicon.number_words))
            return Mention(text, self._lexicon.number_words[text])
        value = rng.choice((rng.randint(1, 5), rng.randint(1, 12), rng.randint(1, 60)))
        return Mention(str(value), value)

    def _sample_order(self, rng: random.Random) -> Mention:
        if rng.random() < 0.18:
            return Mention(_expand_any(self._last_order, rng), LAST_ORDER)
        digits = _sample_digits(rng, rng.choice((4, 4, 4, 5, 6)))
        parts = rng.choice(self._orders).expand(rng)
        text = "".join(part if isinstance(part, str) else digits for part in parts)
        return Mention(text, f"SO-{digits}")

    def _sample_email(self, rng: random.Random) -> str:
        if self._chinese:
            user = f"{_invent_word(rng)}{_sample_digits(rng, rng.randint(0, 4))}"
        else:
            given, surname = (
                rng.choice(self._lexicon.given_names),
                rng.choice(self._lexicon.surnames),
            )
            user = rng.choice(
                (f"{given}.{surname}", f"{given}{rng.randint(1, 99)}", given[0] + surname, given)
            )
        user = "".join(c for c in user if c.isascii() and (c.isalnum() or c in "._-"))
        return f"{user or _invent_word(rng)}@{rng.choice(self._lexicon.email_domains)}".lower()

    def _sample_phone(self, rng: random.Random) -> str:
        if self._chinese:
            a, b, c = f"1{rng.randint(30, 99)}", _sample_digits(rng, 4), _sample_digits(rng, 4)
            return rng.choice(
                (a + b + c, a + b + c, f"{a} {b} {c}", f"{a}-{b}-{c}", f"+86 {a}{b}{c}")
            )
        a, b = _sample_digits(rng, 3), _sample_digits(rng, 4)
        return rng.choice(
            (
                f"07{_sample_digits(rng, 3)} {_sample_digits(rng, 6)}",
                f"07{_sample_digits(rng, 9)}",
                f"+44 7{_sample_digits(rng, 3)} {_sample_digits(rng, 6)}",
                f"{rng.randint(201, 989)}-{a}-{b}",
                f"{rng.randint(201, 989)} {a} {b}",
                f"+1 {rng.randint(201, 989)} {a} {b}",
                f"+{rng.randint(30, 99)}{_sample_digits(rng, 9)}",
            )
        )


def _expand_any(templates: Sequence[Template], rng: random.Random) -> str:
    return rng.choice(templates).text(rng)


def _sample_digits(rng: random.Random, count: int) -> str:
    """Return `count` random digits without a leading zero."""
    return "" if count == 0 else str(rng.randint(10 ** (count - 1), 10**count - 1))


def _sample_letters(rng: random.Random, count: int) -> str:
    return "".join(rng.choices("ABCDEFGHJKLMNOPRSTUWY", k=count))


def _invent_word(rng: random.Random) -> str:
    """Return a nonsense word, which the model can only learn to copy."""
    syllables = rng.randint(2, 3)
    return "".join(rng.choice("bcdfghjklmnprstvz") + rng.choice("aeiou") for _ in range(syllables))


def refer_back(slot: str, language: Language, segments: list[Segment], rng: random.Random) -> None:
    """Append a reference to an earlier value, such as "that order".

    Args:
        slot: `product` or `order`.
        language: Language of the message.
        segments: Segments of the message so far; an article at its end is replaced.
        rng: Random generator.
    """
    if slot == "order" or language == "zh":
        is_order = slot == "order"
        references = _ORDER_REFERENCES[language] if is_order else _CHINESE_PRODUCT_REFERENCES
        segments.append(Segment(rng.choice(references)))
        return
    before = segments[-1].text if segments else ""
    counted = len(segments) > 1 and segments[-2].slot == "quantity" and before == " "
    for article, references in _PRODUCT_REFERENCES.items():
        if f" {before}".endswith(article):
            segments[-1].text = before[: len(before) + 1 - len(article)]
            segments.append(Segment((" " if segments[-1].text else "") + rng.choice(references)))
            return
    segments.append(Segment(rng.choice(("of them", "of those") if counted else ("it", "that one"))))
