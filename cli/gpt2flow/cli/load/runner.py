"""One benchmark run, from the connection to the figures of its levels."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from gpt2flow.cli.load.figures import LevelFigures
from gpt2flow.cli.load.settings import Decoding, Level, Settings
from gpt2flow.cli.load.sweep import Sweep
from gpt2flow.cli.load.workload import (
    Request,
    fetch_token_pool,
    file_requests,
    random_requests,
)
from gpt2flow.client import AsyncClient, BeamSearch, JsonSchema, Model, Options, Sampling, Security

# Timeout in seconds of the calls before the load: ample for a server that is reachable.
_SETUP_TIMEOUT = 10.0


@dataclass
class RunResult:
    """Result of a run, partial if it was interrupted.

    Attributes:
        model: The measured model; None if the run ended before the server described it.
        levels: Figures of the measured levels.
        interrupted: True if Ctrl-C ended the run.
    """

    model: Model | None = None
    levels: Sequence[LevelFigures] = field(default_factory=list)
    interrupted: bool = False


def run(
    address: str, security: Security, settings: Settings, progress: Callable[[Level], None]
) -> RunResult:
    """Measure all levels; Ctrl-C returns the figures so far.

    Args:
        address: Address of the server, as `host:port` or `unix:PATH`.
        security: TLS and token of the connection.
        settings: Settings of the run.
        progress: Callback for each measured request that ends.

    Raises:
        ClientError: The server cannot be reached, or has no such model.
        LoadError: The model encodes English text into no tokens.
        SettingsError: The security settings are invalid.
    """
    result = RunResult()
    try:
        asyncio.run(_run(address, security, settings, progress, result))
    except KeyboardInterrupt:
        result.interrupted = True
    return result


async def _run(
    address: str,
    security: Security,
    settings: Settings,
    progress: Callable[[Level], None],
    result: RunResult,
) -> None:
    # Retries would hide failures and distort latencies.
    client = AsyncClient(address, timeout=_SETUP_TIMEOUT, security=security, retry=None)
    async with client:
        result.model = await client.model(settings.model)
        sweep = Sweep(client, settings, await _requests(client, settings), progress)
        # The same list, so that the figures survive an interrupt of the sweep.
        result.levels = sweep.figures
        await sweep.run()


async def _requests(client: AsyncClient, settings: Settings) -> Iterator[Request]:
    options, rng = _options(settings.decoding), Random(settings.seed)
    if settings.prompts is not None:
        return file_requests(settings.prompts, settings.output_lengths, options, rng=rng)
    return random_requests(
        await fetch_token_pool(client, settings.model),
        settings.prompt_lengths,
        settings.output_lengths,
        options,
        shared_prefix=settings.shared_prefix,
        rng=rng,
    )


def _options(decoding: Decoding) -> Options:
    """Return the options that all requests share."""
    schema = decoding.json_schema
    return Options(
        decoding=BeamSearch(decoding.beams)
        if decoding.beams > 1
        else Sampling(temperature=decoding.temperature),
        # Output lengths are exact, except where a schema decides when the output is complete.
        ignore_eos=schema is None,
        constraint=None if schema is None else JsonSchema(schema),
        token_ids=True,
    )
