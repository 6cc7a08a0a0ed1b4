"""Helm chart, rendered by Helm and checked against the published schemas."""

import itertools
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
from tests.deploy.conftest import Configured
from tests.support.chart import CHART, EVERYTHING, PASSWORD, Rendering, helm, refusal
from tests.support.dockerfile import load, settings
from tests.support.project import PROJECT

from gpt2flow.cli.main import build_app
from gpt2flow.server.telemetry.collector import GAUGES, VLLM_GAUGES

# The oldest version that the chart is for, and the newest with a schema here.
VERSIONS = ("1.30", "1.37")
WORKLOADS = [
    ("Deployment", "shop-server"),
    ("Deployment", "shop-agent"),
    ("StatefulSet", "shop-postgresql"),
]


@pytest.fixture(scope="module")
def default() -> Rendering:
    return Rendering()


@pytest.fixture(scope="module")
def everything() -> Rendering:
    return Rendering(EVERYTHING)


def test_helm_finds_no_fault_in_the_chart() -> None:
    for values in ({}, EVERYTHING):
        report = helm.lint(CHART, values, strict=True, kube_version=f"v{VERSIONS[0]}.0")
        assert report["errors"] == []
        assert [each for each in report["messages"] if each["severity"] > 1] == []


def test_the_chart_installs_the_images_of_this_version() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    with helm.Chart.load(CHART) as chart:
        assert chart.metadata["appVersion"] == project["version"]


@pytest.mark.parametrize("version", VERSIONS)
def test_objects_match_the_published_schema(
    default: Rendering, everything: Rendering, version: str
) -> None:
    for each in [*default.objects, *everything.objects]:
        kubernetes_validate.validate(each, version, strict=True)


def test_parts_that_are_off_have_no_object(default: Rendering, everything: Rendering) -> None:
    assert {each["metadata"]["name"] for each in default.objects} == {"shop-server"}
    kinds = [each["kind"] for each in default.objects]
    assert sorted(kinds) == ["Deployment", "NetworkPolicy", "PodDisruptionBudget", "Service"]
    assert len(everything.objects) == 13
    names = [(each["kind"], each["metadata"]["name"]) for each in everything.objects]
    assert len(set(names)) == len(names)


def test_selectors_select_the_pods_of_their_own_part_alone(everything: Rendering) -> None:
    second = Rendering(EVERYTHING, "second")
    pods = {
        name: rendered.get(kind, name)["spec"]["template"]["metadata"]["labels"]
        for rendered, release in ((everything, "shop"), (second, "second"))
        for kind, name in ((kind, name.replace("shop", release)) for kind, name in WORKLOADS)
    }
    assert len(pods) == 2 * len(WORKLOADS)
    for each in everything.objects:
        name, spec = each["metadata"]["name"], each.get("spec", {})
        selector = spec.get("selector") or spec.get("podSelector")
        if selector is not None:
            labels = selector.get("matchLabels", selector)
            assert [pod for pod, own in pods.items() if labels.items() <= own.items()] == [name]


def test_the_server_accepts_its_command(default: Rendering, configured: Configured) -> None:
    pod = default.pod("Deployment", "shop-server")
    [container] = pod["containers"]
    config = configured(container["args"])
    assert config.models == {"shop": Path("/models/shop")}
    assert (config.host, config.port) == ("0.0.0.0", 50051)  # noqa: S104 - inside a container
    assert config.telemetry.metrics_address == ("0.0.0.0", 9464)  # noqa: S104 - likewise
    # Beyond the drain, the server needs time to flush and unload.
    stop = (
        pod["terminationGracePeriodSeconds"] - container["lifecycle"]["preStop"]["sleep"]["seconds"]
    )
    assert stop >= config.drain_seconds + 10
    # The threads follow the limit.
    assert not [each for each in container["args"] if "threads" in each]
    assert container["resources"]["limits"]["cpu"] == "2"


