"""The progress bar of training."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gpt2flow.training.model import loop

# Steps that the shown loss is averaged over.
_MEMORY = 50


@contextmanager
def training_bar(console: Console, title: str) -> Iterator[loop.Watch]:
    """Show steps, loss, tokens a second and the latest evaluation.

    Gives a callback for `loop.fit`.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}  {task.fields[speed]:,.0f} tokens/s"),
        TextColumn("{task.fields[valid]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=console.quiet) as bar:
        task = bar.add_task(title, total=None, loss=0.0, speed=0.0, valid="")
        loss = 0.0

        def watch(seen: loop.Progress) -> None:
            nonlocal loss
            share = max(1 / _MEMORY, 1 / seen.step)
            loss += share * (seen.loss - loss)
            valid = (
                f"held back: perplexity {seen.evaluation.perplexity:.3f}" if seen.evaluation else ""
            )
            if seen.evaluation and seen.evaluation.turns is not None:
                valid += f", turns {seen.evaluation.turns:.1%}"
            bar.update(
                task,
                completed=seen.step,
                total=seen.steps,
                loss=loss,
                speed=seen.tokens_per_second,
                valid=valid,
            )

        yield watch
