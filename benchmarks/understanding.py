"""Accuracy of the shipped model on the held-out messages.

Starts a server on the bundle and sends it every message under the grammar of the message's state,
as the agent does. Prints the share of messages whose first action matches the label, and the share
whose whole sequence does, arguments included; then the kinds of misses.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from gpt2flow.agent.flows import load_flows
from gpt2flow.agent.scenarios.understanding import MISSES, judge, load_examples, summary
from gpt2flow.agent.turns.model import ServedModel
from gpt2flow.cli.processes import server

HELD_OUT = Path(__file__).parents[1] / "tests" / "heldout" / "messages.jsonl"


def main(
    model: Annotated[
        Path, typer.Option(help="Bundle directory.", exists=True, file_okay=False)
    ] = Path("models/shop"),
    messages: Annotated[
        Path, typer.Option(help="JSON Lines file of labelled messages.")
    ] = HELD_OUT,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print all figures and misses as JSON.")
    ] = False,
) -> None:
    """Serve MODEL and measure its accuracy."""
    examples = load_examples(messages)
    with tempfile.TemporaryDirectory() as name, server(model, Path(name)) as address:
        served = ServedModel(address, "", 60.0)
        figures = summary(list(judge(load_flows(), served, examples)))
        served.close()
    if as_json:
        json.dump(figures, sys.stdout, indent=1, ensure_ascii=False)
        return
    print("| messages | number | first action | whole sequence |\n|---|---|---|---|")
    _row("all", figures)
    for group in ("by_language", "by_actions", "by_state"):
        for key, part in figures[group].items():
            _row(f"{group.removeprefix('by_')}: {key}", part)
    _print_misses(figures["miss_kinds"])
    print(
        f"\nOne answer takes {figures['milliseconds']['p50']:.1f} ms (median), "
        f"{figures['milliseconds']['p95']:.1f} ms (95th percentile)."
    )


def _row(name: str, part: dict[str, Any]) -> None:
    shares = f"{part['first_action']:.1%} | {part['whole_sequence']:.1%}"
    print(f"| {name} | {part['examples']} | {shares} |")


def _print_misses(counts: dict[str, dict[str, int]]) -> None:
    """Print the kinds of misses by state and language."""
    titles = [kind.replace("_", " ") for kind in MISSES]
    print(f"\n| misses | {' | '.join(titles)} |\n|{'---|' * (len(titles) + 1)}")
    total = {kind: sum(part[kind] for part in counts.values()) for kind in MISSES}
    for name, part in {"all": total, **counts}.items():
        print(f"| {name} | {' | '.join(str(part[kind]) for kind in MISSES)} |")


if __name__ == "__main__":
    typer.run(main)
