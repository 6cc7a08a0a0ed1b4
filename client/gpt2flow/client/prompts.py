"""Prompts of a request: text or token ids."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gpt2flow.client import validation
from gpt2flow.inference.v1 import inference_pb2 as pb

_RULE = "text (str or Text) or token ids, such as (464, 2068)"


@dataclass(frozen=True)
class Text:
    """Text whose special tokens are treated in a stated way.

    Attributes:
        text: Text to continue or to score.
        literal: True to treat special tokens that are written out in the text, such as
            `<|endoftext|>`, like any other text. Intended for text that comes from people.
        add_special_tokens: True to add the special tokens that the tokenizer puts around a text,
            False to add none. None: True for a prompt, False for a continuation.

    Raises:
        SettingsError: A value is invalid.
    """

    text: str
    literal: bool = False
    add_special_tokens: bool | None = None

    def __post_init__(self) -> None:
        """Raise SettingsError if a value is invalid."""
        validation.text("text", self.text)
        validation.check_fields(self, pb.Prompt)


# A str is a Text with its defaults; token ids are used unchanged.
Prompt = str | Text | Sequence[int]


def build_prompt(name: str, prompt: Prompt) -> pb.Prompt:
    """Return a prompt as a protocol message.

    Args:
        name: Name of the parameter, for errors.
        prompt: Prompt that a caller passed.

    Raises:
        SettingsError: It is neither text nor token ids.
    """
    if isinstance(prompt, str):
        return pb.Prompt(text=validation.text(name, prompt))
    if isinstance(prompt, Text):
        return validation.fill(pb.Prompt, prompt)
    return pb.Prompt(tokens=pb.TokenIds(ids=validation.token_ids(name, prompt, _RULE)))


def build_prompts(name: str, prompts: Iterable[Prompt]) -> list[pb.Prompt]:
    """Return several prompts as protocol messages.

    Raises:
        SettingsError: One is neither text nor token ids, or they are no sequence.
    """
    items = validation.sequence(name, prompts, 'several prompts, such as ("a", "b")')
    return [build_prompt(f"{name}[{i}]", prompt) for i, prompt in enumerate(items)]
