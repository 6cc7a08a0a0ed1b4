"""Sends one request and writes down what comes when."""

from time import perf_counter

from gpt2flow.cli.load.measurements import NOT_STARTED, OK, Arrival, Record, with_uncounted
from gpt2flow.cli.load.workload import Request
from gpt2flow.client import AsyncClient, ClientError, Delta, Generation


async def send(
    client: AsyncClient,
    request: Request,
    *,
    seconds: float,
    model: str = "",
    due: float | None = None,
) -> Record:
    """Streams one request to its end; a failure is a record too.

    Args:
        client: Sends it.
        request: Its options should ask for token ids, which are what is counted.
        seconds: It may take, from when it was due.
        model: The model; empty is the server's first.
        due: When it should have started, as `time.perf_counter`; now, if absent.
    """
    started = perf_counter()
    due = started if due is None else due
    left = due + seconds - started
    if left <= 0:
        return Record(due, started, started, NOT_STARTED, f"still waiting after {seconds:g} s")
    arrivals: list[Arrival] = []
    end: Generation | None = None
    status, detail = OK, ""
    try:
        async for item in client.stream(request.prompt, request.options, model=model, timeout=left):
            if isinstance(item, Delta):
                arrivals.append(Arrival(perf_counter(), len(item.token_ids)))
            else:
                end = item
    except ClientError as error:
        status, detail = error.code.name, str(error)
    ended = perf_counter()
    if end is None:
        return Record(due, started, ended, status, detail, arrivals)
    usage = end.usage
    return Record(
        due,
        started,
        ended,
        status,
        detail,
        with_uncounted(arrivals, usage.completion_tokens, ended),
        usage.prompt_tokens,
        usage.cached_tokens,
    )
