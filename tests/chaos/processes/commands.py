"""Commands of a chaos run: `gpt2flow agent serve`, and those of people.

Each is forked like a role, and runs the command line with points in it.
"""

import os
import signal
import sys
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.chaos.processes.command_points import install_in_desk, install_in_endpoint
from tests.chaos.processes.kill_points import Victim
from tests.chaos.processes.roles import UNAVAILABLE, RoleSetup, begin, open_agent, when_told

from gpt2flow.agent import config as agent_config
from gpt2flow.agent.agent import Agent
from gpt2flow.agent.http import process as endpoint_process
from gpt2flow.cli.commands.agent import serve as serve_command
from gpt2flow.cli.main import main
from gpt2flow.cli.outcome import Exit
from gpt2flow.cli.processes import announce

# Callers repeat their messages often while the database is away.
_LIMITS = ("--max-per-minute", "100000", "--max-turns", "32")


def run_endpoint(connection: Connection, setup: RoleSetup) -> None:
    """Take messages over HTTP until the connection says stop."""
    begin(setup.folder, "endpoint")
    install_in_endpoint(
        setup.points(Victim.AGENT, Victim.ENDPOINT, Victim.POSTGRESQL, Victim.SERVER)
    )
    ready = threading.Event()

    def open_with_model(config: agent_config.AgentConfig, **_: Any) -> Agent:
        return open_agent(config, setup)

    def announcing(ready_file: Path | None, port: int) -> None:
        announce(ready_file, port)
        ready.set()
        connection.send(("ready",))

    def stop() -> None:
        # A signal before that would be a kill.
        ready.wait()
        os.kill(os.getpid(), signal.SIGTERM)

    endpoint_process.Agent = open_with_model  # type: ignore[assignment, attr-defined]
    serve_command.announce = announcing  # type: ignore[attr-defined]
    when_told(connection, stop)
    secrets = str(secrets_file(setup.folder))
    code = _run(
        *("serve", "--address", f"127.0.0.1:{setup.endpoint_port}", "--secret-file", secrets),
        *("--database", setup.database, "--payments", setup.payments, "--server", setup.address),
        *("--patience", str(setup.patience), *_LIMITS),
    )
    is_unavailable = code == Exit.FAILURE and not ready.is_set()
    os._exit(UNAVAILABLE if is_unavailable else code)


def secrets_file(folder: Path) -> Path:
    """Return the file of the secrets that messages are signed with."""
    return folder / "secrets"


def run_decision(setup: RoleSetup, act: str, session: str, arguments: Sequence[str]) -> None:
    """Run a command of a person on a case.

    Args:
        setup: Settings of the run.
        act: What the person does.
        session: Conversation of the case.
        arguments: Arguments after `gpt2flow agent`.
    """
    begin(setup.folder, "desk")
    install_in_desk(setup.points(Victim.DESK, Victim.POSTGRESQL), act, session)
    agent_config.utc_now = setup.clock
    sys.exit(_run(*arguments))


def _run(*arguments: str) -> int:
    """Run `gpt2flow agent`, and return its exit code."""
    sys.argv = ["gpt2flow", "agent", *arguments]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0