def test_the_server_accepts_its_command_with_tls_and_tokens(
    everything: Rendering, configured: Configured
) -> None:
    [container] = everything.pod("Deployment", "shop-server")["containers"]
    config = configured(container["args"])
    assert config.security.tls_certificate == Path("/tls/tls.crt")
    assert config.security.tokens == Path("/tokens/tokens.toml")
    assert config.telemetry.metrics_tls
    mounts = {each["mountPath"] for each in container["volumeMounts"]}
    assert mounts == {"/models", "/tls", "/tokens"}
    # Not a number, which Helm would write as 1e+06.
    variable = {"name": "GPT2FLOW_SERVER_MAX_QUEUED", "value": "1000000"}
    assert container["env"] == [variable]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert_parsed(container[probe]["exec"]["command"][1:])


def test_the_agent_accepts_its_command(everything: Rendering) -> None:
    pod = everything.pod("Deployment", "shop-agent")
    [container] = pod["containers"]
    parsed = assert_parsed(container["args"])
    assert parsed["server"] == "shop-server:50051"
    stop = (
        pod["terminationGracePeriodSeconds"] - container["lifecycle"]["preStop"]["sleep"]["seconds"]
    )
    assert stop >= parsed["drain_seconds"] + 10
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    [database] = [each for each in container["env"] if each["name"] == "GPT2FLOW_DATABASE"]
    secret = everything.get("Secret", database["valueFrom"]["secretKeyRef"]["name"])
    url = f"postgresql://gpt2flow:{PASSWORD}@shop-postgresql:5432/gpt2flow"
    assert secret["stringData"] == {"password": PASSWORD, "url": url}


def assert_parsed(arguments: list[str]) -> dict[str, Any]:
    """Parse a command without running it, and return its parameters."""
    command: Any = typer.main.get_command(build_app())
    while arguments and not arguments[0].startswith("-"):
        command, arguments = command.commands[arguments[0]], arguments[1:]
    with command.make_context("gpt2flow", list(arguments)) as context:
        return dict(context.params)


