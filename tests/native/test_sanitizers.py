"""Random nodes and inputs on all kernels, under the compiler's sanitizers."""

import importlib.util
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from tests.support.examples import examples
from tests.support.project import PROJECT

pytestmark = pytest.mark.process

SANITIZERS = {"address,undefined": 250, "thread": 60}
FLAGS = ["-std=gnu11", "-g", "-O1", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all"]
FLAGS += ["-ffp-contract=off", "-fno-math-errno", "-Wno-psabi", "-w"]


def load_compiler() -> ModuleType:
    """Return the module that compiles the operators."""
    path = PROJECT / "native/compiler.py"
    spec = importlib.util.spec_from_file_location("native_compiler", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=list(SANITIZERS))
def fuzzer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, int]:
    """Return a fuzzer under a sanitizer, and its number of cases."""
    gcc = shutil.which("gcc")
    assert gcc, "the sanitizers need gcc; make test installs it"
    compiler, folder = load_compiler(), tmp_path_factory.mktemp("fuzzer")
    flags = [gcc, *FLAGS, f"-fsanitize={request.param}", f"-I{PROJECT / 'native/src'}"]
    target = compiler.TARGETS[compiler.target_name()]
    objects = compiler.compile_objects(flags, target, PROJECT / "native/src", folder)
    binary = folder / "fuzz"
    source = str(PROJECT / "tests/native/fuzz.c")
    subprocess.run([*flags, source, *objects, "-lm", "-lpthread", "-o", binary], check=True)
    return binary, examples(SANITIZERS[request.param])


@pytest.mark.parametrize("seed", [1, 2])
def test_no_input_makes_a_kernel_leave_its_memory(fuzzer: tuple[Path, int], seed: int) -> None:
    binary, cases = fuzzer
    completed = subprocess.run(
        [binary, str(seed), str(cases)], capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout == f"{cases} cases\n"
