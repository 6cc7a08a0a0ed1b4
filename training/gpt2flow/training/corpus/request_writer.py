"""Requests in words, whose slot values are recorded."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.prompt import Arguments
from gpt2flow.agent.flows.slots import SlotKind
from gpt2flow.training.corpus.mentions import MentionGenerator, refer_back
from gpt2flow.training.corpus.noise import Segment
from gpt2flow.training.corpus.phrasing import fix_article, join, pluralize
from gpt2flow.training.corpus.sources.templates import Template
from gpt2flow.training.corpus.sources.utterances import (
    Combination,
    Language,
    wish_and_slot,
)

_QUESTIONS = ("find_product", "answer_question")
# Slots that one sentence may list several values of: "two lamps and a kettle".
LISTABLE_SLOTS = ("product", "order")
_LIST_JOINERS = {
    "en": (" and ", " and ", ", ", " plus ", " & ", " and also ", ", and "),
    "zh": ("和", "还有", "、", ",", "跟", ",还有", "以及"),
}
_COMMAS: dict[Language, str] = {"en": ", ", "zh": "、"}
_ARTICLES = ("a ", "a ", "the ", "some ", "")
_PACKS = ("packs of ", "boxes of ", "packets of ", "bags of ", "pieces of ", "sets of ")
_MEASURES = "个个个件件台条把盏双瓶盒袋包套本张支只块份箱"
# Values that customers correct within a sentence, and how often they do.
_CORRECTABLE_SLOTS = ("quantity", "product", "order", "contact", "name", "address", "time")
_CORRECTED_SHARE = 0.07
# Counted products whose unit is named: "two packs of tea".
_PACKED_SHARE = 0.06

Request: TypeAlias = tuple[str, Template] | Combination
"""Action with its wording, or one wording of several."""


@dataclass(slots=True)
class PendingIntent:
    """Intent of a message that is still being written.

    Attributes:
        action: Requested action.
        fixed: Slot values that the wording implies.
        mentions: Segment and value of each mentioned slot. The value is None if it is the final
            text of the segment.
    """

    action: str
    fixed: Arguments
    mentions: dict[str, tuple[Segment, str | int | None]] = field(default_factory=dict)


class RequestWriter:
    """Writer of requests in one language.

    Args:
        book: Flows whose actions customers request.
        language: Language of the requests.
        corrections: Templates between a value that is taken back and the right one.
        mentions: Generator of slot values in that language.
        listed_share: Share of requests that list several products or orders.
    """

    def __init__(
        self,
        book: FlowBook,
        language: Language,
        corrections: Sequence[Template],
        mentions: MentionGenerator,
        listed_share: float,
    ) -> None:
        self._book = book
        self._language = language
        self._corrections = corrections
        self._mentions = mentions
        self._listed_share = listed_share

    def write(
        self, request: Request, pending: list[PendingIntent], rng: random.Random
    ) -> list[Segment]:
        """Write a request and append its intents to `pending`."""
        if isinstance(request, Combination):
            return self._write_combination(request, pending, rng)
        return self._write_request(*request, pending, rng)

    def _write_request(
        self, action: str, template: Template, pending: list[PendingIntent], rng: random.Random
    ) -> list[Segment]:
        """Write one request and append its intents to `pending`.

        A request that lists several products or orders has one intent per item.
        """
        fixed = {
            slot: self._parse_fixed_value(slot, value) for slot, value in template.fixed.items()
        }
        intent = PendingIntent(action, fixed)
        pending.append(intent)
        segments: list[Segment] = []
        for part in template.expand(rng):
            if isinstance(part, str):
                segments.append(Segment(part))
                continue
            if self._maybe_refer_back(part.slot, pending, segments, rng):
                continue
            self._append_mention(part.slot, intent, segments, rng)
            if part.slot in LISTABLE_SLOTS and self._may_list(template, intent, rng):
                segments += self._list_more(part.slot, intent, pending, rng)
        if intent is pending[-1]:
            self._maybe_correct(intent, segments, rng)
        return segments

    def _write_combination(
        self, combination: Combination, pending: list[PendingIntent], rng: random.Random
    ) -> list[Segment]:
        """Write one wording of several wishes and append their intents to `pending`.

        A value that is not wanted differs from all that are.
        """
        while True:
            segments, intents, unwanted = self._draw_combination(combination, rng)
            wanted = {_value(mention) for intent in intents for mention in intent.mentions.values()}
            if not wanted & set(map(_value, unwanted.mentions.values())):
                pending += intents
                return segments

    def _draw_combination(
        self, combination: Combination, rng: random.Random
    ) -> tuple[list[Segment], list[PendingIntent], PendingIntent]:
        """Return a text, its intents, and the values that are not wanted."""
        intents = [PendingIntent(action, {}) for action in combination.actions]
        unwanted = PendingIntent(combination.actions[0], {})
        for placeholder, value in combination.template.fixed.items():
            wish, slot = wish_and_slot(placeholder)
            if wish is not None:
                intents[wish].fixed[slot] = self._parse_fixed_value(slot, value)
        segments: list[Segment] = []
        mentioned: list[int] = []
        for part in combination.template.expand(rng):
            if isinstance(part, str):
                segments.append(Segment(part))
                continue
            wish, slot = wish_and_slot(part.slot)
            if wish is not None and wish not in mentioned:
                mentioned.append(wish)
            intent = unwanted if wish is None else intents[wish]
            if slot in intent.mentions:
                segments.append(replace(intent.mentions[slot][0]))
            else:
                self._append_mention(slot, intent, segments, rng)
        for intent in intents[1:]:
            for slot in combination.shared & set(intents[0].mentions):
                intent.mentions.setdefault(slot, intents[0].mentions[slot])
        # A mere question waits for nothing, so it is answered where it stands.
        asks = not combination.shared and set(combination.actions) & set(_QUESTIONS)
        if asks and len(mentioned) == len(intents):
            intents = [intents[wish] for wish in mentioned]
        return segments, intents, unwanted

    def _maybe_correct(
        self, intent: PendingIntent, segments: list[Segment], rng: random.Random
    ) -> None:
        """Replace one of the values by a correction, in some cases."""
        slots = [slot for slot in intent.mentions if slot in _CORRECTABLE_SLOTS]
        if not (slots and self._corrections and rng.random() < _CORRECTED_SHARE):
            return
        slot = rng.choice(slots)
        old = intent.mentions.pop(slot)
        join(segments, rng.choice(self._corrections).text(rng))
        self._append_mention(slot, intent, segments, rng)
        if slot == "quantity" and self._language == "zh":
            segments.append(Segment(rng.choice(("", "个", "件", "个才对", "个就行"))))
        if intent.mentions[slot][1] is not None and intent.mentions[slot][1] == old[1]:
            # The values happen to be the same, so nothing was corrected.
            intent.mentions[slot] = old

    def _maybe_refer_back(
        self,
        slot: str,
        pending: list[PendingIntent],
        segments: list[Segment],
        rng: random.Random,
    ) -> bool:
        """Refer back to a value of an earlier intent, in some cases.

        Returns:
            Whether a reference was written.
        """
        *earlier, intent = pending
        mentioned = [other.mentions[slot] for other in earlier if slot in other.mentions]
        is_other_action = intent.action not in {other.action for other in earlier}
        if not (mentioned and slot in LISTABLE_SLOTS and is_other_action and rng.random() < 0.25):
            return False
        refer_back(slot, self._language, segments, rng)
        intent.mentions.setdefault(slot, mentioned[-1])
        return True

    def _parse_fixed_value(self, slot: str, value: str) -> str | int:
        return int(value) if self._book.slots[slot].kind is SlotKind.INTEGER else value

    def _append_mention(
        self, name: str, intent: PendingIntent, segments: list[Segment], rng: random.Random
    ) -> None:
        """Append a random value of a slot and record it in `intent`."""
        slot = self._book.slots[name]
        mention = self._mentions.generate(name, slot, rng)
        text = mention.text
        if self._language == "en" and name == "product":
            counted = segments and segments[-1].text == " " and _quantity(intent) > 1
            if counted and rng.random() < _PACKED_SHARE:
                segments.append(Segment(rng.choice(_PACKS)))
            elif _quantity(intent) > 1 and rng.random() < 0.85:
                text = pluralize(text)
            fix_article(segments, text)
        if slot.kind is SlotKind.ENUM:
            segments.append(Segment(text))
        else:
            segments.append(Segment(text, name, exact=slot.kind is not SlotKind.SPAN))
        intent.mentions.setdefault(name, (segments[-1], mention.value))

    def _may_list(self, template: Template, intent: PendingIntent, rng: random.Random) -> bool:
        """Sample whether a list follows, which must end the request."""
        is_complete = template.slots <= set(intent.mentions) and not template.fixed
        return is_complete and rng.random() < self._listed_share

    def _list_more(
        self,
        slot: str,
        intent: PendingIntent,
        pending: list[PendingIntent],
        rng: random.Random,
    ) -> list[Segment]:
        """Write one to three more values, each with its own intent."""
        segments: list[Segment] = []
        count = rng.choice((1, 1, 1, 1, 2, 2, 3))
        for number in range(count):
            listed = PendingIntent(intent.action, {})
            pending.append(listed)
            # As in "A, B and C".
            inner = number < count - 1 and rng.random() < 0.8
            joiner = _COMMAS[self._language] if inner else rng.choice(_LIST_JOINERS[self._language])
            segments.append(Segment(joiner))
            if slot == "product":
                self._append_quantity(listed, segments, rng)
            self._append_mention(slot, listed, segments, rng)
        return segments

    def _append_quantity(
        self, intent: PendingIntent, segments: list[Segment], rng: random.Random
    ) -> None:
        """Write a quantity or an article."""
        countable = "quantity" in self._book.actions[intent.action].slots
        if countable and rng.random() < 0.5:
            self._append_mention("quantity", intent, segments, rng)
            segments.append(Segment(" " if self._language == "en" else rng.choice(_MEASURES)))
        elif self._language == "en":
            segments.append(Segment(rng.choice(_ARTICLES)))


def _value(mention: tuple[Segment, str | int | None]) -> str | int:
    """Return the value of a mention, the text of a span."""
    segment, value = mention
    return segment.text.casefold() if value is None else value


def _quantity(intent: PendingIntent) -> int:
    value = intent.mentions["quantity"][1] if "quantity" in intent.mentions else 1
    return value if isinstance(value, int) else 1
