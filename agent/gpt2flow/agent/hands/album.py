"""Pictures of every step on the screens, with a list of them."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.hands.port import ScreenTask

INDEX: Final = "steps.jsonl"
"""File with one `PicturedStep` a line, as a JSON object."""


@dataclass(frozen=True)
class PicturedStep:
    """Step of an action, and the picture after it.

    Neither has the customer's message, which may quote a code.

    Attributes:
        picture: Name of the picture's file.
        key: Idempotency key of the action.
        session: Id of the conversation.
        action: Name of the action.
        expected: Outcome that is expected of the action.
        language: Language of the screens, `en` or `zh`.
        step: What was done, without the values that were filled in.
        path: Path of the page.
        seconds: Time since the agent turned to the screens for this action.
    """

    picture: str
    key: str
    session: str
    action: str
    expected: str
    language: str
    step: str
    path: str
    seconds: float


class Album:
    """Folder of pictures, one a step.

    Args:
        folder: Folder, which is made where it is missing; pictures are added to it.

    Raises:
        InputError: The folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / INDEX).touch()
        except OSError as error:
            raise InputError(f"--pictures {folder}: {error.strerror}") from error
        self._number = len(list(folder.glob("*.png")))

    def add(
        self, task: ScreenTask, step: str, path: str, seconds: float, picture: bytes | None
    ) -> None:
        """Add the picture after a step.

        Args:
            task: Action that the step belongs to.
            step: What was done, without the values that were filled in.
            path: Path of the page.
            seconds: Time since the agent turned to the screens for this action.
            picture: PNG, with secrets covered; None adds nothing.

        Raises:
            OSError: The picture cannot be written.
        """
        if picture is None:
            return
        self._number += 1
        name = f"{self._number:04}-{task.action}.png"
        (self._folder / name).write_bytes(picture)
        taken = PicturedStep(
            picture=name,
            key=task.key,
            session=task.session,
            action=task.action,
            expected=task.outcome,
            language=task.language,
            step=step,
            path=path,
            seconds=round(seconds, 3),
        )
        with (self._folder / INDEX).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(taken), ensure_ascii=False) + "\n")


def read_album(folder: Path) -> list[PicturedStep]:
    """Return the steps of a folder of pictures, in order.

    A folder that is not there has none yet.

    Raises:
        InputError: The list cannot be read.
    """
    try:
        lines = (folder / INDEX).read_text(encoding="utf-8").splitlines()
        return [PicturedStep(**json.loads(line)) for line in lines]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, ValueError, TypeError) as error:
        raise InputError(f"{folder / INDEX}: {error}") from error
