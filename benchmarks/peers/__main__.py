"""Measures gpt2flow and its peers side by side: `make bench-peers`.

    PYTHONPATH=benchmarks python -m peers --text DIR --vocabulary DIR

Every engine runs the same checkpoint in an environment and a process of its own, on as many
threads as the others; they take turns, and while one is measured the others are stopped. A peer
that cannot be installed or prepared is reported as missing, with the reason.
"""

import argparse
import hashlib
import json
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from peers.catalogue import ENGINES, Engine
from peers.machine import describe_machine
from peers.measurements import NEW_TOKENS, PROMPT, all_measurements
from peers.prompts import Prompts
from peers.report import write_report
from peers.session import Session

_STREAMS = 16
_MOST_CAPACITY = 1024
_LEAST_CAPACITY = 640


def main() -> None:
    """Read the arguments, measures, and writes the report."""
    parser = _parser()
    options = parser.parse_args()
    # A killed run must not leave stopped workers behind.
    signal.signal(signal.SIGTERM, _end)
    columns = _chosen_columns(parser, options.columns)
    engines = _chosen_engines(parser, options.only)
    checkpoint = _checkpoint(parser, options)
    capacity = _capacity(parser, checkpoint)
    if not 2 <= options.new_tokens <= capacity - PROMPT:
        parser.error(f"--new-tokens: must be from 2 to {capacity - PROMPT}")
    every = all_measurements(_STREAMS, capacity, options.new_tokens)
    measurements = [every[key] for key in every if key in columns]
    setup = {
        "checkpoint": str(checkpoint),
        "threads": options.threads,
        "streams": _STREAMS,
        "capacity": capacity,
        "options": {
            "serve": options.serve_option,
            "bundles": str(options.bundles.resolve()) if options.bundles else None,
        },
    }
    machine = describe_machine(options.threads)
    settings = {
        "threads": options.threads,
        "repeats": options.repeats,
        "tokens of a prompt": PROMPT,
        "new tokens": f"{options.new_tokens}, greedy, not ended early",
        "options of gpt2flow serve": " ".join(options.serve_option) or "none",
    }
    folder = options.out or options.work
    table = "nothing was measured"
    with Session(options.work.resolve(), setup, _digest(checkpoint)) as session:
        results = [session.start(engine) for engine in engines]
        # After every round, so that a run that is ended leaves what it has.
        for _ in session.measure(results, measurements, Prompts(checkpoint), options.repeats):
            table = write_report(folder, results, measurements, machine, settings)
    print(table)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="peers", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("--checkpoint", type=Path, help="default: GPT-2 124M of random weights")
    parser.add_argument("--text", type=Path, help="for such one, as in wikitext_model.py")
    parser.add_argument("--vocabulary", type=Path, help="likewise")
    parser.add_argument("--bundles", type=Path, help="has int8 and int4, exported before")
    parser.add_argument("--work", type=Path, default=Path("build/peers"), help="kept between runs")
    parser.add_argument("--out", type=Path, help="of the report; default: --work")
    parser.add_argument("--only", help="engines, between commas: " + _keys(ENGINES))
    columns = ", ".join(all_measurements(_STREAMS, _MOST_CAPACITY))
    parser.add_argument("--columns", help=f"between commas: {columns}")
    parser.add_argument("--repeats", type=_positive, default=5)
    parser.add_argument("--new-tokens", type=_positive, default=NEW_TOKENS, help="of a stream")
    parser.add_argument("--threads", type=_positive, default=2)
    parser.add_argument(
        "--serve-option",
        action="append",
        default=[],
        metavar="OPTION",
        help="one more word for `gpt2flow serve`, as --serve-option=--drain-seconds=1",
    )
    return parser


def _checkpoint(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Path:
    """Return the checkpoint, which is made unless it is given or was made before."""
    given: Path | None = options.checkpoint
    if given:
        wanted = ("config.json", "model.safetensors", "tokenizer.json", "eval.txt")
        if missing := [name for name in wanted if not (given / name).is_file()]:
            parser.error(f"--checkpoint {given} has no {', '.join(missing)}")
        return given.resolve()
    made: Path = options.work.resolve() / "checkpoint"
    if not (made / "eval.txt").exists():
        if not (options.text and options.vocabulary):
            parser.error("either --checkpoint, or --text and --vocabulary are needed")
        from export import make_checkpoint  # noqa: PLC0415 - takes seconds

        make_checkpoint(made, options.text, options.vocabulary)
    return made


def _capacity(parser: argparse.ArgumentParser, checkpoint: Path) -> int:
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    context = int(config["n_positions"])
    if context < _LEAST_CAPACITY:
        parser.error(f"the checkpoint's context is {context}, must be at least {_LEAST_CAPACITY}")
    return min(context, _MOST_CAPACITY)


def _chosen_columns(parser: argparse.ArgumentParser, given: str | None) -> list[str]:
    every = all_measurements(_STREAMS, _MOST_CAPACITY)
    keys = list(every) if given is None else given.split(",")
    if unknown := [key for key in keys if key not in every]:
        parser.error(f"--columns: {', '.join(unknown)}: must be some of {', '.join(every)}")
    return keys


def _chosen_engines(parser: argparse.ArgumentParser, given: str | None) -> list[Engine]:
    if given is None:
        return ENGINES
    keys = given.split(",")
    if unknown := sorted(set(keys) - {engine.key for engine in ENGINES}):
        parser.error(f"--only: {', '.join(unknown)}: must be some of {_keys(ENGINES)}")
    return [engine for engine in ENGINES if engine.key in keys]


def _keys(engines: list[Engine]) -> str:
    return ", ".join(engine.key for engine in engines)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return int(text)


def _digest(checkpoint: Path) -> str:
    with (checkpoint / "model.safetensors").open("rb") as weights:
        return hashlib.file_digest(weights, "sha256").hexdigest()[:12]


def _end(_number: int, _frame: FrameType | None) -> Any:
    sys.exit("ended")


if __name__ == "__main__":
    main()
