"""Calibration of the agent's doubt, as a Markdown table.

    python benchmarks/confidence.py --model DIR --turns FILE

It lets a model choose the first action of generated turns that it was not trained on, under the
agent's grammar. For thresholds of the confidence, it shows how many wrong choices of risky
actions the agent would ask about, and how many right ones. A checkpoint's `eval.txt` has such
turns.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from gpt2flow.agent.flows import FlowBook, load_flows
from gpt2flow.agent.flows.grammar import action_grammar
from gpt2flow.agent.flows.prompt import ACT, END, RESULT, STATE, USER, Choice
from gpt2flow.agent.turns.model import ServedModel, parse_choice
from gpt2flow.cli.processes import server

_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)


def main(
    model: Annotated[Path, typer.Option(help="Directory of the bundle.")],
    turns: Annotated[Path, typer.Option(help="File of generated turns that end with a token.")],
) -> None:
    """Print how many right and wrong choices are below each threshold."""
    book = load_flows()
    right, wrong = list[float](), list[float]()
    with tempfile.TemporaryDirectory() as name, server(model, Path(name)) as address:
        served = ServedModel(address, "", 60.0)
        for prompt, grammar, expected in _first_actions(book, turns):
            chosen = parse_choice(served.choose(prompt, grammar))
            action = book.actions.get(chosen.action)
            if action is not None and action.confirm != "never":
                (right if chosen == expected else wrong).append(chosen.confidence)
        served.close()
    typer.echo(f"{len(right)} right and {len(wrong)} wrong choices of risky actions\n")
    typer.echo("| confidence below | wrong ones asked about | right ones asked about |")
    typer.echo("|---|---|---|")
    for threshold in _THRESHOLDS:
        cells = (f"{_share(values, threshold):.1%}" for values in (wrong, right))
        typer.echo(f"| {threshold} | {' | '.join(cells)} |")


def _first_actions(book: FlowBook, turns: Path) -> Iterator[tuple[str, str, Choice]]:
    """Yield prompt, grammar and expected choice of each turn of a customer."""
    for document in turns.read_text(encoding="utf-8").replace("\n", "").split(END):
        head, _, rest = document.partition(ACT)
        state, _, message = head.removeprefix(STATE).partition(USER)
        if not message:
            continue
        expected = Choice.parse(json.dumps(json.loads(rest.partition(RESULT)[0])))
        legal = book.legal(frozenset(state.split("<|past|>")[0].split(" awaiting ")[0].split()))
        grammar = action_grammar(book, book.wishes, message, legal=legal, may_end=False)
        yield f"{head}{ACT}", grammar, expected


def _share(values: list[float], threshold: float) -> float:
    return sum(value < threshold for value in values) / max(len(values), 1)


if __name__ == "__main__":
    typer.run(main)
