"""Live figures of the model server, from its Prometheus endpoint."""

from collections import defaultdict
from typing import Any, Final
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

from prometheus_client.parser import text_string_to_metric_families

from gpt2flow.console.errors import ConsoleConfigError

_SECONDS: Final = 2.0
_MAX_BYTES: Final = 4_000_000
# Figures of the page by the sample that they are the sum of, over all models.
_SAMPLES: Final = {
    "gpt2flow_requests_running": "running",
    "gpt2flow_requests_waiting": "waiting",
    "gpt2flow_completion_tokens_total": "completion_tokens",
    "gpt2flow_prompt_tokens_total": "prompt_tokens",
    "gpt2flow_cached_tokens_total": "cached_tokens",
    "gpt2flow_time_to_first_token_seconds_sum": "first_token_seconds",
    "gpt2flow_time_to_first_token_seconds_count": "first_tokens",
    "gpt2flow_time_per_output_token_seconds_sum": "per_token_seconds",
    "gpt2flow_time_per_output_token_seconds_count": "per_tokens",
}


class MetricsError(Exception):
    """Endpoint that does not answer, or with something else."""


def check_metrics_url(url: str) -> None:
    """Validate the address of a Prometheus endpoint.

    Raises:
        ConsoleConfigError: It has another form.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConsoleConfigError(f"metrics is {url!r}, must be http://host:port/metrics")


def read_figures(url: str) -> dict[str, float]:
    """Return the figures of the server; counters count from its start.

    Args:
        url: Address of the endpoint.

    Raises:
        MetricsError: The endpoint does not answer, or with something else.
    """
    # The server is near; a proxy of the environment is for the world outside.
    opener = build_opener(ProxyHandler({}))
    try:
        with opener.open(url, timeout=_SECONDS) as response:
            text = response.read(_MAX_BYTES).decode("utf-8")
        return _parse(text)
    except URLError as error:
        raise MetricsError(f"{url}: {error.reason}") from error
    except (OSError, ValueError) as error:
        raise MetricsError(f"{url}: {error}") from error


def _parse(text: str) -> dict[str, float]:
    found: defaultdict[str, float] = defaultdict(float)
    families: Any = text_string_to_metric_families(text)
    for family in families:
        for sample in family.samples:
            if (name := _SAMPLES.get(sample.name)) is not None:
                found[name] += sample.value
    return {name: found[name] for name in _SAMPLES.values()}
