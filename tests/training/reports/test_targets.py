"""Curves reach TensorBoard and MLflow, whose packages are optional."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gpt2flow.training.config import TrainingConfig
from gpt2flow.training.errors import ConfigError, OutputError, TrainingError
from gpt2flow.training.model.evaluation import Evaluation
from gpt2flow.training.model.loop import StepReport
from gpt2flow.training.pipeline import train
from gpt2flow.training.reports.targets import check_targets, open_targets

# The command in an interpreter that finds neither package.
_WITHOUT = """
import sys
sys.modules["tensorboard"] = sys.modules["mlflow"] = None
from gpt2flow.cli.main import main
main()
"""


def _train_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _WITHOUT, "train", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _reports(first: int, last: int) -> list[StepReport]:
    evaluation = Evaluation(loss=0.5, perplexity=1.65, first_actions=0.25, turns=None)
    return [
        StepReport(step, 100, 1.0 / step, 0.001, 2000.0, evaluation, step == 20)
        for step in range(first, last + 1)
    ]


def _log(
    names: Sequence[str],
    directory: Path,
    reports: list[StepReport],
    error: TrainingError | None = None,
) -> None:
    (directory / "work").mkdir(exist_ok=True)
    with open_targets(names, directory, directory / "work", TrainingConfig()) as on_progress:
        for report in reports:
            on_progress(report)
        if error:
            raise error


def test_an_unknown_target_is_named_with_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"^log_to wandb: expected tensorboard or mlflow$"):
        check_targets(["wandb"])


def test_without_targets_nothing_is_written(tmp_path: Path) -> None:
    _log([], tmp_path, _reports(1, 30))
    assert [path.name for path in tmp_path.iterdir()] == ["work"]


@pytest.mark.process
@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_missing_package_ends_the_command_with_what_to_install(name: str, tmp_path: Path) -> None:
    result = _train_command("--out", str(tmp_path / "o"), "--log-to", name)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert f"log_to {name}: the package '{name}' is not installed" in line
    assert f"pip install 'gpt2flow[{name}]'" in line
    assert not (tmp_path / "o").exists()


@pytest.mark.process
def test_an_unknown_target_ends_the_command_with_one_line(tmp_path: Path) -> None:
    result = _train_command("--out", str(tmp_path / "o"), "--log-to", "wandb")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.endswith("log_to wandb: expected tensorboard or mlflow")


def _events(directory: Path) -> dict[str, Any]:
    module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = module.EventAccumulator(str(directory))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_tensorboard_has_the_steps_of_the_curve(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    _log(["tensorboard"], tmp_path, _reports(1, 30))
    found = _events(tmp_path / "tensorboard")
    assert found["train/loss"] == [(step, pytest.approx(1 / step)) for step in (10, 20, 30)]
    assert found["train/learning_rate"][0] == (10, pytest.approx(0.001))
    assert found["valid/loss"] == [(20, 0.5)]
    assert found["valid/first_actions"] == [(20, 0.25)]
    assert "valid/turns" not in found


def test_tensorboard_of_a_resumed_run_drops_what_is_run_again(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    _log(["tensorboard"], tmp_path, _reports(1, 40))
    _log(["tensorboard"], tmp_path, _reports(21, 30))
    assert [step for step, _ in _events(tmp_path / "tensorboard")["train/loss"]] == [10, 20, 30]


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return pytest.importorskip("mlflow")


def _runs(mlflow: Any, directory: Path) -> tuple[Any, list[Any]]:
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{directory / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("gpt2flow")
    return client, list(client.search_runs([experiment.experiment_id]))


def test_mlflow_has_settings_and_curve_in_one_run_that_is_continued(
    mlflow: Any, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError):
        _log(["mlflow"], tmp_path, _reports(1, 20), error=TrainingError("the loss is nan"))
    _, (run,) = _runs(mlflow, tmp_path)
    assert run.info.status == "FAILED"
    _log(["mlflow"], tmp_path, _reports(21, 30))
    client, (run,) = _runs(mlflow, tmp_path)
    assert run.info.status == "FINISHED"
    assert run.data.params["batch_tokens"] == "4096"
    losses = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(each.step, each.value) for each in losses] == [
        (step, pytest.approx(1 / step)) for step in (10, 20, 30)
    ]


def test_a_store_that_cannot_be_reached_is_named(
    mlflow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mlflow
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(OutputError, match=r"^log_to mlflow: http://127\.0\.0\.1:9: API request"):
        _log(["mlflow"], tmp_path, _reports(1, 30))


@pytest.mark.process
def test_a_run_logs_beside_its_checkpoint(tmp_path: Path, tiny: TrainingConfig) -> None:
    pytest.importorskip("tensorboard")
    rhyme = "one two three four five once I caught a fish alive\n"
    text = "".join(f"{i} {rhyme}" for i in range(200))
    (tmp_path / "rhyme.txt").write_text(text, encoding="utf-8")
    config = tiny.changed(vocabulary_size=280)
    facts = train([tmp_path / "rhyme.txt"], tmp_path / "out", config, log_to=["tensorboard"])
    found = _events(tmp_path / "out" / "tensorboard")
    assert found["valid/loss"][-1] == (
        facts["steps"],
        pytest.approx(facts["evaluations"][-1]["loss"]),
    )
    assert (tmp_path / "out" / "curve.csv").exists()
