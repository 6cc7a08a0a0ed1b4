"""Benchmark run: engines are prepared, then measured round-robin."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from peers.catalogue import Engine
from peers.environments import EnvironmentFailedError, make_environment
from peers.measurements import Measurement
from peers.process import WorkerError, WorkerProcess
from peers.prompts import Prompts

_PREPARE_SECONDS = 3600.0
_LOAD_SECONDS = 300.0
_MEASURE_SECONDS = 600.0
# Prompt and new tokens of the request that wakes an engine before each measurement.
_WAKE = (16, 8)


@dataclass
class Result:
    """Results of one engine.

    Attributes:
        engine: Engine that was measured.
        missing: Reason why it could not be measured; None if it could.
        about: Versions and sizes.
        samples: Samples of each figure, one per repeat, by key.
        failures: Reasons why measurements failed, by key.
    """

    engine: Engine
    missing: str | None = None
    about: dict[str, Any] = field(default_factory=dict)
    samples: dict[str, list[float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


class Session:
    """Workers of a run, as a context that ends them.

    Args:
        work: Directory of environments, models and logs.
        setup: Fields of a worker's setup, except `folder` and `variant`.
        model: Name of the checkpoint, which keeps the models of two checkpoints apart.
    """

    def __init__(self, work: Path, setup: dict[str, Any], model: str) -> None:
        self._work, self._setup, self._model = work, setup, model
        self._stack = ExitStack()
        self._workers: dict[str, WorkerProcess] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, engine: Engine) -> Result:
        """Install, convert and load an engine; a failure sets `missing`."""
        result = Result(engine)
        worker = None
        try:
            worker = self._start_worker(engine)
            _log(f"{engine.name}: preparing")
            worker.call("prepare", seconds=_PREPARE_SECONDS)
            result.about = worker.call("load", seconds=_LOAD_SECONDS)
            result.about["step_bytes"] = worker.call("step_bytes", seconds=_LOAD_SECONDS)
        except (EnvironmentFailedError, WorkerError) as error:
            result.missing = str(error)
            _log(f"{engine.name} is missing: {error}")
            if worker:
                worker.close()
            return result
        worker.pause()
        self._stack.callback(worker.close)
        self._workers[engine.key] = worker
        return result

    def measure(
        self,
        results: Iterable[Result],
        measurements: Iterable[Measurement],
        prompts: Prompts,
        repeats: int,
    ) -> Iterator[None]:
        """Measure all engines round-robin, and yield after every round that counts.

        The first round is a warm-up and does not count. The order reverses with every round.
        """
        order = [result for result in results if result.missing is None]
        for round_number in range(repeats + 1):
            _log(f"round {round_number} of {repeats}" if round_number else "warming up")
            for measurement in measurements:
                if measurement.fresh and round_number != repeats:
                    continue
                _log(f"  {measurement.key}")
                requests = measurement.requests(prompts)
                for result in order:
                    if measurement.key in result.engine.supported and result.missing is None:
                        self._measure_one(
                            result, measurement, requests, prompts, counts=round_number > 0
                        )
            order.reverse()
            if round_number:
                yield

    def _measure_one(
        self,
        result: Result,
        measurement: Measurement,
        requests: list[tuple[str, dict[str, Any]]],
        prompts: Prompts,
        *,
        counts: bool,
    ) -> None:
        worker = self._workers[result.engine.key]
        length, tokens = _WAKE
        with worker.resumed():
            try:
                if measurement.fresh:
                    worker.call("load", seconds=_LOAD_SECONDS)
                else:
                    wake = [prompts.take(length)]
                    worker.call("stream", seconds=_LOAD_SECONDS, prompts=wake, new_tokens=tokens)
                answers = [
                    worker.call(do, seconds=_MEASURE_SECONDS, **arguments)
                    for do, arguments in requests
                ]
                figures = measurement.figures(answers)
            except (WorkerError, ValueError) as error:
                result.failures[measurement.key] = str(error)
                _log(f"{result.engine.name}, {measurement.key}: {error}")
                if worker.ended:
                    result.missing = str(error)
                return
        if counts:
            for key, value in figures.items():
                result.samples.setdefault(key, []).append(value)

    def _start_worker(self, engine: Engine) -> WorkerProcess:
        name = engine.environment or "gpt2flow"
        if engine.environment:
            _log(f"{engine.name}: environment")
            python = make_environment(engine.environment, self._work)
        else:
            python = Path(sys.executable)
        folder = self._work / name / "models" / self._model
        folder.mkdir(parents=True, exist_ok=True)
        setup = {**self._setup, "folder": str(folder), "variant": engine.variant}
        command = [str(python), "-m", f"peers.workers.{engine.worker}", json.dumps(setup)]
        return WorkerProcess(command, self._work / f"{engine.key}.log")


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
