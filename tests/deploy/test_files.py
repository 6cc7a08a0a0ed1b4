"""Consistency of deploy/ with the command line, the images and published schemas."""

import configparser
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml
from tests.support import command_line
from tests.support.dockerfile import DEPLOY, Stage, load, settings
from tests.support.waiting import SECONDS

import gpt2flow.server
from gpt2flow.cli.main import app

PROJECT = DEPLOY.parent
BIN = Path(sys.executable).parent

COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
DEPLOYMENT, SERVICE = yaml.safe_load_all((DEPLOY / "kubernetes" / "server.yaml").read_text())
POD: dict[str, Any] = DEPLOYMENT["spec"]["template"]["spec"]
CONTAINER: dict[str, Any] = POD["containers"][0]


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


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs `serve` and returns the server's settings."""

    def run(arguments: list[str]) -> gpt2flow.server.ServerConfig:
        configs: list[gpt2flow.server.ServerConfig] = []
        monkeypatch.setattr(gpt2flow.server, "serve", lambda config, *_: configs.append(config))
        typer.main.get_command(app).main(arguments, standalone_mode=False)
        return configs[0]

    return run


# Arguments that start a server, and the seconds that it has to stop (None: not limited).
SERVERS = {
    "Dockerfile": (settings(load(), "server")["CMD"].words, None),
    "compose": (
        COMPOSE["services"]["server"]["command"],
        seconds(COMPOSE["services"]["server"]["stop_grace_period"]),
    ),
    "systemd": (shlex.split(load_unit()["ExecStart"])[1:], seconds(load_unit()["TimeoutStopSec"])),
    "kubernetes": (
        CONTAINER["args"],
        POD["terminationGracePeriodSeconds"]
        - CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"],
    ),
}


@pytest.mark.parametrize("name", SERVERS)
def test_serve_accepts_every_deployed_command(name: str, configured: Any) -> None:
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


@pytest.mark.parametrize("name", ["compose", "kubernetes"])
def test_threads_equal_the_processor_limit(name: str, configured: Any) -> None:
    limits = {
        "compose": COMPOSE["services"]["server"]["cpus"],
        "kubernetes": CONTAINER["resources"]["limits"]["cpu"],
    }
    assert configured(SERVERS[name][0]).engine.threads == int(limits[name])


def test_images_run_as_an_unprivileged_numeric_user(stages: dict[str, Stage]) -> None:
    for target in ("server", "agent"):
        assert settings(stages, target)["USER"].rest == "10001:10001"
    context = POD["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"]) == (10001, 10001)
    assert context["runAsNonRoot"] is True


def test_containers_are_read_only_and_unprivileged() -> None:
    for service in COMPOSE["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["mem_limit"]
    assert COMPOSE["services"]["server"]["volumes"] == ["../models:/models:ro"]
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert all(mount["readOnly"] for mount in CONTAINER["volumeMounts"])
    assert load_unit()["DynamicUser"] == "yes"
    assert load_unit()["ProtectSystem"] == "strict"


def test_targets_ports_and_probes_exist(stages: dict[str, Stage]) -> None:
    for service in COMPOSE["services"].values():
        build = service["build"]
        assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() == DEPLOY / "Dockerfile"
        assert build["target"] in stages
    assert settings(stages, "server")["EXPOSE"].words == ["50051", "9464"]
    assert COMPOSE["services"]["server"]["ports"] == [
        "127.0.0.1:50051:50051",
        "127.0.0.1:9464:9464",
    ]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert CONTAINER[probe]["grpc"]["port"] == 50051
    assert [port["containerPort"] for port in CONTAINER["ports"]] == [50051, 9464]
    assert DEPLOYMENT["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"] == "9464"
    assert SERVICE["spec"]["ports"][0]["targetPort"] == CONTAINER["ports"][0]["name"]
    assert SERVICE["spec"]["selector"] == DEPLOYMENT["spec"]["selector"]["matchLabels"]


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


def test_kubernetes_objects_match_the_published_schema() -> None:
    for item in (DEPLOYMENT, SERVICE):
        kubernetes_validate.validate(item, "1.34", strict=True)


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
