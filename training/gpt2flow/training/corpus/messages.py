"""Customer messages, composed of requests whose slot values are recorded."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.prompt import Arguments, Choice, normalize
from gpt2flow.agent.flows.slots import SlotKind, candidates
from gpt2flow.training.corpus.mentions import MentionGenerator
from gpt2flow.training.corpus.noise import Segment, add_noise
from gpt2flow.training.corpus.phrasing import FULL_STOPS, join
from gpt2flow.training.corpus.request_writer import PendingIntent, Request, RequestWriter
from gpt2flow.training.corpus.sources.labelled import LabelledMessage
from gpt2flow.training.corpus.sources.templates import Template
from gpt2flow.training.corpus.sources.utterances import Language, Utterances

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
        self._book = book
        self._writer = RequestWriter(book, language, utterances.corrections, mentions, listed_share)
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
        pending: list[PendingIntent] = []
        segments = self._sample_opener(rng)
        if retracted is not None:
            segments += self._writer.write(retracted, [], rng)
            join(segments, rng.choice(self.utterances.retractions).text(rng))
        for number, request in enumerate(requests):
            if number:
                join(segments, self._sample_joiner(rng) if in_order else rng.choice(_PLAIN_JOINERS))
            segments += self._writer.write(request, pending, rng)
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

    def _resolve_intent(self, intent: PendingIntent, message: str) -> Intent:
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
        if segments[-1].text[-1:] in FULL_STOPS:
            return [Segment(self._space + text)]
        marks = (" ", ", ", ". ", " - ") if self.language == "en" else (",", " ", "。", "")
        return [Segment(rng.choice(marks) + text)]
