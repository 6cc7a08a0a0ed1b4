"""Curves of a run for TensorBoard and MLflow."""

import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gpt2flow.files.atomic import write_atomically
from gpt2flow.training.config import TrainingConfig
from gpt2flow.training.curve import is_recorded
from gpt2flow.training.errors import ConfigError, OutputError
from gpt2flow.training.model.loop import ProgressCallback, StepReport

# Each is also the name of its package and of the extra that installs it.
TENSORBOARD, MLFLOW = "tensorboard", "mlflow"
TARGETS = (TENSORBOARD, MLFLOW)
# Created beside the checkpoint.
_EVENTS = "tensorboard"
_DATABASE = "mlflow.db"
# Created in the directory to resume from.
_RUN_ID = "mlflow.txt"
_EXPERIMENT = "gpt2flow"


def check_targets(names: Sequence[str]) -> None:
    """Check that curves can be logged to each target.

    Raises:
        ConfigError: A name is unknown, or its package is not installed.
    """
    for name in names:
        if name not in TARGETS:
            raise ConfigError(f"log_to {name}: expected {' or '.join(TARGETS)}")
        if find_spec(name) is None:
            raise ConfigError(
                f"log_to {name}: the package {name!r} is not installed: "
                f"pip install 'gpt2flow[{name}]'"
            )


@contextmanager
def open_targets(
    names: Sequence[str], out: Path, work: Path, config: TrainingConfig
) -> Iterator[ProgressCallback]:
    """Open log targets and close them at the end of the block.

    Args:
        names: Targets that `check_targets` accepts.
        out: Directory of the checkpoint. TensorBoard's events are in its `tensorboard`, and
            MLflow's database is its `mlflow.db` unless `MLFLOW_TRACKING_URI` names another.
        work: Directory to resume from. It receives the id of the MLflow run, which a resumed run
            continues.
        config: Settings, which MLflow records.

    Yields:
        The callback for `fit`, which logs the steps that are in `curve.csv`.

    Raises:
        OutputError: MLflow's store cannot be reached.
    """
    with ExitStack() as stack:
        callbacks: list[ProgressCallback] = []
        if TENSORBOARD in names:
            callbacks.append(stack.enter_context(_open_tensorboard(out / _EVENTS)))
        if MLFLOW in names:
            uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{out.resolve() / _DATABASE}"
            callbacks.append(stack.enter_context(_open_mlflow(uri, work / _RUN_ID, config)))

        def on_progress(report: StepReport) -> None:
            if is_recorded(report):
                for callback in callbacks:
                    callback(report)

        yield on_progress


@contextmanager
def _open_tensorboard(directory: Path) -> Iterator[ProgressCallback]:
    # Imported when named, since the package is optional.
    from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415

    writer: Any = None

    def on_progress(report: StepReport) -> None:
        nonlocal writer
        # A resumed run replaces the events after the step that it resumes from.
        writer = writer or SummaryWriter(str(directory), purge_step=report.step)
        for name, value in _scalars(report).items():
            writer.add_scalar(name, value, report.step)

    try:
        yield on_progress
    finally:
        if writer:
            writer.close()


@contextmanager
def _open_mlflow(uri: str, run_file: Path, config: TrainingConfig) -> Iterator[ProgressCallback]:
    # MLflow reports its use over the network unless this is set before its import.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # Imported when named, since the package is optional.
    from mlflow import MlflowClient  # noqa: PLC0415
    from mlflow.entities import Metric  # noqa: PLC0415

    # The steps of making a database are no news to the user.
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    with _mlflow_errors(uri):
        client = MlflowClient(tracking_uri=uri)
        run = _find_mlflow_run(client, run_file, config)
        history = client.get_metric_history(run, "train/loss")
        logged = max((metric.step for metric in history), default=0)

    def on_progress(report: StepReport) -> None:
        # A resumed run repeats the steps after its last checkpoint.
        if report.step <= logged:
            return
        now = int(time.time() * 1000)
        metrics = [
            Metric(name, value, now, report.step) for name, value in _scalars(report).items()
        ]
        with _mlflow_errors(uri):
            client.log_batch(run, metrics=metrics)

    try:
        yield on_progress
    except BaseException:
        # The error of the block matters more than one of the store.
        with suppress(Exception):
            client.set_terminated(run, status="FAILED")
        raise
    with _mlflow_errors(uri):
        client.set_terminated(run)


def _find_mlflow_run(client: Any, run_file: Path, config: TrainingConfig) -> str:
    """Return the id of the run to continue or a new one."""
    if run_file.exists():
        run: str = run_file.read_text(encoding="utf-8")
        client.update_run(run, status="RUNNING")
        return run
    experiment = client.get_experiment_by_name(_EXPERIMENT)
    number = experiment.experiment_id if experiment else client.create_experiment(_EXPERIMENT)
    run = client.create_run(number).info.run_id
    for name, value in config.model_dump().items():
        client.log_param(run, name, value)
    write_atomically(run_file, run)
    return run


@contextmanager
def _mlflow_errors(uri: str) -> Iterator[None]:
    """Convert MLflow's errors to `OutputError`."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    try:
        yield
    except MlflowException as error:
        text = f"{uri}: {' '.join(str(error).split())}"
        # The address may have a password, and MLflow repeats it.
        text = re.sub(r"//[^/@\s]*@", "//", text)[:250]
        raise OutputError(f"log_to mlflow: {text}; the run can be resumed") from error


def _scalars(report: StepReport) -> dict[str, float]:
    """Return the figures of a step, those of its evaluation included."""
    figures = {
        "train/loss": report.loss,
        "train/learning_rate": report.learning_rate,
        "train/tokens_per_second": report.tokens_per_second,
    }
    if report.is_evaluated and report.evaluation is not None:
        found = report.evaluation.model_dump(exclude_none=True)
        figures |= {f"valid/{name}": value for name, value in found.items()}
    return figures
