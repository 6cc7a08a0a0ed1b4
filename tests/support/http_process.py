"""Process of the HTTP endpoint on a scripted model.

`python -m tests.support.http_process FOLDER SECONDS` serves the shop of the folder, with that drain
time. After the first action of a turn, the model waits while the file `hold` is there.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tests.support.http_endpoint import HeldModel
from tests.support.project import PROJECT
from tests.support.waiting import SECONDS, eventually

from gpt2flow.agent.config import AgentConfig
from gpt2flow.agent.http.config import HttpConfig
from gpt2flow.agent.http.process import serve
from gpt2flow.files.atomic import write_atomically


@dataclass(frozen=True)
class EndpointProcess:
    """Process that takes messages.

    Attributes:
        process: The process.
        folder: Folder of its shop, its log and its switches.
        client: Client of its port.
    """

    process: "subprocess.Popen[bytes]"
    folder: Path
    client: httpx.Client

    def post(self, text: str, message_id: str, session: str = "s") -> httpx.Response:
        """Send a message."""
        message = {"session": session, "text": text, "id": message_id}
        return self.client.post("/v1/messages", json=message)

    def kill(self) -> None:
        """End the process as a crash does."""
        self.process.kill()
        self.process.wait(SECONDS)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Return the exit code."""
        return self.process.wait(SECONDS)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the log's lines of an event."""
        lines = (self.folder / "log").read_text(encoding="utf-8").splitlines(keepends=True)
        events: list[dict[str, Any]] = [json.loads(line) for line in lines if line.endswith("\n")]
        return [event for event in events if event["event"] == name]


@contextmanager
def endpoint_process(
    folder: Path, *command: str, drain_seconds: float = 30.0
) -> Iterator[EndpointProcess]:
    """Run a process until the block ends.

    Args:
        folder: Folder of the shop.
        command: Command to run instead, without the options of its address.
        drain_seconds: Drain time of the process.
    """
    ready = folder / "port"
    ready.unlink(missing_ok=True)
    scripted = ["tests.support.http_process", str(folder), str(drain_seconds)]

    def is_ready() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        return ready.exists()

    with (
        (folder / "log").open("ab") as log,
        subprocess.Popen(
            [sys.executable, "-m", *(command or scripted)], cwd=PROJECT, stderr=log
        ) as process,
    ):
        try:
            eventually(is_ready)
            url = f"http://127.0.0.1:{int(ready.read_text())}"
            with httpx.Client(base_url=url, timeout=SECONDS, trust_env=False) as client:
                yield EndpointProcess(process, folder, client)
        finally:
            process.kill()


def main(folder: Path, drain_seconds: float) -> None:
    """Serve until a signal."""
    hold = folder / "hold"
    serve(
        HttpConfig(address="127.0.0.1:0", drain_seconds=drain_seconds),
        AgentConfig(database=str(folder / "shop.sqlite")),
        model=HeldModel(lambda prompt: "<|result|>" in prompt and hold.exists()),
        on_ready=lambda port: write_atomically(folder / "port", f"{port}\n"),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
