"""Builds the stages of a Dockerfile below a folder and runs them, without a container engine.

A stage is a folder that becomes the root of a process in a mount namespace; this machine's
Python and system stand where the base image's would. Needs root and Linux.
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from tests.support.dockerfile import Instruction, Stage, lineage, settings

# What the base image would bring. Of /etc, what names and certificates need.
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc")
_PIP_CACHE = "/var/cache/pip"
# How this machine finds the package index, as build arguments would say.
_PASSED_ON = ("PIP_", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY")


class Image:
    """The stages of one Dockerfile, built on demand.

    Args:
        stages: as `dockerfile.parse` returns them.
        context: the folder that COPY copies from.
        folder: where the roots of the stages are made.
    """

    def __init__(self, stages: dict[str, Stage], context: Path, folder: Path) -> None:
        self._stages = stages
        self._context = context
        self._folder = folder

    def root(self, name: str) -> Path:
        """Return the root of a stage, which is built if it was not."""
        root = self._folder / name
        if root.exists():
            return root
        stage = self._stages[name]
        if stage.base in self._stages:
            shutil.copytree(self.root(stage.base), root, symlinks=True)
        else:
            root.mkdir()
        for instruction in stage.instructions:
            self._carry_out(instruction, name, root)
        return root

    def environment(self, name: str) -> dict[str, str]:
        """Return what ENV sets in a stage and those before it."""
        python = Path(sys.base_prefix) / "bin"
        variables = {"PATH": f"{python}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        for stage in lineage(self._stages, name):
            for instruction in stage.instructions:
                if instruction.name == "ENV":
                    for key, value in instruction.variables.items():
                        variables[key] = value.replace("$PATH", variables["PATH"])
        return variables

    def script(
        self,
        name: str,
        arguments: Iterable[str] = (),
        *,
        readable: Mapping[str, Path] = MappingProxyType({}),
        writable: Mapping[str, Path] = MappingProxyType({}),
    ) -> str:
        """Return the shell script that runs a stage as its ENTRYPOINT, CMD and USER say.

        It expects namespaces of mounts and of the network of its own. The root is read-only,
        no privilege is left, and there is no network but a loopback interface.

        Args:
            name: the stage.
            arguments: in place of CMD.
            readable: folders that are mounted, by the path that they get, read-only.
            writable: the same, not read-only.
        """
        says = settings(self._stages, name)
        command = [*says["ENTRYPOINT"].words, *(arguments or says["CMD"].words)]
        root = self.root(name)
        return "\n".join(
            [
                "set -e; ip link set lo up",
                *self._mounts(root, readable, writable),
                f"mount -o remount,bind,ro {root}",
                f"exec {self.within(name)} {shlex.join(command)}",
            ]
        )

    def within(self, name: str) -> str:
        """Return what stands before a command that runs in a stage's root as its USER."""
        user, _, group = settings(self._stages, name)["USER"].rest.partition(":")
        drop = f"setpriv --reuid {user} --regid {group} --clear-groups --no-new-privs"
        variables = shlex.join(f"{k}={v}" for k, v in self.environment(name).items())
        return (
            f"chroot {self.root(name)} {drop} --bounding-set=-all --inh-caps=-all "
            f"env --ignore-environment HOME=/ {variables}"
        )

    def _carry_out(self, instruction: Instruction, name: str, root: Path) -> None:
        match instruction.name:
            case "COPY":
                self._copy(instruction, name, root)
            case "RUN":
                self._run(instruction, name, root)

    def _copy(self, instruction: Instruction, name: str, root: Path) -> None:
        source = self._context
        if "from" in instruction.flags:
            source = self.root(instruction.flags["from"])
        *names, target = instruction.words
        # Joined, an absolute target stands for itself.
        folder = root / str(Path(self._directory(name)) / target).lstrip("/")
        for item in (source / entry.lstrip("/") for entry in names):
            if item.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                keep = None if "from" in instruction.flags else ignored
                shutil.copytree(item, folder, symlinks=True, ignore=keep, dirs_exist_ok=True)
            else:
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy2(item, folder)
        if "chown" in instruction.flags:
            user, _, group = instruction.flags["chown"].partition(":")
            os.chown(folder, int(user), int(group))

    def _run(self, instruction: Instruction, name: str, root: Path) -> None:
        variables = {k: v for k, v in os.environ.items() if k.startswith(_PASSED_ON)}
        variables |= {"HOME": "/root", **self.environment(name)}
        pip = [sys.executable, "-m", "pip", "cache", "dir"]
        cache = Path(subprocess.check_output(pip, text=True).strip())
        cache.mkdir(parents=True, exist_ok=True)
        inside = f"cd {self._directory(name)}; {instruction.rest}"
        script = "\n".join(
            [
                "set -e",
                *self._mounts(root, {}, {_PIP_CACHE: cache}),
                f"exec chroot {root} /bin/sh -c {shlex.quote(inside)}",
            ]
        )
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script],
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"RUN {instruction.rest}\n{done.stdout}{done.stderr}")

    def _directory(self, name: str) -> str:
        says = settings(self._stages, name)
        return says["WORKDIR"].rest if "WORKDIR" in says else "/"

    @staticmethod
    def _mounts(
        root: Path, readable: Mapping[str, Path], writable: Mapping[str, Path]
    ) -> list[str]:
        """Return the commands that give a root what the base image and the engine would."""
        system = {path: Path(path) for path in (*_SYSTEM, sys.base_prefix) if Path(path).exists()}
        kernel = {path: Path(path) for path in ("/proc", "/dev")}
        lines = [f"mount --bind {root} {root}"]
        for target, source in {**system, **readable, **writable, **kernel}.items():
            there = root / target.lstrip("/")
            there.mkdir(parents=True, exist_ok=True)
            lines.append(f"mount --rbind {source} {there}")
            if target in {*system, *readable}:
                lines.append(f"mount -o remount,bind,ro {there}")
        return lines
