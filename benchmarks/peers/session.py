"""One run: engines are made ready, then take turns at every measurement, several times."""

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
# What wakes an engine at the start of its turn.
_WAKE = (16, 8)


@dataclass
class Result:
    """What came of one engine.

    Attributes:
        engine: Which.
        missing: Why it could not take part at all, if so.
        about: Versions and sizes.
        samples: Figures of each repeat by key.
        failures: Why a measurement came to nothing, by its key.
    """

    engine: Engine
    missing: str | None = None
    about: dict[str, Any] = field(default_factory=dict)
    samples: dict[str, list[float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


class Session:
    """The workers of a run; a context that ends them.

    Args:
        work: Where environments, models and logs stay.
        setup: The fields of a worker's setup, but folder and variant.
        model: A name for the checkpoint, so that models of two are never mixed up.
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
        """Install, converts and loads; what goes wrong is the result's `missing`."""
        result = Result(engine)
        worker = None
        try:
            worker = self._worker(engine)
            _say(f"{engine.title}: preparing")
            worker.ask("prepare", seconds=_PREPARE_SECONDS)
            result.about = worker.ask("load", seconds=_LOAD_SECONDS)
        except (EnvironmentFailedError, WorkerError) as error:
            result.missing = str(error)
            _say(f"{engine.title} is missing: {error}")
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
        """Has all engines take turns; the first round warms up and does not count.

        Yields after every round that counts.
        """
        order = [result for result in results if result.missing is None]
        for turn in range(repeats + 1):
            _say(f"round {turn} of {repeats}" if turn else "warming up")
            for measurement in measurements:
                if measurement.fresh and turn != repeats:
                    continue
                _say(f"  {measurement.key}")
                requests = measurement.requests(prompts)
                for result in order:
                    if measurement.key in result.engine.can and result.missing is None:
                        self._one(result, measurement, requests, prompts, counts=turn > 0)
            order.reverse()
            if turn:
                yield

    def _one(
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
        with worker.turn():
            try:
                if measurement.fresh:
                    worker.ask("load", seconds=_LOAD_SECONDS)
                else:
                    wake = [prompts.take(length)]
                    worker.ask("stream", seconds=_LOAD_SECONDS, prompts=wake, new_tokens=tokens)
                answers = [
                    worker.ask(do, seconds=_MEASURE_SECONDS, **arguments)
                    for do, arguments in requests
                ]
                figures = measurement.figures(answers)
            except (WorkerError, ValueError) as error:
                result.failures[measurement.key] = str(error)
                _say(f"{result.engine.title}, {measurement.key}: {error}")
                if worker.ended:
                    result.missing = str(error)
                return
        if counts:
            for key, value in figures.items():
                result.samples.setdefault(key, []).append(value)

    def _worker(self, engine: Engine) -> WorkerProcess:
        name = engine.environment or "gpt2flow"
        if engine.environment:
            _say(f"{engine.title}: environment")
            python = make_environment(engine.environment, self._work)
        else:
            python = Path(sys.executable)
        folder = self._work / name / "models" / self._model
        folder.mkdir(parents=True, exist_ok=True)
        setup = {**self._setup, "folder": str(folder), "variant": engine.variant}
        command = [str(python), "-m", f"peers.workers.{engine.worker}", json.dumps(setup)]
        return WorkerProcess(command, self._work / f"{engine.key}.log")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
