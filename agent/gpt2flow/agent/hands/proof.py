"""Pages that prove whether an action was carried out."""

from collections.abc import Mapping, Sequence
from typing import Self

from pydantic import Field, model_validator

from gpt2flow.agent.hands.errors import UnexpectedPageError
from gpt2flow.agent.hands.templates import filled, find_in_lines
from gpt2flow.files.documents import StrictModel


class Proof(StrictModel):
    """Page that shows whether an action was carried out.

    Attributes:
        path: Path of the page; a template.
        at: Path that it leads to once the action was carried out; None is `path` itself.
        shows: Texts that it has then; templates.
        new: Texts that it has then in lines that were not there before; templates.
        gone: Texts that it had before, and has no more; templates.
        refused: Texts of new lines after a refusal; templates. Without them, a refusal whose
            answer was not seen is a person's.
    """

    path: str = Field(pattern="^/")
    at: str | None = Field(None, pattern="^/")
    shows: list[str] = []
    new: list[str] = []
    gone: list[str] = []
    refused: list[str] = []

    @model_validator(mode="after")
    def _proves_something(self) -> Self:
        if not self.new and not self.gone:
            raise ValueError("needs a text in `new` or in `gone`: another change would prove it")
        return self

    @property
    def templates(self) -> list[str]:
        """All templates of the proof."""
        at = [self.at] if self.at is not None else []
        return [self.path, *at, *self.shows, *self.new, *self.gone, *self.refused]


def judge(
    proof: Proof,
    before: str,
    after: str,
    known: Mapping[str, str | int],
    *,
    reads: Sequence[str],
    is_success: bool,
) -> dict[str, str]:
    """Return the fields of a page that changed as meant.

    Args:
        proof: What the page has to show.
        before: Reading of the page before the press: its path, and its lines.
        after: Reading after it.
        known: Values that are expected.
        reads: Fields that only the page knows.
        is_success: Whether the action was expected to succeed.

    Raises:
        UnexpectedPageError: It changed in another way.
    """
    path, *lines = after.splitlines()
    earlier = before.splitlines()[1:]
    new = [line for line in lines if line not in set(earlier)]
    if not is_success:
        if not proof.refused:
            raise UnexpectedPageError(f"{path} does not show whether the shop has refused")
        _find_all(proof.refused, new, known, (), path)
        return {}
    meant = filled(proof.at or proof.path, known)
    if path != meant:
        raise UnexpectedPageError(f"the shop leads to {path}, and not to {meant}")
    _find_all(proof.shows, lines, known, (), path)
    removed = [line for line in earlier if line not in set(lines)]
    for template in proof.gone:
        if not find_in_lines(template, removed, known) or find_in_lines(template, lines, known):
            raise UnexpectedPageError(f"{path} has changed, with {filled(template, known)!r}")
    return _find_all(proof.new, new, known, reads, path)


def _find_all(
    templates: Sequence[str],
    lines: Sequence[str],
    known: Mapping[str, str | int],
    reads: Sequence[str],
    path: str,
) -> dict[str, str]:
    """Return the fields of templates that some lines have.

    Raises:
        UnexpectedPageError: A template is missing, or has several numbers to choose from.
    """
    fields: dict[str, str] = {}
    for template in templates:
        found = find_in_lines(template, lines, known, reads)
        if not found:
            text = filled(template, {name: f"{{{name}}}" for name in reads} | dict(known))
            raise UnexpectedPageError(f"{path} has changed, without {text!r}")
        if len({tuple(each.items()) for each in found}) > 1:
            raise UnexpectedPageError(f"{path} has changed more than once: {found}")
        fields |= found[0]
    return fields
