"""Recordings made of what a person did."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gpt2flow.agent.hands.errors import RecorderError
from gpt2flow.agent.hands.recorder.drafts import DraftProof, DraftRecording, DraftSignIn
from gpt2flow.agent.hands.recorder.fields import TemplateFields
from gpt2flow.agent.hands.recording import SESSION, TOKEN, Element, ScreenStep


@dataclass(frozen=True)
class Deed:
    """Something that a person did.

    Attributes:
        do: What was done, as a step says it.
        element: Element; None for a page that was opened.
        text: Path of a page, or what was filled in or chosen; empty for a secret.
        secret: Field in place of a secret.
    """

    do: Literal["open", "fill", "choose", "press"]
    element: Element | None
    text: str = ""
    secret: str | None = None

    def step(self, fields: TemplateFields) -> ScreenStep:
        """Return the step of a recording."""
        if self.element is None:
            return ScreenStep(do=self.do, path=fields.path(self.text))
        role, name = self.element.role, fields.shown(self.element.name)
        if self.do == "press":
            return ScreenStep(do=self.do, role=role, name=name)
        text = fields.typed(self.text) if self.secret is None else f"{{{self.secret}}}"
        return ScreenStep(do=self.do, role=role, name=name, text=text)

    def text_for(self, fields: TemplateFields) -> str:
        """Return the line about the deed for the person."""
        step = self.step(fields)
        if step.path is not None:
            return f"open {step.path}"
        text = "" if step.text is None else f": {step.text}"
        return f"{step.do} {step.role} {step.name!r}{text}"


def add_deed(deeds: list[Deed], deed: Deed) -> bool:
    """Add a deed; before a press, a field's last value counts.

    Returns:
        Whether there is something new.
    """
    if deed.do in ("fill", "choose"):
        for number in range(len(deeds) - 1, -1, -1):
            earlier = deeds[number]
            if earlier.do not in ("fill", "choose"):
                break
            if earlier == deed:
                return False
            if earlier.element == deed.element:
                del deeds[number]
                break
    deeds.append(deed)
    return True


@dataclass(frozen=True)
class Sight:
    """Signs of a page that something was done.

    Attributes:
        path: Path of the page, without its query.
        signs: Texts of its regions with the role `status` or `alert`. In the recording of a
            sign-in, the elements that name the served conversation.
    """

    path: str
    signs: Sequence[str | Element] = ()

    @property
    def messages(self) -> list[str]:
        """Texts of the page."""
        return [each for each in self.signs if isinstance(each, str)]

    @property
    def elements(self) -> list[Element]:
        """Elements that name the served conversation."""
        return [each for each in self.signs if isinstance(each, Element)]


def make_recording(
    deeds: Sequence[Deed], sight: Sight, fields: TemplateFields, outcome: str
) -> DraftRecording:
    """Return the recording of an action.

    Args:
        deeds: What the person did; the last press carries the action out.
        sight: What the page said after it.
        fields: Fields of templates.
        outcome: Outcome that the page showed.

    Raises:
        RecorderError: Nothing was pressed, or the page said nothing.
    """
    last = _last_press(deeds)
    commit = _element(deeds[last], fields)
    return DraftRecording(
        steps=[deed.step(fields) for deed in deeds[:last]],
        commit=commit,
        outcomes={outcome: _message(sight, fields, commit)},
        proof=DraftProof(path=fields.path(sight.path)),
    )


def make_sign_in(deeds: Sequence[Deed], sight: Sight, fields: TemplateFields) -> DraftSignIn:
    """Return the recording of a sign-in with the serving.

    The element of a served conversation is left out unless there is exactly one.

    Args:
        deeds: Sign-in on the first page, then the serving on a page opened by its address.
        sight: Elements that named the conversation at the end.
        fields: Fields of templates.

    Raises:
        RecorderError: One of the two is missing, or the secret or the conversation in it.
    """
    starts = [number for number, deed in enumerate(deeds) if deed.do == "open"]
    if len(starts) != 2:
        raise RecorderError(
            f"{len(starts)} pages were opened by their addresses, expected 2: the one to sign in,"
            " then the one to serve a conversation"
        )
    signing, serving = deeds[: starts[1]], deeds[starts[1] :]
    steps, serve = [[each.step(fields) for each in part] for part in (signing, serving)]
    for part, field in ((steps, TOKEN), (serve, SESSION)):
        if not any(step.text == f"{{{field}}}" for step in part):
            raise RecorderError(
                f"no step fills in {{{field}}}: the secret goes into a password field, and the"
                " conversation is that of --argument session=…"
            )
    signed_out = _element(signing[_last_press(signing)], fields)
    _last_press(serving)
    shown = serving_elements(sight, fields)
    element = shown[0] if len(shown) == 1 else None
    return DraftSignIn(steps=steps, signed_out=signed_out, serve=serve, serving=element)


def serving_elements(sight: Sight, fields: TemplateFields) -> list[Element]:
    """Return the elements that name the served conversation, as templates."""
    return [Element(role=each.role, name=fields.shown(each.name)) for each in sight.elements]


def _last_press(deeds: Sequence[Deed]) -> int:
    found = [number for number, deed in enumerate(deeds) if deed.do == "press"]
    if not found:
        raise RecorderError("nothing was pressed, so that nothing was written")
    return found[-1]


def _element(deed: Deed, fields: TemplateFields) -> Element:
    assert deed.element is not None
    return Element(role=deed.element.role, name=fields.shown(deed.element.name))


def _message(sight: Sight, fields: TemplateFields, commit: Element) -> str:
    """Return the template of what the page said first.

    Raises:
        RecorderError: It said nothing.
    """
    if not sight.messages:
        raise RecorderError(
            f"after {commit.role} {commit.name!r}, {fields.path(sight.path)} says nothing in an"
            " element of role status or alert, so that nothing was written"
        )
    return fields.said(sight.messages[0])
