"""Carries a run out: finds the server, makes the requests, sweeps, survives Ctrl-C."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from gpt2flow.cli.load.figures import LevelFigures
from gpt2flow.cli.load.settings import Decoding, Level, Settings
from gpt2flow.cli.load.sweep import Sweep
from gpt2flow.cli.load.workload import (
    Request,
    drawn_requests,
    filed_requests,
    ordinary_tokens,
)
from gpt2flow.client import AsyncClient, BeamSearch, JsonSchema, Model, Options, Sampling, Security

# Of the calls before the load: enough for any server that is there.
_CALL_SECONDS = 10.0


@dataclass
class Outcome:
    """What came of a run, also of one that was cut short."""

    model: Model | None = None
    levels: Sequence[LevelFigures] = field(default_factory=list)
    interrupted: bool = False


def run(
    address: str, security: Security, settings: Settings, progress: Callable[[Level], None]
) -> Outcome:
    """Measures; Ctrl-C ends it with what was measured so far.

    Args:
        address: Of the server, `host:port`.
        security: TLS and token of the connection.
        settings: What to do.
        progress: Called with each request that ended, of those that count.

    Raises:
        ClientError: No server answers, or it has no such model.
        LoadError: The server's tokens cannot be used.
        SettingsError: The security is not usable.
    """
    outcome = Outcome()
    try:
        asyncio.run(_run(address, security, settings, progress, outcome))
    except KeyboardInterrupt:
        outcome.interrupted = True
    return outcome


async def _run(
    address: str,
    security: Security,
    settings: Settings,
    progress: Callable[[Level], None],
    outcome: Outcome,
) -> None:
    # A request that is tried again would hide what is measured.
    client = AsyncClient(address, timeout=_CALL_SECONDS, security=security, retry=None)
    async with client:
        outcome.model = await client.model(settings.model)
        sweep = Sweep(client, settings, await _requests(client, settings), progress)
        outcome.levels = sweep.figures
        await sweep.run()


async def _requests(client: AsyncClient, settings: Settings) -> Iterator[Request]:
    options, rng = _options(settings.decoding), Random(settings.seed)
    if settings.prompts is not None:
        return filed_requests(settings.prompts, settings.output_lengths, options, rng=rng)
    return drawn_requests(
        await ordinary_tokens(client, settings.model),
        settings.prompt_lengths,
        settings.output_lengths,
        options,
        shared_prefix=settings.shared_prefix,
        rng=rng,
    )


def _options(decoding: Decoding) -> Options:
    """What all requests ask for."""
    schema = decoding.json_schema
    return Options(
        decoding=BeamSearch(decoding.beams)
        if decoding.beams > 1
        else Sampling(temperature=decoding.temperature),
        # Lengths shall hold, except where the schema says what is complete.
        ignore_eos=schema is None,
        constraint=None if schema is None else JsonSchema(schema),
        token_ids=True,
    )
