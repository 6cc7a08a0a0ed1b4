"""Customer messages, composed of intents whose slot values are recorded."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.prompt import Arguments, Choice, normalize
from gpt2flow.agent.flows.slots import SlotKind, candidates
from gpt2flow.training.corpus.mentions import MentionGenerator, refer_back
from gpt2flow.training.corpus.noise import Segment, add_noise
from gpt2flow.training.corpus.sources.labelled import LabelledMessage
from gpt2flow.training.corpus.sources.templates import Template
from gpt2flow.training.corpus.sources.utterances import (
    Combination,
    Language,
    Utterances,
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
_VOWEL = re.compile(r"[aeiou]", re.IGNORECASE)
_UNCOUNTABLE = re.compile(r"(s|tea|coffee|rice|milk|water|paper|juice|oil)$", re.IGNORECASE)
# Values that customers correct within a sentence, and how often they do.
_CORRECTABLE_SLOTS = ("quantity", "product", "order", "contact", "name", "address", "time")
_CORRECTED_SHARE = 0.07
# Counted products whose unit is named: "two packs of tea".
_PACKED_SHARE = 0.06
_PLURALS = (
    (re.compile(r"(?<=[^aeiou])y$"), "ies"),
    (re.compile(r"(?<=[nlw]i)fe$|(?<=[lr])f$|(?<=ea)f$"), "ves"),
    (re.compile(r"(?<=[xz])$|(?<=[cs]h)$"), "es"),
)
_END_MARKS = re.compile(r"[.!?。,;\s]+$")
_FULL_STOPS = ".!?。,;~…:"
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_PLAIN_JOINERS = (", ", ". ", "; ", " - ")


@dataclass(frozen=True)
class Mix:
    """Shares of messages with several wishes.

    Attributes:
        more_wishes: Weights of no further request, one, and two.
        listed_share: Share of requests that list several products or orders.
    """

    more_wishes: Sequence[float] = (62, 29, 9)
    listed_share: float = 0.15


DEFAULT_MIX = Mix()


@dataclass(frozen=True, slots=True)
class Intent:
    """Action that the customer requests, with the slot values in the message."""

    action: str
    arguments: Arguments

    @property
    def choice(self) -> Choice:
        """Choice of the action that fulfils the intent."""
        return Choice(self.action, self.arguments)


Request: TypeAlias = tuple[str, Template] | Combination
"""Action with its wording, or one wording of several."""


@dataclass(slots=True)
class _PendingIntent:
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


class MessageGenerator:
    """Generator of messages in one language."""

    def __init__(
        self,
        book: FlowBook,
        language: Language,
        utterances: Utterances,
        mentions: MentionGenerator,
        *,
        listed_share: float = Mix.listed_share,
    ) -> None:
        """Bind flows, utterances and mentions of one language.

        Args:
            book: Flows whose actions customers request.
            language: Language of the messages.
            utterances: Utterances in that language.
            mentions: Generator of slot values in that language.
            listed_share: Share of requests that list several products or orders.
        """
        self._listed_share = listed_share
        self._book = book
        self.language = language
        self._space = " " if language == "en" else ""
        self._mentions = mentions
        self.utterances = utterances

    def generate(
        self,
        requests: Sequence[Request],
        rng: random.Random,
        *,
        in_order: bool = True,
        retracted: tuple[str, Template] | None = None,
    ) -> tuple[str, list[Intent]]:
        """Write one message.

        Args:
            requests: Requests in the order of the text.
            rng: Random generator.
            in_order: The text follows the order of execution, so that "then" may join requests.
            retracted: Request that the customer takes back before the others.

        Returns:
            The message, normalized as by the agent, and its intents. There are more intents than
            requests if a sentence lists several products or orders.
        """
        pending: list[_PendingIntent] = []
        segments = self._sample_opener(rng)
        if retracted is not None:
            segments += self._write_request(*retracted, [], rng)
            _join(segments, rng.choice(self.utterances.retractions).text(rng))
        for number, request in enumerate(requests):
            if number:
                _join(
                    segments, self._sample_joiner(rng) if in_order else rng.choice(_PLAIN_JOINERS)
                )
            if isinstance(request, Combination):
                segments += self._write_combination(request, pending, rng)
            else:
                segments += self._write_request(*request, pending, rng)
        segments += self._sample_closer(segments, rng)
        add_noise(segments, self.language, rng)
        text = normalize("".join(segment.text for segment in segments))
        return text, [self._resolve_intent(intent, text) for intent in pending]

    def fill(self, message: LabelledMessage, rng: random.Random) -> tuple[str, list[Intent]] | None:
        """Fill the placeholders of a real message.

        Returns:
            The normalized message and its intent; None if a value cannot be derived from it.
        """
        values: dict[str, str] = {}
        arguments: Arguments = {}

        def replace(match: re.Match[str]) -> str:
            name = match[1]
            mention = self._mentions.generate(name, self._book.slots[name], rng)
            values[name] = mention.text
            if name in self._book.actions[message.action].slots:
                value = mention.value
                arguments[name] = normalize(mention.text) if value is None else value
            return mention.text

        segments = [Segment(_PLACEHOLDER.sub(replace, message.text))]
        segments[0].exact = bool(values or message.arguments)
        if not segments[0].exact:
            add_noise(segments, self.language, rng)
        text = normalize(segments[0].text)
        for slot, value in message.arguments.items():
            if not _PLACEHOLDER.fullmatch(str(value)):
                arguments[slot] = normalize(str(value)) if isinstance(value, str) else value
        slots = self._book.actions[message.action].slots
        ordered = {slot: arguments[slot] for slot in slots if slot in arguments}
        return (text, [Intent(message.action, ordered)]) if text else None

    def _resolve_intent(self, intent: _PendingIntent, message: str) -> Intent:
        # The agent's grammar admits only numbers that the message contains.
        values = {
            slot: value
            for slot, value in intent.fixed.items()
            if isinstance(value, str) or str(value) in candidates(SlotKind.INTEGER, message)
        }
        for slot, (segment, value) in intent.mentions.items():
            values[slot] = normalize(segment.text) if value is None else value
        slots = self._book.actions[intent.action].slots
        return Intent(intent.action, {slot: values[slot] for slot in slots if slot in values})

    def _sample_joiner(self, rng: random.Random) -> str:
        return rng.choice(self.utterances.joiners).text(rng)

    def _sample_opener(self, rng: random.Random) -> list[Segment]:
        segments: list[Segment] = []
        for _ in range(rng.choices((0, 1, 2), (74, 22, 4))[0] if self.utterances.openers else 0):
            text = rng.choice(self.utterances.openers).text(rng)
            segments.append(Segment(text if text[-1:].isspace() else text + self._space))
        return segments

    def _sample_closer(self, segments: list[Segment], rng: random.Random) -> list[Segment]:
        if not self.utterances.closers or rng.random() > 0.2:
            return []
        text = rng.choice(self.utterances.closers).text(rng)
        if segments[-1].text[-1:] in _FULL_STOPS:
            return [Segment(self._space + text)]
        marks = (" ", ", ", ". ", " - ") if self.language == "en" else (",", " ", "。", "")
        return [Segment(rng.choice(marks) + text)]

    def _write_request(
        self, action: str, template: Template, pending: list[_PendingIntent], rng: random.Random
    ) -> list[Segment]:
        """Write one request and append its intents to `pending`.

        A request that lists several products or orders has one intent per item.
        """
        fixed = {
            slot: self._parse_fixed_value(slot, value) for slot, value in template.fixed.items()
        }
        intent = _PendingIntent(action, fixed)
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
        self, combination: Combination, pending: list[_PendingIntent], rng: random.Random
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
    ) -> tuple[list[Segment], list[_PendingIntent], _PendingIntent]:
        """Return a text, its intents, and the values that are not wanted."""
        intents = [_PendingIntent(action, {}) for action in combination.actions]
        unwanted = _PendingIntent(combination.actions[0], {})
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
        self, intent: _PendingIntent, segments: list[Segment], rng: random.Random
    ) -> None:
        """Replace one of the values by a correction, in some cases."""
        slots = [slot for slot in intent.mentions if slot in _CORRECTABLE_SLOTS]
        if not (slots and self.utterances.corrections and rng.random() < _CORRECTED_SHARE):
            return
        slot = rng.choice(slots)
        old = intent.mentions.pop(slot)
        _join(segments, rng.choice(self.utterances.corrections).text(rng))
        self._append_mention(slot, intent, segments, rng)
        if slot == "quantity" and self.language == "zh":
            segments.append(Segment(rng.choice(("", "个", "件", "个才对", "个就行"))))
        if intent.mentions[slot][1] is not None and intent.mentions[slot][1] == old[1]:
            # The values happen to be the same, so nothing was corrected.
            intent.mentions[slot] = old

    def _maybe_refer_back(
        self,
        slot: str,
        pending: list[_PendingIntent],
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
        refer_back(slot, self.language, segments, rng)
        intent.mentions.setdefault(slot, mentioned[-1])
        return True

    def _parse_fixed_value(self, slot: str, value: str) -> str | int:
        return int(value) if self._book.slots[slot].kind is SlotKind.INTEGER else value

    def _append_mention(
        self, name: str, intent: _PendingIntent, segments: list[Segment], rng: random.Random
    ) -> None:
        """Append a random value of a slot and record it in `intent`."""
        slot = self._book.slots[name]
        mention = self._mentions.generate(name, slot, rng)
        text = mention.text
        if self.language == "en" and name == "product":
            counted = segments and segments[-1].text == " " and _quantity(intent) > 1
            if counted and rng.random() < _PACKED_SHARE:
                segments.append(Segment(rng.choice(_PACKS)))
            elif _quantity(intent) > 1 and rng.random() < 0.85:
                text = _pluralize(text)
            _fix_article(segments, text)
        if slot.kind is SlotKind.ENUM:
            segments.append(Segment(text))
        else:
            segments.append(Segment(text, name, exact=slot.kind is not SlotKind.SPAN))
        intent.mentions.setdefault(name, (segments[-1], mention.value))

    def _may_list(self, template: Template, intent: _PendingIntent, rng: random.Random) -> bool:
        """Sample whether a list follows, which must end the request."""
        is_complete = template.slots <= set(intent.mentions) and not template.fixed
        return is_complete and rng.random() < self._listed_share

    def _list_more(
        self,
        slot: str,
        intent: _PendingIntent,
        pending: list[_PendingIntent],
        rng: random.Random,
    ) -> list[Segment]:
        """Write one to three more values, each with its own intent."""
        segments: list[Segment] = []
        count = rng.choice((1, 1, 1, 1, 2, 2, 3))
        for number in range(count):
            listed = _PendingIntent(intent.action, {})
            pending.append(listed)
            # As in "A, B and C".
            inner = number < count - 1 and rng.random() < 0.8
            joiner = _COMMAS[self.language] if inner else rng.choice(_LIST_JOINERS[self.language])
            segments.append(Segment(joiner))
            if slot == "product":
                self._append_quantity(listed, segments, rng)
            self._append_mention(slot, listed, segments, rng)
        return segments

    def _append_quantity(
        self, intent: _PendingIntent, segments: list[Segment], rng: random.Random
    ) -> None:
        """Write a quantity or an article."""
        countable = "quantity" in self._book.actions[intent.action].slots
        if countable and rng.random() < 0.5:
            self._append_mention("quantity", intent, segments, rng)
            segments.append(Segment(" " if self.language == "en" else rng.choice(_MEASURES)))
        elif self.language == "en":
            segments.append(Segment(rng.choice(_ARTICLES)))


def _value(mention: tuple[Segment, str | int | None]) -> str | int:
    """Return the value of a mention, the text of a span."""
    segment, value = mention
    return segment.text.casefold() if value is None else value


def _quantity(intent: _PendingIntent) -> int:
    value = intent.mentions["quantity"][1] if "quantity" in intent.mentions else 1
    return value if isinstance(value, int) else 1


def _pluralize(text: str) -> str:
    if _UNCOUNTABLE.search(text):
        return text
    for pattern, ending in _PLURALS:
        if pattern.search(text):
            return pattern.sub(ending, text)
    return text + "s"


def _fix_article(segments: list[Segment], text: str) -> None:
    """Turn a trailing "a" into "an" or "some", as `text` requires."""
    before = segments[-1].text if segments and segments[-1].slot is None else ""
    if before == "a " or before.endswith(" a "):
        if text.endswith("s"):
            segments[-1].text = before[:-2] + "some "
        elif _VOWEL.match(text):
            segments[-1].text = before[:-1] + "n "


def _join(segments: list[Segment], joiner: str) -> None:
    """Append a joiner in place of the last segment's final punctuation."""
    last = segments[-1]
    if last.text[-1:] in _FULL_STOPS and joiner[:1] == ".":
        joiner = joiner[1:]
    elif last.slot is None and joiner:
        last.text = _END_MARKS.sub("", last.text)
    segments.append(Segment(joiner))
