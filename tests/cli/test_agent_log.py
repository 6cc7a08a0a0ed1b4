"""Log of `gpt2flow agent ask` and `run`, on standard error."""

import subprocess
import sys
from pathlib import Path

LOGGING = """
import sys, structlog
from gpt2flow.cli.commands.agent.messages import _open_agent
from gpt2flow.cli.agent_options import AgentOptions
from gpt2flow.cli.connection import SecurityOptions
with _open_agent(AgentOptions(database=sys.argv[1]), SecurityOptions()):
    structlog.get_logger().warning("payments_failed", error="OperationalError")
"""


def test_the_log_goes_to_standard_error(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOGGING, str(tmp_path / "shop.sqlite")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert "payments_failed" in done.stderr
    assert "error=OperationalError" in done.stderr
