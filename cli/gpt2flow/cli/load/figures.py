"""Summary figures of one load level."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gpt2flow.cli.load.generator_load import GeneratorLoad
from gpt2flow.cli.load.measurements import OK, LatencyLimits, Percentiles, Record, percentiles

# Seconds after its scheduled time from which a start counts as late.
LATE_START = 0.01


@dataclass(frozen=True)
class LevelFigures:
    """Figures of one load level: latencies in milliseconds, rates per second.

    Latencies (but not start delays), token counts and rates cover successful requests only.

    Attributes:
        level: Label of the level, such as `concurrency 8`.
        complete: False if the level was interrupted.
        seconds: Duration from the start of the level to the end of its last request.
        requests: Number of requests that ended, successful or not.
        succeeded: Number of successful requests.
        errors: Number of failed requests per status.
        details: First error message per status.
        late_starts: Number of requests sent more than 10 ms after their scheduled time.
        start_delay_ms: Delay of starts after their scheduled time, of all requests.
        ttft_ms: Time to first token.
        itl_ms: Inter-token latency of each token after the first chunk.
        message_gap_ms: Time between consecutive stream messages with tokens.
        e2e_ms: End-to-end latency.
        prompt_tokens: Number of prompt tokens.
        cached_tokens: Number of prompt tokens taken from the prefix cache.
        output_tokens: Number of generated tokens.
        requests_per_second: Successful requests per second.
        prompt_tokens_per_second: Prompt tokens per second.
        output_tokens_per_second: Generated tokens per second.
        goodput: Requests per second within the latency limits; None without limits.
        generator: Load of the generator itself.
    """

    level: str
    complete: bool
    seconds: float
    requests: int
    succeeded: int
    errors: dict[str, int]
    details: dict[str, str]
    late_starts: int
    start_delay_ms: Percentiles | None
    ttft_ms: Percentiles | None
    itl_ms: Percentiles | None
    message_gap_ms: Percentiles | None
    e2e_ms: Percentiles | None
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    requests_per_second: float
    prompt_tokens_per_second: float
    output_tokens_per_second: float
    goodput: float | None
    generator: GeneratorLoad


def level_figures(
    level: str,
    records: Sequence[Record],
    started: float,
    generator: GeneratorLoad,
    *,
    limits: LatencyLimits | None = None,
    complete: bool = True,
) -> LevelFigures:
    """Summarize the requests of one level.

    Args:
        level: Label of the level.
        records: Measurements of its requests, at least one.
        started: Start of the level, on the clock of the records.
        generator: Load of the generator during the level.
        limits: Latency limits of goodput; None omits goodput.
        complete: False if the level was interrupted.
    """
    successes = [record for record in records if record.status == OK]
    failures = [record for record in records if record.status != OK]
    seconds = max(max(record.ended for record in records) - started, 1e-9)
    prompt_tokens = sum(record.prompt_tokens for record in successes)
    output_tokens = sum(record.output_tokens for record in successes)
    within_limits = None if limits is None else sum(map(limits.met_by, successes))
    return LevelFigures(
        level=level,
        complete=complete,
        seconds=seconds,
        requests=len(records),
        succeeded=len(successes),
        errors=dict(Counter(record.status for record in failures)),
        # Reversed, so that the first message of a status wins.
        details={record.status: record.detail for record in reversed(failures)},
        late_starts=sum(record.start_delay > LATE_START for record in records),
        start_delay_ms=_milliseconds(record.start_delay for record in records),
        ttft_ms=_milliseconds(record.ttft for record in successes),
        itl_ms=_milliseconds(latency for record in successes for latency in record.inter_token),
        message_gap_ms=_milliseconds(gap for record in successes for gap in record.chunk_gaps),
        e2e_ms=_milliseconds(record.e2e for record in successes),
        prompt_tokens=prompt_tokens,
        cached_tokens=sum(record.cached_tokens for record in successes),
        output_tokens=output_tokens,
        requests_per_second=len(successes) / seconds,
        prompt_tokens_per_second=prompt_tokens / seconds,
        output_tokens_per_second=output_tokens / seconds,
        goodput=None if within_limits is None else within_limits / seconds,
        generator=generator,
    )


def _milliseconds(seconds: Iterable[float | None]) -> Percentiles | None:
    return percentiles(value * 1000 for value in seconds if value is not None)
