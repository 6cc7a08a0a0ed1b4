"""Replay of a recording: follow the steps, read back, press once."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog

from gpt2flow.agent.config import Clock
from gpt2flow.agent.errors import InputError
from gpt2flow.agent.hands.album import Album
from gpt2flow.agent.hands.errors import (
    OvertakenError,
    ScreenStopped,
    SignedOutError,
    SlowPageError,
    UnexpectedPageError,
)
from gpt2flow.agent.hands.ledger import Ledger, Progress
from gpt2flow.agent.hands.port import ScreenOutcome, ScreenTask
from gpt2flow.agent.hands.proof import judge
from gpt2flow.agent.hands.recording import MESSAGE, SESSION, TOKEN, Element, Recording, Screens
from gpt2flow.agent.hands.screen import Screen
from gpt2flow.agent.hands.templates import field_names, filled, filled_path, find

# Seconds before each attempt at an action: a shop that starts again takes a while.
_PAUSES: Final = (0.0, 1.0, 5.0, 15.0)
_POLL_SECONDS: Final = 0.5


@dataclass(frozen=True)
class Shop:
    """Shop that the agent works in.

    Attributes:
        token: Function that returns the agent's secret.
        settle_seconds: Time after a press in which the shop may still carry it out.
        clock: Source of the current time.
        album: Pictures of every step; None takes none.
    """

    token: Callable[[], str]
    settle_seconds: float
    clock: Clock
    album: Album | None = None


class Replay:
    """Replay of one action on one screen.

    Args:
        screen: Screen to work on.
        screens: Recordings in the language of the task.
        task: Action to carry out.
        names: Names of arguments for people, such as `reason_name`.
        ledger: Record of work on the screens.
        shop: Shop that the agent works in.
        began: Time at which the agent turned to the screens, by the monotonic clock.
    """

    def __init__(
        self,
        screen: Screen,
        screens: Screens,
        task: ScreenTask,
        names: Mapping[str, str],
        *,
        ledger: Ledger,
        shop: Shop,
        began: float,
    ) -> None:
        self._screen = screen
        self._screens = screens
        self._recording: Recording = screens.actions[task.action]
        self._task = task
        self._ledger = ledger
        self._shop = shop
        self._began = began
        self._fields = {
            **{f"given_{slot}": value for slot, value in task.used.items()},
            **task.used,
            **task.fields,
            **names,
            SESSION: task.session,
            MESSAGE: task.message,
        }
        serving = screens.sign_in.serving
        self._serving = Element(role=serving.role, name=filled(serving.name, self._fields))

    def carry_out(self) -> ScreenOutcome:
        """Carry the action out, once.

        Raises:
            ScreenStopped: The screens are not as expected.
            DatabaseError: The database failed.
        """
        problem = ""
        for pause in _PAUSES:
            time.sleep(pause)
            progress = self._ledger.begin(self._task)
            if progress.outcome is not None:
                return progress.outcome
            try:
                outcome = self._attempt(progress)
            except (SlowPageError, SignedOutError, OvertakenError) as error:
                # What was pressed, if anything, is read on the proof first.
                problem = str(error)
            except UnexpectedPageError as error:
                raise self._stopped(str(error)) from error
            except KeyError as error:
                raise self._stopped(f"the recording has an unknown field {error}") from error
            else:
                return self._ledger.note_outcome(self._task.key, outcome.name, outcome.fields)
        raise self._stopped(problem)

    def _attempt(self, progress: Progress) -> ScreenOutcome:
        """Go once through the recording.

        Raises:
            SlowPageError: A page does not come in time.
            SignedOutError: A page wants a sign-in.
            OvertakenError: Another process has pressed.
            UnexpectedPageError: A page is not as the recording says.
        """
        began = time.monotonic()
        before = self._read_proof()
        if progress.pressed_at is not None:
            proven = self._prove(progress, before, began)
            if proven is not None:
                return proven
        self._prepare()
        self._keep_picture("read back")
        self._ledger.note_press(self._task, before, progress.pressed_at)
        commit = self._recording.commit
        self._screen.press(commit, self._fields)
        self._keep_picture(f"press {commit.role} {filled(commit.name, self._fields)}")
        self._check_serving()
        return self._read_outcome()

    def _serve(self) -> None:
        """Serve the conversation, and sign in where that is needed."""
        way = self._screens.sign_in
        self._screen.follow(way.serve[0], self._fields)
        if self._screen.has(way.signed_out):
            secret = {**self._fields, TOKEN: self._token()}
            for step in way.steps:
                self._screen.follow(step, secret)
            if self._screen.has(way.signed_out):
                raise UnexpectedPageError("the shop does not accept the agent's token")
            self._screen.follow(way.serve[0], self._fields)
        for step in way.serve[1:]:
            self._screen.follow(step, self._fields)

    def _token(self) -> str:
        try:
            return self._shop.token()
        except InputError as error:
            raise UnexpectedPageError(str(error)) from error

    def _prepare(self) -> None:
        """Follow the steps, and read back what they led to."""
        for step in self._recording.steps:
            self._screen.follow(step, self._fields)
            self._keep_picture(step.caption)
            self._check_serving()
        self._screen.check_shows(self._checked(self._recording.shows), self._fields)
        self._screen.check_filled(self._recording.commit, self._fields)

    def _checked(self, shows: list[str]) -> list[str]:
        """Return the texts that a page must show.

        A shop that refuses the action may still show what was true before.
        """
        task = self._task
        given = {*task.used, SESSION, MESSAGE}
        return [text for text in shows if task.is_success or field_names(text) <= given]

    def _read_outcome(self) -> ScreenOutcome:
        """Return the outcome that the page shows after the press."""
        messages = self._screen.messages()
        recording = self._recording
        for name, template in recording.outcomes.items():
            for message in messages:
                known = self._fields if name == self._task.outcome else self._about()
                found = find(template, message, known, recording.reads)
                if found is not None:
                    return ScreenOutcome(name, found)
        said = " ".join(messages) or "nothing"
        path = self._screen.path
        raise UnexpectedPageError(f"after the press, {path} says {said!r}, which is not recorded")

    def _about(self) -> Mapping[str, str | int]:
        """Return what any outcome's message has to say alike: the arguments."""
        return {slot: self._fields[slot] for slot in self._task.used}

    def _read_proof(self) -> str:
        """Return what the page that proves the action shows."""
        path = filled_path(self._recording.proof.path, self._fields)
        self._screen.open(path)
        if not self._screen.has(self._serving):
            self._serve()
            self._screen.open(path)
        self._check_serving()
        return self._screen.read()

    def _prove(self, progress: Progress, reading: str, began: float) -> ScreenOutcome | None:
        """Return the outcome of an unanswered press; None without effect.

        Args:
            progress: How far the action has come.
            reading: What the page that proves it shows.
            began: Time at which that was asked for.

        Raises:
            UnexpectedPageError: The page changed in another way than the action changes it.
        """
        assert progress.before is not None
        assert progress.pressed_at is not None
        settled = progress.pressed_at + timedelta(seconds=self._shop.settle_seconds)
        deadline = time.monotonic() + (settled - self._shop.clock()).total_seconds()
        while reading == progress.before:
            # A page that was asked for before may hide what the shop did while it was on its way.
            if began > deadline:
                return None
            time.sleep(_POLL_SECONDS)
            began = time.monotonic()
            reading = self._read_proof()
        task, recording = self._task, self._recording
        fields = judge(
            recording.proof,
            progress.before,
            reading,
            self._fields,
            reads=recording.reads,
            is_success=task.is_success,
        )
        return ScreenOutcome(task.outcome, fields)

    def _keep_picture(self, step: str) -> None:
        if self._shop.album is not None:
            picture = self._screen.picture()
            seconds = time.monotonic() - self._began
            try:
                self._shop.album.add(self._task, step, self._screen.path, seconds, picture)
            except OSError as error:
                # A full disk is no reason to leave an action half done.
                structlog.get_logger().warning("picture_failed", reason=str(error))

    def _check_serving(self) -> None:
        """Check that the page is one of the conversation.

        Without this, a page of nobody could be taken for the customer's.

        Raises:
            SignedOutError: The shop has ended the agent's session.
        """
        if not self._screen.has(self._serving):
            raise SignedOutError(f"{self._screen.path} has no {self._serving.name!r}")

    def _stopped(self, reason: str) -> ScreenStopped:
        return ScreenStopped(f"{self._task.action}: {reason}", self._screen.picture())
