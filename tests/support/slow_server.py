"""`gpt2flow` whose runs are slow until a file exists.

Usage: python -m tests.support.slow_server SECONDS HURRY_FILE serve …
"""

import sys
import time
from pathlib import Path
from typing import Any

from gpt2flow.cli.main import main
from gpt2flow.server.bundle.model_runner import Floats, ModelRunner

_POLL_SECONDS = 0.02


def slow_down(seconds: float, hurry_file: Path) -> None:
    """Make runs take at least `seconds` until the file exists."""
    run = ModelRunner.run

    def slowly(runner: ModelRunner, *args: Any) -> Floats:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends and not hurry_file.exists():
            time.sleep(_POLL_SECONDS)
        return run(runner, *args)

    ModelRunner.run = slowly  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    slow_down(float(sys.argv[1]), Path(sys.argv[2]))
    del sys.argv[1:3]
    main()
