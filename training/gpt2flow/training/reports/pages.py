"""Pages beside a checkpoint: report of the run, and model card."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from gpt2flow.agent.flows.prompt import language
from gpt2flow.reports.charts import Chart, draw_chart
from gpt2flow.reports.pages import environment
from gpt2flow.training.config import TrainingConfig
from gpt2flow.training.curve import CURVE, read_curve
from gpt2flow.training.reports.confusion import TurnReview
from gpt2flow.training.text.clean import is_flow_document

REPORT = "report.html"
CARD = "README.md"
# Enough documents to meet each language of a corpus of turns.
_SAMPLE = 2000


def languages_of(documents: Sequence[str]) -> list[str]:
    """Return the languages of a corpus of turns, none for ordinary text."""
    sample = list(islice(documents, _SAMPLE))
    if not all(map(is_flow_document, sample)):
        return []
    return sorted(set(map(language, sample)))


def write_report(directory: Path, facts: dict[str, Any], review: TurnReview | None) -> None:
    """Write `report.html`: curves, settings, data, evaluations, and the review of turns.

    The page loads nothing from a network.

    Args:
        directory: Directory of the checkpoint, with the run's curve if there is one.
        facts: Contents of `training.json`.
        review: First actions of the validation turns; None without turns.
    """
    page = _render(
        "report.html.j2",
        facts=facts,
        figures=_figures(facts),
        settings=_settings(facts),
        charts=_charts(directory),
        review=review,
    )
    (directory / REPORT).write_text(page, encoding="utf-8")


def write_card(directory: Path, facts: dict[str, Any]) -> None:
    """Write `README.md`, a model card in Hugging Face's form.

    Args:
        directory: Directory of the checkpoint.
        facts: Contents of `training.json`.
    """
    card = _render(
        "model_card.md.j2", facts=facts, kept=_kept_evaluation(facts), settings=_settings(facts)
    )
    (directory / CARD).write_text(card, encoding="utf-8")


def _render(template: str, **values: object) -> str:
    return environment("gpt2flow.training.reports").get_template(template).render(values)


def _figures(facts: dict[str, Any]) -> dict[str, int | float | str]:
    """Return the single figures of a run, by their name in words."""
    found = facts | {f"cleaning: {name}": count for name, count in facts["cleaning"].items()}
    return {
        name.replace("_", " "): value
        for name, value in found.items()
        if isinstance(value, int | float | str)
    }


def _settings(facts: dict[str, Any]) -> list[tuple[str, Any, str]]:
    """Return name, value and description of each setting."""
    fields = TrainingConfig.model_fields
    return [
        (name, value, fields[name].description or "") for name, value in facts["config"].items()
    ]


def _kept_evaluation(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the evaluation of the weights that were kept."""
    kept: dict[str, Any] = next(
        each for each in facts["evaluations"] if each["step"] == facts["kept_step"]
    )
    return kept


def _charts(directory: Path) -> list[Chart]:
    rows = read_curve(directory / CURVE)

    def series(column: str) -> list[tuple[float, float]]:
        return [(row["step"], row[column]) for row in rows if column in row]

    losses = {"training loss": series("loss"), "validation loss": series("valid_loss")}
    charts = (
        draw_chart("Loss, in nats per token (logarithmic)", losses, is_log=True),
        draw_chart("Learning rate", {"learning rate": series("learning_rate")}),
    )
    return [chart for chart in charts if chart is not None]
