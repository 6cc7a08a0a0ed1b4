"""The declared part of onnxruntime's C interface is the running library's.

`native/src/ort.h` names members of `OrtApi` by their index. Each is called here with the effect
that its name promises.
"""

import ctypes
import re
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
from tests.support.project import PROJECT

pytestmark = pytest.mark.process

HEADER = (PROJECT / "native/src/ort.h").read_text(encoding="utf-8")
INDEX = {name: int(index) for name, index in re.findall(r"ORT_([a-z_]+) = (\d+),", HEADER)}

# Prints a line for each member that does what its name says, in a process of its own: a wrong
# index may end it.
CALLS = """
import ctypes, sys
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_size_t, c_uint32, c_void_p

library, index, version = sys.argv[1], eval(sys.argv[2]), int(sys.argv[3])

class Base(ctypes.Structure):
    _fields_ = [
        ("get_api", ctypes.CFUNCTYPE(c_void_p, c_uint32)),
        ("get_version", ctypes.CFUNCTYPE(c_char_p)),
    ]

get_base = ctypes.CDLL(library).OrtGetApiBase
get_base.restype = POINTER(Base)
base = get_base().contents
api = ctypes.cast(base.get_api(version), POINTER(c_void_p))
print("version", base.get_version().decode())

def member(at, *types, result=c_void_p):
    return ctypes.CFUNCTYPE(result, *types)(api[at])

def call(name, *arguments):
    types = [type(argument) for argument in arguments]
    assert not member(index[name], *types)(*arguments), name
    print(name)

# Status: an error has the code and the text that it was made of.
status = member(index["create_status"], c_int, c_char_p)(2, b"as expected")
assert member(1, c_void_p, result=c_int)(status) == 2
assert member(2, c_void_p, result=c_char_p)(status) == b"as expected"
print("create_status")

# A tensor over memory of this process (CreateCpuMemoryInfo, CreateTensorWithDataAsOrtValue).
memory, tensor = c_void_p(), c_void_p()
assert not member(69, c_int, c_int, c_void_p)(0, 0, ctypes.cast(byref(memory), c_void_p))
data, shape = (ctypes.c_float * 6)(), (c_int64 * 2)(2, 3)
make = member(49, c_void_p, c_void_p, c_size_t, c_void_p, c_size_t, c_int, c_void_p)
made = make(memory, ctypes.cast(data, c_void_p), 24, ctypes.cast(shape, c_void_p), 2, 1,
            ctypes.cast(byref(tensor), c_void_p))
assert not made

found = c_void_p()
call("get_data", tensor, ctypes.cast(byref(found), c_void_p))
assert found.value == ctypes.addressof(data)
info, rank, sizes = c_void_p(), c_size_t(), (c_int64 * 2)()
call("get_shape", tensor, ctypes.cast(byref(info), c_void_p))
call("get_rank", info, ctypes.cast(byref(rank), c_void_p))
assert rank.value == 2
call("get_dimensions", info, ctypes.cast(sizes, c_void_p), c_size_t(2))
assert list(sizes) == [2, 3]
member(index["release_shape"], c_void_p, result=None)(info)
print("release_shape")
domain = c_void_p()
name = ctypes.cast(c_char_p(b"test"), c_void_p)
call("create_domain", name, ctypes.cast(byref(domain), c_void_p))
assert domain.value
"""

# What only onnxruntime can call a kernel for; every run of an operator needs them.
BY_RUNS = {
    "add_operator",
    "add_domain",
    "get_float_attribute",
    "get_int_attribute",
    "get_input",
    "get_output",
    "parallel_for",
}


@pytest.fixture(scope="module")
def library() -> Path:
    folder = Path(onnxruntime.__file__).parent / "capi"
    return next(path for path in sorted(folder.iterdir()) if "libonnxruntime." in path.name)


def test_each_declared_member_does_what_its_name_says(library: Path) -> None:
    version = re.search(r"ORT_API_VERSION = (\d+)", HEADER)
    assert version
    completed = subprocess.run(
        [sys.executable, "-c", CALLS, str(library), str(INDEX), version[1]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    first, *called = completed.stdout.splitlines()
    assert first == f"version {onnxruntime.__version__}"
    assert set(called) | BY_RUNS == set(INDEX)


def test_the_library_registers_itself_under_the_name_that_onnxruntime_looks_for() -> None:
    [path] = (PROJECT / "native/gpt2flow/native").glob("operators.*")
    assert hasattr(ctypes.CDLL(str(path)), "RegisterCustomOps")
