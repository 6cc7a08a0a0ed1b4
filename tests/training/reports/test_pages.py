"""The report and the model card say what `training.json` says."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpt2flow.training.config import TrainingConfig
from gpt2flow.training.curve import record_curve
from gpt2flow.training.model.evaluation import Evaluation
from gpt2flow.training.model.loop import StepReport
from gpt2flow.training.pipeline import train
from gpt2flow.training.reports.confusion import Prediction, TurnReview, summarize
from gpt2flow.training.reports.pages import languages_of, write_card, write_report

_SHA = "ab" * 32


def _facts(*, turns: float | None = 0.75, **more: Any) -> dict[str, Any]:
    first = None if turns is None else 0.875
    evaluations = [
        {"step": 20, "loss": 0.51, "perplexity": 1.665, "first_actions": first, "turns": turns},
        {"step": 40, "loss": 0.6, "perplexity": 1.822, "first_actions": first, "turns": turns},
    ]
    return {
        "documents": 1234,
        "held_back_documents": 56,
        "corpus_sha256": "cd" * 32,
        "cleaning": {"repeated_documents": 17},
        "corpus_tokens": 98765,
        "languages": ["en", "zh"],
        "steps": 40,
        "kept_step": 20,
        "trained_tokens": 424242,
        "seconds": 12.3,
        "parameters": 4321000,
        "start_sha256": None,
        "config": TrainingConfig(learning_rate=0.00777).model_dump(),
        "evaluations": evaluations,
        "versions": {"python": "3.11.0", "torch": "2.13.0"},
    } | more


def _write_curve(directory: Path) -> None:
    record = record_curve(directory / "curve.csv")
    for step in range(1, 41):
        evaluation = Evaluation(loss=0.51, perplexity=1.665) if step >= 20 else None
        record(StepReport(step, 40, 8 / step, 0.001, 1000.0, evaluation, step in {20, 40}))


class _Page(HTMLParser):
    """Collect tags, addresses and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [str(value) for name, value in attrs if name in {"src", "href"}]

    def handle_data(self, data: str) -> None:
        self.text += data


def _report(directory: Path, facts: dict[str, Any], review: TurnReview | None = None) -> _Page:
    write_report(directory, facts, review)
    return _Page((directory / "report.html").read_text(encoding="utf-8"))


def _card(directory: Path, facts: dict[str, Any]) -> tuple[dict[str, Any], str]:
    write_card(directory, facts)
    _, front, text = (directory / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), text


def test_the_report_has_curves_settings_data_and_evaluations(tmp_path: Path) -> None:
    _write_curve(tmp_path)
    page = _report(tmp_path, _facts(data_sets={"banking77": _SHA}, missing_data_sets=["snips"]))
    assert page.tags.count("svg") == 2
    assert page.tags.count("polyline") == 3
    assert "0.00777" in page.text
    for value in ("1,234", "98,765", "cd" * 32, "17", "0.5100", "1.822", "75.0 %", _SHA):
        assert value in page.text, value
    assert "weights of step 20" in page.text
    for name in TrainingConfig.model_fields:
        assert name in page.text


def test_the_report_loads_nothing(tmp_path: Path) -> None:
    _write_curve(tmp_path)
    page = _report(tmp_path, _facts())
    assert page.addresses == []
    assert not {"script", "link", "img", "iframe"} & set(page.tags)


def test_a_report_without_curve_and_turns_is_whole(tmp_path: Path) -> None:
    page = _report(tmp_path, _facts(turns=None))
    assert "svg" not in page.tags
    assert "First action" not in page.text
    assert "–" in page.text


def test_the_report_shows_actions_and_misses_as_text(tmp_path: Path) -> None:
    right = Prediction("<|user|>hi<|act|>", '{"action":"greet"}', '{"action":"greet"}')
    wrong = Prediction("<|user|>a <b> & c<|act|>", '{"action":"cart"}', '{"action":"gr…')
    page = _report(tmp_path, _facts(), summarize([right, right, wrong]))
    assert "First action of each validation turn" in page.text
    assert "greet (1)" in page.text
    assert "<|user|>a <b> & c<|act|>" in page.text
    assert "b" not in page.tags


def test_the_card_has_the_front_matter_of_the_hub(tmp_path: Path) -> None:
    front, _ = _card(tmp_path, _facts())
    assert front["language"] == ["en", "zh"]
    assert front["library_name"] == "transformers"
    assert {"gpt2", "gpt2flow"} <= set(front["tags"])


def test_the_card_has_settings_data_sets_and_figures_of_the_kept_weights(tmp_path: Path) -> None:
    facts = _facts(data_sets={"banking77": _SHA}, missing_data_sets=[], start_sha256="ef" * 32)
    _, text = _card(tmp_path, facts)
    for line in (
        "# GPT-2 with 4,321,000 parameters",
        "| `learning_rate` | 0.00777 |",
        f"| banking77 | `{_SHA}` |",
        "| loss, in nats per token | 0.5100 |",
        "| turns predicted exactly | 75.0 % |",
        "## Limits",
    ):
        assert line in text.splitlines()
    assert "ef" * 32 in text
    assert "0.6" not in text.split("## Evaluation")[1]


def test_the_card_of_ordinary_text_claims_neither_language_nor_actions(tmp_path: Path) -> None:
    front, text = _card(tmp_path, _facts(turns=None, languages=[]))
    assert "language" not in front
    assert "agent" not in front["tags"]
    assert "action" not in text


def test_a_sentence_of_the_card_has_at_most_25_words(tmp_path: Path) -> None:
    for facts in (_facts(data_sets={"x": _SHA}, start_sha256=_SHA), _facts(turns=None)):
        _, text = _card(tmp_path, facts)
        for line in text.splitlines():
            assert line.startswith(("|", "Versions")) or len(line.split()) <= 25, line


def test_languages_are_those_of_turns_alone() -> None:
    assert languages_of(["<|state|>guest<|user|>hi", "<|state|>guest<|user|>你好"]) == ["en", "zh"]
    assert languages_of(["<|state|>guest<|user|>hi"]) == ["en"]
    assert languages_of(["bonjour", "<|state|>guest<|user|>hi"]) == []


@pytest.mark.process
def test_a_run_writes_both_pages_from_its_facts(tmp_path: Path, tiny: TrainingConfig) -> None:
    turn = (
        '<|state|>guest<|user|>{0}<|act|>{{"action":"{1}"}}<|result|>ok<|act|>{{"action":"done"}}'
    )
    turns = [turn.format(f"{word} {i}", "greet") for i in range(60) for word in ("hi", "hello")]
    (tmp_path / "turns.txt").write_text("<|endoftext|>".join(turns), encoding="utf-8")
    config = tiny.changed(vocabulary_size=290, context_length=64, packed_share=0.0)
    out = tmp_path / "out"
    facts = train([tmp_path / "turns.txt"], out, config)
    page = _Page((out / "report.html").read_text(encoding="utf-8"))
    assert page.tags.count("svg") == 2
    assert "greet" in page.text
    front, text = _card(tmp_path, facts)
    assert (out / "README.md").read_bytes() == (tmp_path / "README.md").read_bytes()
    assert front["language"] == ["en"]
    assert facts["corpus_sha256"] in text
    assert json.loads((out / "training.json").read_text(encoding="utf-8")) == facts
