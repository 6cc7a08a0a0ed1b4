"""Accuracy of the next button in ABCD, by a small model.

    python benchmarks/abcd.py --train FILE --test FILE --json

Every button that the agent of a test dialogue pressed is one decision: the model reads what came
before it and ranks the 28 buttons. Training starts from the shipped model, which has learned to
read customers of another shop, and uses the training file alone. Floors are measured on the same
decisions.
"""

import json
import random
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import typer
from abcd_task.dialogues import (
    FLOORS,
    Decision,
    Dialogue,
    decisions,
    fit_floor,
    read_dialogues,
    recalls,
)
from abcd_task.documents import VIEWS, PromptWriter, find_names, training_documents
from abcd_task.scoring import choose, load_scorer
from rich.console import Console

from gpt2flow.agent.evaluation.summary import interval
from gpt2flow.export import restore_checkpoint
from gpt2flow.training.config import TrainingConfig, parse_settings
from gpt2flow.training.errors import ConfigError, TrainingError
from gpt2flow.training.pipeline import train as train_model

# Sizes and vocabulary are those of the checkpoint to start from, or these without one.
CONFIG = TrainingConfig(
    vocabulary_size=2000,
    context_length=512,
    layers=4,
    width=256,
    heads=4,
    dropout=0.1,
    epochs=2,
    batch_tokens=4096,
    packed_share=0.0,
    context_share=0.0,
    optimizer="muon",
    learning_rate=0.0015,
    valid_share=0.03,
    save_every=100,
)
SHIPPED = Path(__file__).parents[1] / "models" / "shop"
# Predictions between two lines of progress.
_PROGRESS = 500


def main(
    train: Annotated[
        Path, typer.Option(help="Text file of the training dialogues.", exists=True, dir_okay=False)
    ],
    test: Annotated[
        Path, typer.Option(help="Text file of the test dialogues.", exists=True, dir_okay=False)
    ],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as JSON.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Directory of the checkpoint, new or empty.", show_default="a temporary directory"
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Checkpoint to start from; its vocabulary and sizes are kept.",
            show_default="the shipped model",
        ),
    ] = None,
    scratch: Annotated[
        bool, typer.Option("--scratch", help="Start from random weights and a new vocabulary.")
    ] = False,
    checkpoints: Annotated[
        list[Path] | None,
        typer.Option(
            "--checkpoint",
            help="Finished checkpoint to measure instead of training; several vote together.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Setting of the training, as name=value; may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of views, weights and batches.")] = 1,
    limit: Annotated[
        int | None, typer.Option(min=2, help="Most dialogues of each file.", show_default="all")
    ] = None,
    windows: Annotated[int, typer.Option(min=1, help="Views of a decision in an epoch.")] = 3,
    ahead: Annotated[int, typer.Option(min=0, help="Later buttons that a view teaches.")] = 0,
    procedures: Annotated[
        int, typer.Option(min=0, help="Documents that state a dialogue's whole procedure.")
    ] = 0,
    votes: Annotated[
        int, typer.Option(min=1, max=len(VIEWS), help="Views that a prediction averages over.")
    ] = 1,
) -> None:
    """Train on TRAIN and measure the next button on TEST."""
    console = Console(stderr=True, log_path=False)
    views = {"windows": windows, "ahead": ahead, "procedures": procedures}
    try:
        if checkpoints and (out or start or settings):
            raise ConfigError("--checkpoint measures without training: no --out, --from or --set")
        config = CONFIG.changed(seed=seed, **parse_settings(settings or []))
        known = read_dialogues(train, limit)
        examples = list(decisions(read_dialogues(test, limit)))
        writer = PromptWriter(find_names(known))
        with tempfile.TemporaryDirectory() as name:
            facts: dict[str, Any] = {}
            if not checkpoints:
                files = write_corpus(Path(name), known, writer, config, views)
                if start is None and not scratch:
                    start = Path(name) / "shipped"
                    restore_checkpoint(SHIPPED, start)
                checkpoints = [out or Path(name) / "checkpoint"]
                facts = _train(files, checkpoints[0], config, start, console)
            began = time.perf_counter()
            predicted = _predict(checkpoints, examples, writer, votes, console)
            seconds = time.perf_counter() - began
    except TrainingError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    figures = summarize(list(decisions(known)), examples, predicted)
    figures |= {"scoring_seconds": round(seconds, 1), "votes": votes}
    if facts:
        figures["views"] = views
    figures["training"] = facts
    if as_json:
        json.dump(figures, sys.stdout, indent=1)
    else:
        _print_figures(figures)