def test_the_probes_of_plain_text_are_those_of_grpc(default: Rendering) -> None:
    [container] = default.pod("Deployment", "shop-server")["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["grpc"] == {"port": 50051}


def test_ports_are_named_once_and_allowed(everything: Rendering) -> None:
    for kind, name in WORKLOADS:
        [container] = everything.pod(kind, name)["containers"]
        ports = {each["name"]: each["containerPort"] for each in container["ports"]}
        for each in everything.get("Service", name)["spec"]["ports"]:
            assert each["targetPort"] in ports
        policy = everything.get("NetworkPolicy", name)["spec"]
        allowed = [each["port"] for rule in policy["ingress"] for each in rule["ports"]]
        assert sorted(allowed) == sorted(ports.values())
        assert all(rule["from"] for rule in policy["ingress"])
        assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert everything.get("NetworkPolicy", "shop-postgresql")["spec"]["egress"] == []
    image = settings(load(), "server")["EXPOSE"].words
    [server] = everything.pod("Deployment", "shop-server")["containers"]
    assert [str(each["containerPort"]) for each in server["ports"]] == image


def test_the_server_calls_nobody(default: Rendering) -> None:
    assert default.get("NetworkPolicy", "shop-server")["spec"]["egress"] == []


def test_pods_are_unprivileged(everything: Rendering) -> None:
    for kind, name in WORKLOADS:
        pod = everything.pod(kind, name)
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        [container] = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        mounted = {each["name"] for each in container["volumeMounts"]}
        claims = everything.get(kind, name)["spec"].get("volumeClaimTemplates", [])
        volumes = [each["name"] for each in pod["volumes"]]
        assert mounted == {*volumes, *(each["metadata"]["name"] for each in claims)}
    for name in ("shop-server", "shop-agent"):
        context = everything.pod("Deployment", name)["securityContext"]
        assert (context["runAsUser"], context["runAsGroup"]) == (10001, 10001)


def test_the_autoscaler_scales_on_a_metric_that_the_server_has(everything: Rendering) -> None:
    scaler = everything.get("HorizontalPodAutoscaler", "shop-server")["spec"]
    [metric] = scaler["metrics"]
    names = {f"gpt2flow_{name}" for name in GAUGES} | set(VLLM_GAUGES)
    assert metric["pods"]["metric"]["name"] in names
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": "2"}
    target = scaler["scaleTargetRef"]
    # Replicas of the chart would undo the autoscaler's at each upgrade.
    assert "replicas" not in everything.get(target["kind"], target["name"])["spec"]


def test_any_value_may_be_set_alone() -> None:
    """Every leaf of values.yaml is a value that the schema admits."""
    with helm.Chart.load(CHART) as chart:
        values = chart.values
        for path in leaves(values):
            value: Any = values
            for key in path:
                value = value[key]
            for key in reversed(path):
                value = {key: value}
            chart.validate_schema(value)


def leaves(values: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the paths of all values that are no tables."""
    nested = [
        [(key, *path) for path in leaves(value)] if isinstance(value, dict) else [(key,)]
        for key, value in values.items()
    ]
    return list(itertools.chain.from_iterable(nested))


@pytest.mark.parametrize(
    "values,expected",
    [
        ({"sever": {}}, "sever"),
        ({"server": {"replica": 2}}, "replica"),
        ({"server": {"replicas": "two"}}, "/server/replicas"),
        ({"server": {"replicas": -1}}, "/server/replicas"),
        ({"server": {"models": []}}, "/server/models"),
        ({"server": {"models": [{"name": "a=b", "path": "x"}]}}, "/server/models/0/name"),
        ({"server": {"models": [{"name": "a", "path": "/x"}]}}, "/server/models/0/path"),
        ({"server": {"modelsClaim": ""}}, "/server/modelsClaim"),
        ({"server": {"env": {"GPT2FLOW_SERVER_MAX_QUEUED": 64}}}, "/server/env/GPT2FLOW_SERVER"),
        ({"server": {"env": {"PATH": "/bin"}}}, "/server/env"),
        ({"server": {"resources": {"limits": {"cpu": "two"}}}}, "/server/resources/limits/cpu"),
        ({"server": {"autoscaling": {"waitingPerReplica": 0}}}, "waitingPerReplica"),
        (
            {"server": {"autoscaling": {"enabled": True, "minReplicas": 9}}},
            "server.autoscaling.minReplicas is 9, must be at most maxReplicas, 8",
        ),
        ({"server": {"disruptionBudget": {"maxUnavailable": 0}}}, "maxUnavailable"),
        ({"agent": {"enabled": True}}, "agent.databaseSecret or postgresql.enabled must be set"),
        (
            {"agent": {"enabled": True, "databaseSecret": "d"}},
            "agent.webhookSecret must be set",
        ),
        ({"postgresql": {"enabled": True}}, "postgresql.password must be set"),
        ({"postgresql": {"password": "short"}}, "/postgresql/password"),
        ({"postgresql": {"password": "a@b/c:d?e#f%g&h+i"}}, "/postgresql/password"),
        ({"postgresql": {"storage": {"size": "much"}}}, "/postgresql/storage/size"),
    ],
)
def test_a_bad_value_is_refused_by_name(values: dict[str, Any], expected: str) -> None:
    assert expected in refusal(values)


def test_a_database_elsewhere_needs_no_postgresql() -> None:
    agent = {"enabled": True, "webhookSecret": "w", "databaseSecret": "elsewhere"}
    rendered = Rendering({"agent": agent})
    [container] = rendered.pod("Deployment", "shop-agent")["containers"]
    [variable] = container["env"]
    assert variable["valueFrom"]["secretKeyRef"] == {"name": "elsewhere", "key": "url"}
    assert "StatefulSet" not in {each["kind"] for each in rendered.objects}


def test_the_notes_name_the_address(default: Rendering, everything: Rendering) -> None:
    assert "shop-server.prod:50051, gRPC in plain text" in default.notes
    assert "shop-server.prod:50051, gRPC with TLS" in everything.notes
    assert "http://shop-agent.prod/v1/messages" in everything.notes
