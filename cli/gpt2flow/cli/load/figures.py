"""From the requests of one level to its figures."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gpt2flow.cli.load.generator_load import GeneratorLoad
from gpt2flow.cli.load.measurements import OK, Limits, Percentiles, Record, spread

# A start that is later than this, in seconds, is counted: the schedule was not kept.
LATE = 0.01


@dataclass(frozen=True)
class LevelFigures:
    """What one level came to. Spreads are in milliseconds, rates a second.

    Only requests that succeeded count in spreads and rates.

    Attributes:
        level: As shown.
        complete: Whether it ran to its end, rather than to an interrupt.
        seconds: From its start to the end of its last request.
        requests: That ended, well or not.
        succeeded: Of these, those that ended well.
        errors: How many ended with each status.
        details: What the server first said with each status.
        late_starts: Requests that were sent more than 10 ms after they were due.
        start_delay_ms: How late requests were sent.
        ttft_ms: To the first token.
        itl_ms: For each token after the first message.
        message_gap_ms: Between messages with tokens.
        e2e_ms: To the end.
        prompt_tokens: Of all prompts.
        cached_tokens: Of these, those whose cache was reused.
        output_tokens: Produced.
        goodput: Requests a second that kept the limits; None without limits.
        generator: How busy the generator itself was.
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
    began: float,
    strain: GeneratorLoad,
    *,
    limits: Limits | None = None,
    complete: bool = True,
) -> LevelFigures:
    """Sum up the requests of a level that began at a time of their clock.

    Args:
        level: As shown.
        records: Its requests; at least one.
        began: When the level began.
        strain: How busy the generator was.
        limits: Of goodput, if wanted.
        complete: Whether the level ran to its end.
    """
    good = [record for record in records if record.status == OK]
    failed = [record for record in records if record.status != OK]
    seconds = max(max(record.ended for record in records) - began, 1e-9)
    prompt_tokens = sum(record.prompt_tokens for record in good)
    output_tokens = sum(record.output_tokens for record in good)
    kept = None if limits is None else sum(map(limits.kept, good))
    return LevelFigures(
        level=level,
        complete=complete,
        seconds=seconds,
        requests=len(records),
        succeeded=len(good),
        errors=dict(Counter(record.status for record in failed)),
        details={record.status: record.detail for record in reversed(failed)},
        late_starts=sum(record.lateness > LATE for record in records),
        start_delay_ms=_milliseconds(record.lateness for record in records),
        ttft_ms=_milliseconds(record.ttft for record in good),
        itl_ms=_milliseconds(gap for record in good for gap in record.inter_token),
        message_gap_ms=_milliseconds(gap for record in good for gap in record.message_gaps),
        e2e_ms=_milliseconds(record.e2e for record in good),
        prompt_tokens=prompt_tokens,
        cached_tokens=sum(record.cached_tokens for record in good),
        output_tokens=output_tokens,
        requests_per_second=len(good) / seconds,
        prompt_tokens_per_second=prompt_tokens / seconds,
        output_tokens_per_second=output_tokens / seconds,
        goodput=None if kept is None else kept / seconds,
        generator=strain,
    )


def _milliseconds(seconds: Iterable[float | None]) -> Percentiles | None:
    return spread(value * 1000 for value in seconds if value is not None)
