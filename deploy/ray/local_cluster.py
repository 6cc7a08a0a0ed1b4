"""Local Ray cluster with `serve.yaml`, driven by standard input.

It prints `ready` once the replicas serve, and then answers each line: `kill` kills one replica and
prints its process id, any other prints how many replicas run. It stops at the end of the input.
"""

import argparse
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
import yaml
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

DEPLOY = Path(__file__).parent
_START_SECONDS = 120.0


def read_config(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the shipped settings, with the ports of this run."""
    config: dict[str, Any] = yaml.safe_load((DEPLOY / "serve.yaml").read_text(encoding="utf-8"))
    config["grpc_options"]["port"] = arguments.port
    config["http_options"]["port"] = arguments.http_port
    (application,) = config["applications"]
    application["args"] = {"config": arguments.config}
    (deployment,) = application["deployments"]
    if arguments.replicas:
        del deployment["autoscaling_config"]
        deployment["num_replicas"] = arguments.replicas
    return config


def replica_pids() -> list[int]:
    """Return the process ids of the running replicas."""
    details = _get_global_client().get_serve_details()
    replicas = details["applications"]["gpt2flow"]["deployments"]["Inference"]["replicas"]
    return [each["pid"] for each in replicas if each["state"] == "RUNNING"]


def wait_until_running(count: int) -> None:
    """Return when the application and its replicas run.

    Raises:
        TimeoutError: They do not.
    """
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        application = serve.status().applications["gpt2flow"]
        if application.status == "RUNNING" and len(replica_pids()) >= count:
            return
        if application.status == "DEPLOY_FAILED":
            break
        time.sleep(0.2)
    raise TimeoutError(f"the application is {application.status}: {application.message}")


def answer(line: str) -> str:
    """Carry out a line, and return what to print."""
    pids = replica_pids()
    if line != "kill":
        return str(len(pids))
    for pid in pids:
        # Ray may not have seen yet that a process has died.
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return str(pid)
    return "0"


def main() -> None:
    """Run the cluster until the end of the input."""
    # Ray prints to standard output too.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--http-port", type=int, required=True)
    parser.add_argument("--replicas", type=int, default=0)
    arguments = parser.parse_args()
    # The proxy and the replicas import the application.
    os.environ["PYTHONPATH"] = str(DEPLOY)
    # Replicas ask for one each; there may be fewer processors, or the proxy's.
    ray.init(num_cpus=max(arguments.replicas, 4), include_dashboard=False, log_to_driver=False)
    config = ServeDeploySchema.model_validate(read_config(arguments))
    serve.start(
        proxy_location=config.proxy_location,
        http_options=config.http_options.model_dump(),
        grpc_options=config.grpc_options.model_dump(),
    )
    try:
        _get_global_client().deploy_apps(config)
        wait_until_running(arguments.replicas or 1)
        print("ready", file=answers)
        for line in sys.stdin:
            print(answer(line.strip()), file=answers)
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
