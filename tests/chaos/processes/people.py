"""People of a chaos run; each act is a command."""

import signal
from collections.abc import Sequence

from tests.chaos.processes.commands import run_decision
from tests.chaos.processes.keeper import FORKING, Obituaries
from tests.chaos.processes.kill_points import Victim
from tests.chaos.processes.roles import RoleSetup

from gpt2flow.cli.outcome import Exit
from gpt2flow.files.tokens import make_token

_NAME = "eva"
# Longest time for a command; it waits for locks, and for the database to come back.
_COMMAND_SECONDS = 120.0


class People:
    """People at the desk, who share a name and a token.

    Args:
        obituaries: Where the deaths of their commands are recorded.
        setup: Settings of the run.
    """

    def __init__(self, obituaries: Obituaries, setup: RoleSetup) -> None:
        self._obituaries = obituaries
        self._setup = setup
        token, entry = make_token(_NAME, ValueError, may="approve")
        tokens, token_file = setup.folder / "tokens.toml", setup.folder / "token"
        tokens.write_text(entry, encoding="utf-8")
        token_file.write_text(token, encoding="utf-8")
        who = ("--tokens", str(tokens), "--token-file", str(token_file))
        self._options = ("--database", setup.database, *who)

    def act(self, act: str, session: str, arguments: Sequence[str]) -> bool:
        """Run a command on a case; return whether it reported success.

        Args:
            act: What the person does.
            session: Conversation of the case.
            arguments: Command and its arguments.
        """
        command = (self._setup, act, session, [*arguments, *self._options])
        process = FORKING.Process(target=run_decision, args=command, daemon=True)
        process.start()
        process.join(_COMMAND_SECONDS)
        if process.exitcode == -signal.SIGKILL:
            self._obituaries.record(Victim.DESK, process.pid, process.exitcode)
        elif process.exitcode not in {0, Exit.FAILURE, Exit.BAD_INPUT}:
            self._obituaries.record_defect(f"{arguments} ended with {process.exitcode}")
            process.kill()
        return process.exitcode == 0
