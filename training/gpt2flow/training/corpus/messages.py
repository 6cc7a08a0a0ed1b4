"""Composes a customer's message from wishes, and says what each wish's slots are."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.prompt import Arguments, Choice
from gpt2flow.agent.flows.slots import SlotKind, candidates
from gpt2flow.agent.flows.text import normalise
from gpt2flow.training.corpus.mentions import MentionMaker, refer_back
from gpt2flow.training.corpus.noise import Segment, roughen
from gpt2flow.training.corpus.templates import Blank, Template
from gpt2flow.training.corpus.utterances import Language, Utterances

# Slots of which one sentence may name several: "two lamps and a kettle".
LISTED = ("product", "order")
_LIST_JOINERS = {
    "en": (" and ", " and ", ", ", " plus ", " & ", " and also ", ", and "),
    "zh": ("和", "还有", "、", ",", "跟", ",还有", "以及"),
}
_ARTICLES = ("a ", "a ", "the ", "some ", "")
_VOWEL = re.compile(r"[aeiou]", re.IGNORECASE)
_UNCOUNTED = re.compile(r"(s|tea|coffee|rice|milk|water|paper|juice|oil)$", re.IGNORECASE)
_END_MARKS = re.compile(r"[.!?。,;\s]+$")
_FULL_STOPS = ".!?。,;~…:"
_PLAIN_JOINERS = (", ", ". ", "; ", " - ")


@dataclass(frozen=True, slots=True)
class Wish:
    """Something that the customer wants, with what the message says about it."""

    action: str
    arguments: Arguments

    @property
    def choice(self) -> Choice:
        """The action that fulfils it."""
        return Choice(self.action, self.arguments)


@dataclass(slots=True)
class _Draft:
    """A wish while its message is written.

    `mentions` are segments of the message and the value that each stands for,
    or None where the value is what is written.
    """

    action: str
    fixed: Arguments
    mentions: dict[str, tuple[Segment, str | int | None]] = field(default_factory=dict)


class MessageMaker:
    """Writes messages in one language."""

    def __init__(
        self, book: FlowBook, language: Language, said: Utterances, mentions: MentionMaker
    ) -> None:
        self._book = book
        self._language = language
        self._blank = " " if language == "en" else ""
        self._mentions = mentions
        self.said = said

    def message(
        self,
        wishes: Sequence[tuple[str, Template]],
        rng: random.Random,
        *,
        in_order: bool = True,
    ) -> tuple[str, list[Wish]]:
        """Write one message.

        Args:
            wishes: each an action and one way to ask for it, as they are written.
            rng: drawn from.
            in_order: whether that is the order in which they shall be done, so
                that "then" may stand between them.

        Returns:
            The message as the agent's `normalise` leaves it, and the wishes with
            their arguments; more than were given where a sentence lists several
            products or orders.
        """
        drafts: list[_Draft] = []
        segments = self._opener(rng)
        for number, (action, template) in enumerate(wishes):
            if number:
                _join(segments, self._joiner(rng) if in_order else rng.choice(_PLAIN_JOINERS))
            segments += self._say(action, template, drafts, rng)
        segments += self._closer(segments, rng)
        roughen(segments, self._language, rng)
        text = normalise("".join(segment.text for segment in segments))
        return text, [self._wish(draft, text) for draft in drafts]

    def _wish(self, draft: _Draft, message: str) -> Wish:
        # The agent can only choose a number that the message spells.
        values = {
            slot: value
            for slot, value in draft.fixed.items()
            if isinstance(value, str) or str(value) in candidates(SlotKind.INTEGER, message)
        }
        for slot, (segment, value) in draft.mentions.items():
            values[slot] = normalise(segment.text) if value is None else value
        slots = self._book.actions[draft.action].slots
        return Wish(draft.action, {slot: values[slot] for slot in slots if slot in values})

    def _joiner(self, rng: random.Random) -> str:
        return rng.choice(self.said.joiners).text(rng)

    def _opener(self, rng: random.Random) -> list[Segment]:
        segments: list[Segment] = []
        for _ in range(rng.choices((0, 1, 2), (74, 22, 4))[0] if self.said.openers else 0):
            text = rng.choice(self.said.openers).text(rng)
            segments.append(Segment(text if text[-1:].isspace() else text + self._blank))
        return segments

    def _closer(self, segments: list[Segment], rng: random.Random) -> list[Segment]:
        if not self.said.closers or rng.random() > 0.2:
            return []
        text = rng.choice(self.said.closers).text(rng)
        if segments[-1].text[-1:] in _FULL_STOPS:
            return [Segment(self._blank + text)]
        marks = (" ", ", ", ". ", " - ") if self._language == "en" else (",", " ", "。", "")
        return [Segment(rng.choice(marks) + text)]

    def _say(
        self, action: str, template: Template, drafts: list[_Draft], rng: random.Random
    ) -> list[Segment]:
        """Write one wish; appends it, and those listed beside it, to `drafts`."""
        draft = _Draft(action, {slot: self._fixed(slot, v) for slot, v in template.fixed.items()})
        drafts.append(draft)
        segments: list[Segment] = []
        for part in template.expand(rng):
            if isinstance(part, str):
                segments.append(Segment(part))
                continue
            if self._refers_back(part, drafts, segments, rng):
                continue
            self._mention(part, draft, segments, rng)
            if part.slot in LISTED and self._may_list(template, draft, rng):
                segments += self._list_more(part, draft, drafts, rng)
        return segments

    def _refers_back(
        self, blank: Blank, drafts: list[_Draft], segments: list[Segment], rng: random.Random
    ) -> bool:
        """Now and then, points at what an earlier wish has named."""
        *earlier, draft = drafts
        named = [d.mentions[blank.slot] for d in earlier if blank.slot in d.mentions]
        is_other_wish = draft.action not in {d.action for d in earlier}
        if not (named and blank.slot in LISTED and is_other_wish and rng.random() < 0.25):
            return False
        refer_back(blank.slot, self._language, segments, rng)
        draft.mentions.setdefault(blank.slot, named[-1])
        return True

    def _fixed(self, slot: str, value: str) -> str | int:
        return int(value) if self._book.slots[slot].kind is SlotKind.INTEGER else value

    def _mention(
        self, blank: Blank, draft: _Draft, segments: list[Segment], rng: random.Random
    ) -> None:
        slot = self._book.slots[blank.slot]
        mention = self._mentions.mention(blank.slot, slot, rng)
        text = mention.text
        if self._language == "en" and blank.slot == "product":
            text = _pluralise(text) if _quantity(draft) > 1 and rng.random() < 0.85 else text
            _fix_article(segments, text)
        if slot.kind is SlotKind.ENUM:
            segments.append(Segment(text))
        else:
            segments.append(Segment(text, blank.slot, exact=slot.kind is not SlotKind.SPAN))
        draft.mentions.setdefault(blank.slot, (segments[-1], mention.value))

    def _may_list(self, template: Template, draft: _Draft, rng: random.Random) -> bool:
        """Whether a list may follow: nothing else of the wish may come after it."""
        ready = template.slots <= set(draft.mentions) and not template.fixed
        return ready and rng.random() < 0.15

    def _list_more(
        self, blank: Blank, draft: _Draft, drafts: list[_Draft], rng: random.Random
    ) -> list[Segment]:
        segments: list[Segment] = []
        for _ in range(rng.choice((1, 1, 1, 2))):
            listed = _Draft(draft.action, {})
            drafts.append(listed)
            segments.append(Segment(rng.choice(_LIST_JOINERS[self._language])))
            if blank.slot == "product":
                self._count(listed, segments, rng)
            self._mention(blank, listed, segments, rng)
        return segments

    def _count(self, draft: _Draft, segments: list[Segment], rng: random.Random) -> None:
        """Write how many, or an article."""
        countable = "quantity" in self._book.actions[draft.action].slots
        if countable and rng.random() < 0.5:
            self._mention(Blank("quantity"), draft, segments, rng)
            segments.append(Segment(" " if self._language == "en" else rng.choice("个个件台条")))
        elif self._language == "en":
            segments.append(Segment(rng.choice(_ARTICLES)))


def _quantity(draft: _Draft) -> int:
    value = draft.mentions["quantity"][1] if "quantity" in draft.mentions else 1
    return value if isinstance(value, int) else 1


def _pluralise(text: str) -> str:
    if _UNCOUNTED.search(text):
        return text
    return text + ("es" if text.endswith(("x", "ch", "sh")) else "s")


def _fix_article(segments: list[Segment], text: str) -> None:
    """Write "an umbrella" and "some cables" where the template says "a {product}"."""
    before = segments[-1].text if segments and segments[-1].slot is None else ""
    if before == "a " or before.endswith(" a "):
        if text.endswith("s"):
            segments[-1].text = before[:-2] + "some "
        elif _VOWEL.match(text):
            segments[-1].text = before[:-1] + "n "


def _join(segments: list[Segment], joiner: str) -> None:
    """Add what stands between two wishes, instead of the mark that ends the first."""
    last = segments[-1]
    if last.text[-1:] in _FULL_STOPS and joiner[:1] == ".":
        joiner = joiner[1:]
    elif last.slot is None and joiner:
        last.text = _END_MARKS.sub("", last.text)
    segments.append(Segment(joiner))
