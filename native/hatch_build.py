"""Build hook that compiles the operators for onnxruntime.

Where nothing can be compiled, the build warns. Then onnxruntime runs operators of its own.
`compiler.py` has the environment variables.
"""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# A hook is loaded by its path, so its folder is not searched.
sys.path.insert(0, str(Path(__file__).parent))
from compiler import LIBRARY, TARGETS, compile_library, own_compiler, target_name

ZIG: Final = "ziglang==0.17.1"


class OperatorsHook(BuildHookInterface):  # type: ignore[misc]
    """Compiler of the library, into a wheel or an editable tree."""

    def dependencies(self) -> list[str]:
        """Return the requirements of the build."""
        return [ZIG] if target_name() in TARGETS and not own_compiler() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the library before files are collected.

        Args:
            version: `editable` or `standard`.
            build_data: What the build takes from a hook.
        """
        native = Path(self.root, "native")
        # An editable install finds the library in the tree, which other builds leave as it is.
        out = native if version == "editable" else Path(self.root, "build/native")
        name = target_name()
        if name == "none":
            return
        for old in out.glob(f"{LIBRARY}.*"):
            old.unlink()
        try:
            library = compile_library(name, native / "src", out)
        except (OSError, subprocess.CalledProcessError) as error:
            self.app.display_warning(f"the operators are not compiled for {name}: {error}")
            return
        if version != "editable":
            build_data["force_include"][str(library)] = str(library.relative_to(out))
        build_data["pure_python"] = False
        foreign = "GPT2FLOW_TARGET" in os.environ and not own_compiler()
        local = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{TARGETS[name].tag if foreign else local}"
        self.app.display_info(f"compiled {library.name} for {name}")
