"""Files of recordings, in which one action is added or replaced."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel

from gpt2flow.agent.errors import FlowError, InputError
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.hands.recorder.drafts import DraftFile, DraftRecording, DraftSignIn
from gpt2flow.agent.hands.recording import (
    SESSION,
    Element,
    Recording,
    SignIn,
    check_recording,
    check_sign_in,
)
from gpt2flow.files.atomic import write_atomically
from gpt2flow.files.documents import read_yaml

_Model = TypeVar("_Model", bound=BaseModel)


def read_recordings(path: Path, model: type[_Model]) -> _Model | None:
    """Return the content of a file; None if it is missing.

    Raises:
        InputError: The file is invalid, or its folder is missing.
    """
    if not path.parent.is_dir():
        raise InputError(f"--out is {str(path)!r}: {path.parent} is no folder")
    if not path.exists():
        return None
    return read_yaml(path, model, FlowError, typed=True)


def write_action(path: Path, action: str, recording: DraftRecording) -> DraftRecording:
    """Add a recording to a file, or replace that of the action.

    If the steps are those of the recording in the file, its other outcomes and what a person
    completed stay.

    Returns:
        Recording as it is in the file.
    """
    recordings = read_recordings(path, DraftFile) or DraftFile(actions={})
    earlier = recordings.actions.get(action)
    if earlier is not None and _way(earlier) == _way(recording):
        outcomes = {**earlier.outcomes, **recording.outcomes}
        recording = earlier.model_copy(update={"outcomes": outcomes})
    actions = {**recordings.actions, action: recording}
    wanted = DraftFile(actions=actions)
    text = _spliced(path, action, recording)
    if text is None or not _holds(text, wanted):
        text = _yaml({"actions": {name: _content(each) for name, each in actions.items()}})
    write_atomically(path, text)
    return recording


def write_sign_in(path: Path, sign_in: DraftSignIn) -> None:
    """Write the recording of a sign-in."""
    write_atomically(path, _yaml(_content(sign_in)))


def left_to_do(where: str, book: FlowBook, action: str, recording: Recording) -> list[str]:
    """Return what a person has to complete in a recording.

    Args:
        where: File and action, for messages.
        book: Loaded flows.
        action: Name of the action.
        recording: Its recording.
    """
    found = list[str]()
    try:
        check_recording(where, book, action, recording)
    except FlowError as error:
        found.append(str(error))
    if not recording.shows:
        found.append("shows: what the page must show before the press, such as a total")
    if not recording.proof.new and not recording.proof.gone:
        found.append(
            f"proof: whether {recording.proof.path} shows that the action was carried out, and"
            " the texts that are then new or gone there"
        )
    found.append("outcomes: a field or ... in place of what changes; fields to read in reads")
    return found


def left_of_sign_in(where: str, sign_in: DraftSignIn, shown: Sequence[Element]) -> list[str]:
    """Return what a person has to complete in a sign-in.

    Args:
        where: File, for messages.
        sign_in: Its recording.
        shown: Elements that name the served conversation.
    """
    if sign_in.serving is None:
        names = ", ".join(f"{each.role} {each.name!r}" for each in shown) or "none"
        task = (
            f"serving: role and name, with {{{SESSION}}}, of the one element that every page shows"
            f" while the conversation is served; the last page shows {names}"
        )
        return [task]
    try:
        check_sign_in(where, SignIn.model_validate(sign_in.model_dump()))
    except FlowError as error:
        return [str(error)]
    return []


def _way(recording: Recording) -> tuple[object, ...]:
    return recording.steps, recording.commit


def _spliced(path: Path, action: str, recording: Recording) -> str | None:
    """Return the text of a file with one action added or replaced.

    Returns:
        None if the file has to be written anew.
    """
    if not path.exists():
        return None
    text = path.read_text(encoding="utf-8")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    pairs = root.value[0][1].value if isinstance(root, yaml.MappingNode) else []
    if not pairs:
        return None
    lines = text.splitlines()
    starts = [key.start_mark.line for key, _ in pairs] + [len(lines)]
    names = [key.value for key, _ in pairs]
    number = names.index(action) if action in names else len(names)
    start = starts[number]
    end = starts[min(number + 1, len(names))]
    # A comment above the next action belongs to that.
    while end > start + 1 and lines[end - 1].strip()[:1] in ("", "#"):
        end -= 1
    indent = " " * pairs[0][0].start_mark.column
    block = _yaml({action: _content(recording)}).splitlines()
    return "\n".join([*lines[:start], *(indent + each for each in block), *lines[end:], ""])


def _holds(text: str, wanted: DraftFile) -> bool:
    """Return whether a text has the wanted content."""
    try:
        return DraftFile.model_validate(yaml.safe_load(text)) == wanted
    except (ValueError, yaml.YAMLError):
        return False


def _content(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(exclude_defaults=True)


def _yaml(content: Mapping[str, Any]) -> str:
    """Return a document with a step a line."""
    return yaml.safe_dump(
        content, allow_unicode=True, sort_keys=False, default_flow_style=None, width=100
    )