def write_corpus(
    directory: Path,
    dialogues: list[Dialogue],
    writer: PromptWriter,
    config: TrainingConfig,
    views: dict[str, int],
) -> list[Path]:
    """Write the documents of training and validation set, and return both files.

    The validation set is a share of the dialogues, so that no dialogue is in both.

    Args:
        directory: Existing directory to write to.
        dialogues: Dialogues of the training file.
        writer: Writer of the documents.
        config: Settings, of which seed and `valid_share` are used.
        views: Arguments of `training_documents`.
    """
    rng = random.Random(config.seed)
    count = max(1, round(len(dialogues) * config.valid_share))
    held_back = set(rng.sample(range(len(dialogues)), count))
    learned = [each for number, each in enumerate(dialogues) if number not in held_back]
    documents = list(training_documents(learned, writer, rng, **views))
    rng.shuffle(documents)
    valid = [writer.document(each, 0) for each in decisions(dialogues[n] for n in held_back)]
    paths = [directory / "train.txt", directory / "valid.txt"]
    for path, texts in zip(paths, (documents, valid), strict=True):
        path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return paths


def _train(
    files: list[Path], out: Path, config: TrainingConfig, start: Path | None, console: Console
) -> dict[str, Any]:
    """Train on the first file, validate on the second, return the facts."""
    console.log(f"Training; {out / 'checkpoints' / 'curve.csv'} has the curve so far")
    facts = train_model(files[:1], out, config, valid=files[1:], start=start, console=console)
    console.log(f"Trained {facts['steps']} steps in {facts['seconds']:.0f} s")
    return facts


def _predict(
    checkpoints: list[Path],
    examples: list[Decision],
    writer: PromptWriter,
    votes: int,
    console: Console,
) -> list[str]:
    """Return the most likely button of each decision."""
    scorers = [load_scorer(path) for path in checkpoints]
    predicted: list[str] = []
    right = 0
    for number, example in enumerate(examples, 1):
        prompts = [writer.prompt(example.before, view) for view in VIEWS[:votes]]
        predicted.append(choose(scorers, prompts))
        right += predicted[-1] == example.button
        if number % _PROGRESS == 0 or number == len(examples):
            console.log(f"{number} of {len(examples)} actions, {right / number:.1%} right so far")
    return predicted


def summarize(
    known: list[Decision], examples: list[Decision], predicted: list[str]
) -> dict[str, Any]:
    """Return the figures of predictions and of the floors.

    Args:
        known: Decisions of the training file, from which the floors learn.
        examples: Decisions of the test file.
        predicted: Predicted button of each.
    """
    counts: dict[str, int] = {}
    for example in examples:
        counts[example.button] = counts.get(example.button, 0) + 1
    found = recalls(examples, predicted)
    floors = {
        name: _accuracy(examples, list(map(fit_floor(known, length), examples)))
        for name, length in FLOORS.items()
    }
    return {
        "actions": len(examples),
        **_accuracy(examples, predicted),
        "floors": floors,
        "by_button": {
            button: {"actions": counts[button], "accuracy": share}
            for button, share in found.items()
        },
    }


def _accuracy(examples: list[Decision], predicted: list[str]) -> dict[str, Any]:
    """Return micro accuracy with its interval, and macro accuracy."""
    pairs = zip(examples, predicted, strict=True)
    right = sum(example.button == button for example, button in pairs)
    macro = mean(recalls(examples, predicted).values())
    return {"micro": interval(right, len(examples)), "macro": macro}


def _print_figures(figures: dict[str, Any]) -> None:
    rows = {"model": figures, **figures["floors"]}
    print("| predictor | micro | 95 % interval | macro |\n|---|---|---|---|")
    for name, part in rows.items():
        micro = part["micro"]
        span = f"{micro['low']:.1%} – {micro['high']:.1%}"
        print(f"| {name} | {micro['rate']:.1%} | {span} | {part['macro']:.1%} |")
    print("\n| button | actions | accuracy |\n|---|---|---|")
    for button, part in figures["by_button"].items():
        print(f"| {button} | {part['actions']} | {part['accuracy']:.1%} |")
    seconds = figures["training"].get("seconds")
    print(f"\n{figures['actions']} actions, scored in {figures['scoring_seconds']} s.")
    if seconds is not None:
        print(f"Training took {seconds} s.")


if __name__ == "__main__":
    typer.run(main)
