"""Progress bar of training."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gpt2flow.training.model.loop import ProgressCallback, StepReport

# Steps in the running mean of the displayed loss.
_SMOOTHING_WINDOW = 50


@contextmanager
def show_progress(console: Console, title: str) -> Iterator[ProgressCallback]:
    """Show step, smoothed loss, tokens per second and latest evaluation while training.

    Yields:
        The callback for `fit`.
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

        def on_progress(report: StepReport) -> None:
            nonlocal loss
            share = max(1 / _SMOOTHING_WINDOW, 1 / report.step)
            loss += share * (report.loss - loss)
            evaluation = report.evaluation
            valid = f"validation: perplexity {evaluation.perplexity:.3f}" if evaluation else ""
            if evaluation and evaluation.turns is not None:
                valid += f", turns {evaluation.turns:.1%}"
            bar.update(
                task,
                completed=report.step,
                total=report.steps,
                loss=loss,
                speed=report.tokens_per_second,
                valid=valid,
            )

        yield on_progress
