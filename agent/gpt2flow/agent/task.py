"""What is to be carried out."""

from dataclasses import dataclass, field
from typing import NamedTuple

from gpt2flow.agent.prompt import Arguments, Choice
from gpt2flow.agent.wording import Language


class Event(NamedTuple):
    """Something that happened to `subject`, an order's number."""

    name: str
    subject: str


@dataclass(frozen=True)
class Task:
    """An action to be carried out; a second time under the same key does nothing.

    `kept` is what the customer had said before the question that this may
    answer; `opens` says that this is the first action of a message; `undoes`,
    that it takes back what raised the event. The model never chooses that.
    """

    key: str
    session: str
    message: str
    choice: Choice
    language: Language = "en"
    kept: Arguments = field(default_factory=dict)
    opens: bool = False
    event: Event | None = None
    undoes: bool = False
