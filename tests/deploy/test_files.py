"""Consistency of deploy/ with the command line, the images and published schemas."""

import configparser
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.deploy.conftest import Configured
from tests.support import command_line
from tests.support.dockerfile import DEPLOY, Stage, load, settings
from tests.support.waiting import SECONDS

PROJECT = DEPLOY.parent
BIN = Path(sys.executable).parent

COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def load_unit() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "systemd" / "gpt2flow.service")
    return parser["Service"]


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


@pytest.fixture(scope="module")
def stages() -> dict[str, Stage]:
    return load()


# Arguments that start a server, and the seconds that it has to stop (None: not limited).
SERVERS = {
    "Dockerfile": (settings(load(), "server")["CMD"].words, None),
    "compose": (
        COMPOSE["services"]["server"]["command"],
        seconds(COMPOSE["services"]["server"]["stop_grace_period"]),
    ),
    "systemd": (shlex.split(load_unit()["ExecStart"])[1:], seconds(load_unit()["TimeoutStopSec"])),
}


@pytest.mark.parametrize("name", SERVERS)
def test_serve_accepts_every_deployed_command(name: str, configured: Configured) -> None:
    arguments, stop_seconds = SERVERS[name]
    config = configured(arguments)
    assert list(config.models) == ["shop"]
    assert config.port == 50051
    if name == "systemd":
        assert config.host == "127.0.0.1"
    else:
        assert config.host == "0.0.0.0"  # noqa: S104 - inside a container
        assert config.models["shop"] == Path("/models/shop")
        assert config.telemetry.metrics_address == ("0.0.0.0", 9464)  # noqa: S104 - likewise
    if stop_seconds is not None:
        # Beyond the drain, the server needs time to flush and unload.
        assert stop_seconds >= config.drain_seconds + 10


def test_threads_follow_the_processor_limit() -> None:
    service = COMPOSE["services"]["server"]
    assert service["cpus"] == 2
    assert not [each for each in service["command"] if "threads" in each]


def test_images_run_as_an_unprivileged_numeric_user(stages: dict[str, Stage]) -> None:
    for target in ("server", "agent"):
        assert settings(stages, target)["USER"].rest == "10001:10001"


def test_containers_are_read_only_and_unprivileged() -> None:
    for service in COMPOSE["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["mem_limit"]
    assert COMPOSE["services"]["server"]["volumes"] == ["../models:/models:ro"]
    assert load_unit()["DynamicUser"] == "yes"
    assert load_unit()["ProtectSystem"] == "strict"


def test_targets_and_ports_exist(stages: dict[str, Stage]) -> None:
    for service in COMPOSE["services"].values():
        build = service["build"]
        assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() == DEPLOY / "Dockerfile"
        assert build["target"] in stages
    assert settings(stages, "server")["EXPOSE"].words == ["50051", "9464"]
    assert COMPOSE["services"]["server"]["ports"] == [
        "127.0.0.1:50051:50051",
        "127.0.0.1:9464:9464",
    ]


def test_the_build_context_holds_exactly_the_copied_files(stages: dict[str, Stage]) -> None:
    lines = (PROJECT / ".dockerignore").read_text().splitlines()
    kept = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = [i.words[:-1] for i in stages["build"].instructions if i.name == "COPY"]
    assert kept == {name for names in copied for name in names}
    assert all((PROJECT / name).exists() for name in kept)


def test_the_agent_reads_the_variables_that_its_image_sets(stages: dict[str, Stage]) -> None:
    variables = {
        key: value
        for i in stages["agent"].instructions
        if i.name == "ENV"
        for key, value in i.variables.items()
    }
    assert set(variables) == {"GPT2FLOW_ADDRESS", "GPT2FLOW_DATABASE"}
    _, help_text, _ = command_line.gpt2flow("agent", "run", "--help")
    assert all(name in help_text for name in variables)


def run_linter(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [BIN / arguments[0], *arguments[1:]]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)


def test_hadolint_accepts_the_dockerfile_but_no_untagged_base(tmp_path: Path) -> None:
    checked = run_linter("hadolint", DEPLOY / "Dockerfile")
    assert (checked.returncode, checked.stdout) == (0, "")
    invalid = tmp_path / "Dockerfile"
    invalid.write_text((DEPLOY / "Dockerfile").read_text().replace(":3.12-slim-bookworm", ""))
    assert "DL3006" in run_linter("hadolint", invalid).stdout


def test_the_compose_file_matches_the_published_schema(tmp_path: Path) -> None:
    schema = ("check-jsonschema", "--builtin-schema", "vendor.compose-spec")
    assert run_linter(*schema, DEPLOY / "compose.yaml").returncode == 0
    invalid = tmp_path / "compose.yaml"
    invalid.write_text((DEPLOY / "compose.yaml").read_text().replace("read_only:", "readonly:"))
    assert run_linter(*schema, invalid).returncode == 1


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_accepts_the_unit_and_its_exposure_is_low(tmp_path: Path) -> None:
    # systemd-analyze requires the executable to exist; another one replaces it here.
    text = (DEPLOY / "systemd" / "gpt2flow.service").read_text()
    path = tmp_path / "gpt2flow.service"
    path.write_text(text.replace("/opt/gpt2flow/bin/gpt2flow", str(BIN / "python")))
    checked = run_linter(shutil.which("systemd-analyze") or "", "verify", "--man=no", path)
    assert (checked.returncode, checked.stderr) == (0, "")
    analysed = run_linter(
        shutil.which("systemd-analyze") or "", "security", "--offline=yes", "--threshold=20", path
    )
    assert analysed.returncode == 0, analysed.stdout[-2000:]
