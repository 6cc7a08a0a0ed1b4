"""Helm chart of deploy/, rendered by Helm's own library."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.dockerfile import DEPLOY

# Its wheels are not for every platform.
helm = pytest.importorskip("helm_python")

CHART = DEPLOY / "helm" / "gpt2flow"
PASSWORD = "0123456789abcdef"  # noqa: S105 - of no database
# Values with which every template writes something.
EVERYTHING: dict[str, Any] = {
    "server": {
        "tls": {"secret": "tls"},
        "tokens": {"secret": "tokens"},
        "env": {"GPT2FLOW_SERVER_MAX_QUEUED": "1000000"},
        "autoscaling": {"enabled": True},
        "networkPolicy": {"egress": [{"ports": [{"port": 4317, "protocol": "TCP"}]}]},
    },
    "agent": {
        "enabled": True,
        "webhookSecret": "webhook",
        "tokenSecret": "token",
        "env": {"GPT2FLOW_PAYMENTS": "http://payments:8080"},
        "networkPolicy": {"egress": [{"ports": [{"port": 8080, "protocol": "TCP"}]}]},
    },
    "postgresql": {
        "enabled": True,
        "password": PASSWORD,
        "storage": {"className": "fast"},
    },
}


class Rendering:
    """Objects of a release.

    Attributes:
        objects: All objects of all templates.
        notes: Text that Helm shows after an installation.
    """

    def __init__(self, values: dict[str, Any] | None = None, release: str = "shop") -> None:
        with helm.Chart.load(CHART) as chart:
            chart.validate_schema(values)
            templates = chart.render(values, name=release, namespace="prod")
        self.notes = templates.pop("gpt2flow/templates/NOTES.txt")
        texts = [text for name, text in templates.items() if not Path(name).stem.startswith("_")]
        self.objects = [each for text in texts for each in yaml.safe_load_all(text) if each]

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """Return the only object of a kind and name."""
        [found] = [
            each
            for each in self.objects
            if (each["kind"], each["metadata"]["name"]) == (kind, name)
        ]
        return dict(found)

    def pod(self, kind: str, name: str) -> dict[str, Any]:
        """Return the pod's specification of a workload."""
        template: dict[str, Any] = self.get(kind, name)["spec"]["template"]["spec"]
        return template


def refusal(values: dict[str, Any]) -> str:
    """Return the text with which Helm refuses values, in one line."""
    with pytest.raises(helm.HelmError) as caught:
        Rendering(values)
    return re.sub(r"\s+", " ", str(caught.value))
