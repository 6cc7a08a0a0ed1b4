"""Schema of recordings: the steps of actions on the shop's screens.

A folder of flows has `screens.en.yaml` and `screens.zh.yaml`, with the way to sign in, and each
flow a file of the same name beside its `flow.yaml`, with its actions. Elements are named by their
role and their accessible name, as a screen reader names them. Texts are templates: their fields
are the arguments of the action, and what its outcome is expected to say.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Literal, Self

from pydantic import Field, model_validator

from gpt2flow.agent.errors import FlowError
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.hands.proof import Proof
from gpt2flow.agent.hands.templates import field_names
from gpt2flow.agent.wording import Language
from gpt2flow.files.documents import StrictModel, read_yaml

LANGUAGES: tuple[Language, ...] = ("en", "zh")
# Roles that a step may name; ARIA has more, which nobody fills in or presses.
Role = Literal[
    "button",
    "checkbox",
    "combobox",
    "link",
    "menuitem",
    "option",
    "radio",
    "searchbox",
    "spinbutton",
    "switch",
    "tab",
    "textbox",
]
Act = Literal["open", "fill", "choose", "press"]
# Fields of templates beside arguments and outcome: what signs the agent in, whom it serves, and
# what the customer wrote.
TOKEN, SESSION, MESSAGE = "token", "session", "message"


class Element(StrictModel):
    """Element of a page.

    Attributes:
        role: ARIA role.
        name: Accessible name, exactly; a template.
    """

    role: Role
    name: str = Field(min_length=1)


class ScreenStep(StrictModel):
    """Step on a screen, which can be done again.

    Attributes:
        do: What is done: `open` a page, `fill` a field, `choose` an option, `press` an element.
        path: Path of the page to open; a template.
        role: Role of the element.
        name: Accessible name of the element; a template.
        text: What to fill in, or the option to choose; a template.
    """

    do: Act
    path: str | None = Field(None, pattern="^/")
    role: Role | None = None
    name: str | None = None
    text: str | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        has_element = self.role is not None and bool(self.name)
        has_text = self.text is not None
        if self.do == "open":
            is_complete = self.path is not None and not has_element and not has_text
        else:
            needs_text = self.do in ("fill", "choose")
            is_complete = has_element and self.path is None and has_text == needs_text
        if not is_complete:
            raise ValueError(
                "`open` has a `path`, `press` a `role` and a `name`, and"
                " `fill` and `choose` also a `text`; no step has more"
            )
        return self

    @property
    def element(self) -> Element:
        """Element of a step that has one."""
        assert self.role is not None
        assert self.name is not None
        return Element(role=self.role, name=self.name)

    @property
    def caption(self) -> str:
        """Step in words, without the values that it fills in."""
        return f"{self.do} {self.path or f'{self.role} {self.name}'}"


class Recording(StrictModel):
    """Way to carry out one action on the screens.

    Attributes:
        steps: Steps up to the press that carries it out.
        commit: Element whose press carries the action out.
        shows: Texts that the page must show before that press; templates.
        outcomes: What the page says after it, by outcome; templates, `...` stands for any text.
        reads: Fields of the outcome that only the screen knows, such as a new order's number.
        proof: Page that shows whether the action was carried out.
    """

    steps: list[ScreenStep] = Field(min_length=1)
    commit: Element
    shows: list[str] = []
    outcomes: dict[str, str] = Field(min_length=1)
    reads: list[str] = []
    proof: Proof


class ScreenFile(StrictModel):
    """File of recordings beside a flow, by action."""

    actions: dict[str, Recording]


class SignIn(StrictModel):
    """Way to sign in, and to serve a conversation.

    Attributes:
        steps: Steps of the sign-in; the field `token` is the agent's secret.
        signed_out: Element by which a page that wants a sign-in is recognized.
        serve: Steps after which the shop's pages are those of the conversation `session`.
        serving: Element that every page then shows; its name has the conversation in it.
    """

    steps: list[ScreenStep] = Field(min_length=1)
    signed_out: Element
    serve: list[ScreenStep] = Field(min_length=1)
    serving: Element


@dataclass(frozen=True)
class Screens:
    """Recordings in one language.

    Attributes:
        sign_in: Way to sign in.
        actions: Recordings by action.
    """

    sign_in: SignIn
    actions: Mapping[str, Recording]


def load_screens(book: FlowBook, folder: Path | None = None) -> dict[Language, Screens]:
    """Load the recordings of a folder of flows, by language.

    Args:
        book: Flows of the folder.
        folder: Folder of the flows; None selects the built-in flows.

    Raises:
        FlowError: A file is missing or invalid, or does not fit the flows.
    """
    folder = folder or built_in_flows()
    return {language: _load_language(book, folder, language) for language in LANGUAGES}


def built_in_flows() -> Path:
    """Return the folder of the built-in flows."""
    return Path(__file__).parent.parent / "flows"


def _load_language(book: FlowBook, folder: Path, language: Language) -> Screens:
    name = f"screens.{language}.yaml"
    sign_in = read_yaml(folder / name, SignIn, FlowError, typed=True)
    check_sign_in(str(folder / name), sign_in)
    actions: dict[str, Recording] = {}
    paths: dict[str, Path] = {}
    for path in sorted(folder.glob(f"*/{name}")):
        for action, recording in read_yaml(path, ScreenFile, FlowError, typed=True).actions.items():
            where = f"{path}: action {action}"
            if action in paths:
                raise FlowError(f"{where} is in {paths[action]} too, expected in one file")
            check_recording(where, book, action, recording)
            actions[action], paths[action] = recording, path
    return Screens(sign_in, actions)


def check_recording(where: str, book: FlowBook, action: str, recording: Recording) -> None:
    """Validate that a recording fits its action.

    Args:
        where: File and action, for messages.
        book: Loaded flows.
        action: Name of the action.
        recording: Its recording.

    Raises:
        FlowError: The flows have no such action or outcome, a template is malformed, or one of its
            fields has no value.
    """
    spec = book.actions.get(action)
    if spec is None:
        raise FlowError(f"{where}: the flows have no such action")
    if unknown := recording.outcomes.keys() - spec.outcomes.keys():
        expected = sorted(spec.outcomes)
        raise FlowError(f"{where}: unknown outcomes {sorted(unknown)}, expected some of {expected}")
    successes = {name for name, each in spec.outcomes.items() if each.result == "ok"}
    if missing := successes - recording.outcomes.keys():
        raise FlowError(f"{where}: outcomes {sorted(missing)} are missing")
    for field in recording.reads:
        if not field.isidentifier():
            raise FlowError(f"{where}: reads has {field!r}, expected the name of a field")
    names = {f"{slot}_name" for slot in spec.slots if book.slots[slot].names}
    given = {f"given_{slot}" for slot in spec.slots}
    known = message_fields(book, action) | {*spec.slots, *names, *given, SESSION, MESSAGE}
    _check_templates(where, templates(recording), known | set(recording.reads))


def check_sign_in(where: str, sign_in: SignIn) -> None:
    """Validate the templates of a sign-in.

    Args:
        where: File, for messages.
        sign_in: Way to sign in, and to serve a conversation.

    Raises:
        FlowError: A template is malformed, a field has no value there, or `serving` could be that
            of another conversation.
    """
    _check_templates(f"{where}: steps", _step_templates(sign_in.steps), {TOKEN, SESSION})
    _check_templates(f"{where}: signed_out", [sign_in.signed_out.name], set())
    _check_templates(f"{where}: serve", _step_templates(sign_in.serve), {SESSION})
    name = sign_in.serving.name
    _check_templates(f"{where}: serving", [name], {SESSION})
    if SESSION not in field_names(name):
        raise FlowError(f"{where}: serving is {name!r}, expected a name with {{{SESSION}}}")


def message_fields(book: FlowBook, action: str) -> set[str]:
    """Return the fields of the messages of an action's outcomes."""
    wordings = [each.message or {} for each in book.actions[action].outcomes.values()]
    return {field for each in wordings for text in each.values() for field in field_names(text)}


def templates(recording: Recording) -> list[str]:
    """Return all templates of a recording."""
    texts = [*_step_templates(recording.steps), recording.commit.name, *recording.shows]
    return [*texts, *recording.proof.templates, *recording.outcomes.values()]


def _step_templates(steps: Iterable[ScreenStep]) -> list[str]:
    return [text for each in steps for text in (each.path, each.name, each.text) if text]


def _check_templates(where: str, texts: Iterable[str], known: Collection[str]) -> None:
    """Check that the fields of templates are names that have a value.

    Python's templates can also number a field, format it, or take a part of it.

    Raises:
        FlowError: One is another one, or has a lone brace.
    """
    allowed = ", ".join(f"{{{each}}}" for each in sorted(known)) or "no field"
    for text in texts:
        try:
            parts = list(Formatter().parse(text))
        except ValueError as error:
            raise FlowError(
                f"{where}: {text!r} is no template: {error}; a brace is written twice"
            ) from error
        for _, name, form, conversion in parts:
            if name is None:
                continue
            field = name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
            if field not in known:
                raise FlowError(f"{where}: {text!r} has the field {{{field}}}, expected {allowed}")
