"""Layout of the project: namespace packages and their allowed imports."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tests.support.project import PROJECT

ROOTS = [
    *("agent", "cli", "client", "console", "export", "files", "gateway", "native", "protos"),
    *("reports", "server", "storefront", "training", "web"),
]

# Allowed imports of each component, as `gpt2flow.<name>` prefixes.
ALLOWED = {
    "client": {"client", "inference"},
    "server": {"server", "inference", "files", "native"},
    "files": {"files"},
    "native": {"native"},
    "export": {"export", "server.bundle", "files", "native"},
    "web": {"web", "files"},
    "reports": {"reports"},
    "agent": {"agent", "client", "files", "reports", "web"},
    "gateway": {"gateway", "client", "files", "web"},
    "console": {"console", "agent", "client", "files", "web"},
    "storefront": {"storefront", "agent", "client", "files", "web"},
    "training": {
        "training",
        "files",
        "reports",
        # The corpus is generated from the agent's flows, so that the two cannot drift apart.
        "agent.flows",
    },
    "cli": {
        *("cli", "files", "client", "server", "export", "agent", "console", "gateway", "training"),
        *("reports", "storefront"),
        "inference",
    },
}
# Packages that must stay out of a component, so that its process stays small.
FORBIDDEN = {
    "client": {"numpy", "onnxruntime", "torch", "transformers", "pydantic", "sqlalchemy"},
    "server": {"torch", "transformers", "optimum", "onnx", "sqlalchemy", "dbos"},
    "agent": {"onnxruntime", "torch", "transformers", "numpy", "tokenizers", "llguidance"},
    "gateway": {"numpy", "onnxruntime", "torch", "transformers", "tokenizers", "sqlalchemy"},
    "console": {"onnxruntime", "torch", "transformers", "numpy", "tokenizers", "dbos"},
    "storefront": {"onnxruntime", "torch", "transformers", "numpy", "tokenizers", "dbos"},
    "training": {"onnxruntime", "sqlalchemy", "dbos"},
}


def sources(component: str) -> list[Path]:
    return sorted((PROJECT / component / "gpt2flow" / component).rglob("*.py"))


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("root", ROOTS)
def test_the_namespace_package_has_no_init(root: str) -> None:
    assert not (PROJECT / root / "gpt2flow" / "__init__.py").exists()
    assert list((PROJECT / root / "gpt2flow").glob("*/py.typed"))


def test_packaging_names_every_root() -> None:
    build = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert build["dev-mode-dirs"] == ROOTS
    assert build["targets"]["wheel"]["packages"] == [f"{root}/gpt2flow" for root in ROOTS]


@pytest.mark.parametrize("component", sorted(ALLOWED))
def test_a_component_imports_only_what_it_may(component: str) -> None:
    files = sources(component)
    assert files
    for path in files:
        for name in imported(path):
            if name.startswith("gpt2flow."):
                inner = name.removeprefix("gpt2flow.")
                assert any(
                    inner == allowed or inner.startswith(f"{allowed}.") or allowed.startswith(inner)
                    for allowed in ALLOWED[component]
                ), f"{path.relative_to(PROJECT)} imports {name}"
            assert name.partition(".")[0] not in FORBIDDEN.get(component, set()), (
                f"{path.relative_to(PROJECT)} imports {name}"
            )


@pytest.mark.process
@pytest.mark.parametrize(
    "module, heavy",
    [
        ("gpt2flow.client", ["numpy", "onnxruntime", "google.rpc", "pydantic", "typer"]),
        ("gpt2flow.cli.main", ["grpc", "numpy", "onnxruntime", "torch", "sqlalchemy", "dbos"]),
        ("gpt2flow.agent.flows", ["grpc", "sqlalchemy", "dbos", "numpy"]),
        ("gpt2flow.gateway.process", ["numpy", "onnxruntime", "sqlalchemy", "tokenizers", "torch"]),
        ("gpt2flow.console.process", ["dbos", "numpy", "onnxruntime", "tokenizers", "torch"]),
        (
            "gpt2flow.storefront.process",
            ["dbos", "numpy", "onnxruntime", "tokenizers", "torch"],
        ),
        ("gpt2flow.server.bundle.manifest", ["grpc", "onnxruntime", "llguidance"]),
        ("gpt2flow.export", ["torch", "transformers", "optimum"]),
        ("gpt2flow.training", ["torch", "transformers"]),
    ],
)
def test_an_import_loads_no_heavy_library(module: str, heavy: list[str]) -> None:
    code = f"import sys, {module}; print(*[m for m in {heavy!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == ""
