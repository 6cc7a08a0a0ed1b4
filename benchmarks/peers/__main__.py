"""Side-by-side benchmark of gpt2flow and its peers: `make bench-peers`.

    PYTHONPATH=benchmarks python -m peers --text DIR --vocabulary DIR

Every engine runs the same checkpoint on the same number of threads, in its own environment and
process. The engines are measured round-robin; all others are stopped meanwhile. A peer that cannot
be installed or prepared is reported as missing, with the reason.
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
from peers.measurements import LONG_POSITION, NEW_TOKENS, PROMPT_TOKENS, all_measurements
from peers.prompts import Prompts
from peers.report.writer import write_report
from peers.session import Session

_STREAMS = 16
_MAX_CAPACITY = 1024
_MIN_CAPACITY = 896


def main() -> None:
    """Read the arguments, measure, and write the report."""
    parser = _build_parser()
    options = parser.parse_args()
    # A killed run must not leave stopped workers behind.
    signal.signal(signal.SIGTERM, _exit_on_sigterm)
    columns = _select_columns(parser, options.columns)
    engines = _select_engines(parser, options.only)
    checkpoint = _resolve_checkpoint(parser, options)
    capacity = _resolve_capacity(parser, checkpoint)
    most = 2 * (capacity - LONG_POSITION)
    if not 2 <= options.new_tokens <= most:
        parser.error(f"--new-tokens: must be from 2 to {most}")
    available = all_measurements(_STREAMS, capacity, options.new_tokens)
    measurements = [available[key] for key in available if key in columns]
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
        "tokens of a prompt": PROMPT_TOKENS,
        "new tokens": f"{options.new_tokens}, greedy, not ended early",
        "options of gpt2flow serve": " ".join(options.serve_option) or "none",
    }
    folder = options.out or options.work
    table = "nothing was measured"
    with Session(options.work.resolve(), setup, _digest(checkpoint)) as session:
        results = [session.start(engine) for engine in engines]
        # Written after every round, so that an interrupted run keeps its figures.
        for _ in session.measure(results, measurements, Prompts(checkpoint), options.repeats):
            table = write_report(folder, results, measurements, machine, settings)
    print(table)


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="peers", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        help="Checkpoint to measure; default: GPT-2 124M with random weights.",
    )
    parser.add_argument(
        "--text",
        type=Path,
        help="Directory of WikiText-2 raw for the default checkpoint; see wikitext_model.py.",
    )
    parser.add_argument(
        "--vocabulary",
        type=Path,
        help="Directory of GPT-2's vocabulary for the default checkpoint; see wikitext_model.py.",
    )
    parser.add_argument(
        "--bundles",
        type=Path,
        help="Directory with the exported bundles int8 and int4; default: export them.",
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("build/peers"),
        help="Directory for environments, models and logs, kept between runs.",
    )
    parser.add_argument("--out", type=Path, help="Directory for the report; default: --work.")
    parser.add_argument(
        "--only", help=f"Engines to measure, separated by commas: {_join_keys(ENGINES)}."
    )
    columns = ", ".join(all_measurements(_STREAMS, _MAX_CAPACITY))
    parser.add_argument("--columns", help=f"Measurements to run, separated by commas: {columns}.")
    parser.add_argument("--repeats", type=_positive, default=5, help="Rounds after the warm-up.")
    parser.add_argument(
        "--new-tokens", type=_positive, default=NEW_TOKENS, help="Tokens to generate per stream."
    )
    parser.add_argument("--threads", type=_positive, default=2, help="Threads per engine.")
    parser.add_argument(
        "--serve-option",
        action="append",
        default=[],
        metavar="OPTION",
        help="Argument for `gpt2flow serve`, such as --serve-option=--drain-seconds=1; may repeat.",
    )
    return parser


def _resolve_checkpoint(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Path:
    """Return the given checkpoint, or the default one, created if absent."""
    given: Path | None = options.checkpoint
    if given:
        required = ("config.json", "model.safetensors", "tokenizer.json", "eval.txt")
        if missing := [name for name in required if not (given / name).is_file()]:
            parser.error(f"--checkpoint {given} has no {', '.join(missing)}")
        return given.resolve()
    made: Path = options.work.resolve() / "checkpoint"
    if not (made / "eval.txt").exists():
        if not (options.text and options.vocabulary):
            parser.error("no checkpoint: give --checkpoint, or --text and --vocabulary")
        from export import make_checkpoint  # noqa: PLC0415 - the import takes seconds

        make_checkpoint(made, options.text, options.vocabulary)
    return made


def _resolve_capacity(parser: argparse.ArgumentParser, checkpoint: Path) -> int:
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    context = int(config["n_positions"])
    if context < _MIN_CAPACITY:
        parser.error(
            f"checkpoint's context too short: {context} tokens, at least {_MIN_CAPACITY} required"
        )
    return min(context, _MAX_CAPACITY)


def _select_columns(parser: argparse.ArgumentParser, given: str | None) -> list[str]:
    available = all_measurements(_STREAMS, _MAX_CAPACITY)
    keys = list(available) if given is None else given.split(",")
    if unknown := [key for key in keys if key not in available]:
        parser.error(
            f"--columns: unknown: {', '.join(unknown)}; choose from {', '.join(available)}"
        )
    return keys


def _select_engines(parser: argparse.ArgumentParser, given: str | None) -> list[Engine]:
    if given is None:
        return ENGINES
    keys = given.split(",")
    if unknown := sorted(set(keys) - {engine.key for engine in ENGINES}):
        parser.error(f"--only: unknown: {', '.join(unknown)}; choose from {_join_keys(ENGINES)}")
    return [engine for engine in ENGINES if engine.key in keys]


def _join_keys(engines: list[Engine]) -> str:
    return ", ".join(engine.key for engine in engines)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return int(text)


def _digest(checkpoint: Path) -> str:
    with (checkpoint / "model.safetensors").open("rb") as weights:
        return hashlib.file_digest(weights, "sha256").hexdigest()[:12]


def _exit_on_sigterm(_number: int, _frame: FrameType | None) -> Any:
    sys.exit("ended by SIGTERM")


if __name__ == "__main__":
    main()
