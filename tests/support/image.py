"""Dockerfile stages, built and run without a container engine.

A stage is a directory that becomes the root of a process in a mount namespace. This machine's
Python and system replace those of the base image. Needs root and Linux.
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

# Directories of the base image. /etc is needed for host names and certificates.
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc")
_PIP_CACHE = "/var/cache/pip"
# Environment variables that locate the package index, forwarded like build arguments.
_FORWARDED = ("PIP_", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY")


class Image:
    """Stages of one Dockerfile, built on demand.

    Args:
        stages: Stages by name, from `dockerfile.parse`.
        context: Build context, the directory that COPY copies from.
        folder: Directory for the roots of the stages.
    """

    def __init__(self, stages: dict[str, Stage], context: Path, folder: Path) -> None:
        self._stages = stages
        self._context = context
        self._folder = folder

    def root(self, name: str) -> Path:
        """Return the root directory of a stage, built on first use."""
        root = self._folder / name
        if root.exists():
            return root
        stage = self._stages[name]
        if stage.base in self._stages:
            shutil.copytree(self.root(stage.base), root, symlinks=True)
        else:
            root.mkdir()
        for instruction in stage.instructions:
            self._execute(instruction, name, root)
        return root

    def environment(self, name: str) -> dict[str, str]:
        """Return the variables that ENV sets in a stage and its bases."""
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
        """Return the shell script that runs a stage's ENTRYPOINT as its USER.

        It must run in mount and network namespaces of its own. The root is read-only, all
        privileges are dropped, and the only network is the loopback interface.

        Args:
            name: Name of the stage.
            arguments: Arguments in place of CMD.
            readable: Directories to mount read-only, by mount point.
            writable: Directories to mount writable, by mount point.
        """
        effective = settings(self._stages, name)
        command = [*effective["ENTRYPOINT"].words, *(arguments or effective["CMD"].words)]
        root = self.root(name)
        return "\n".join(
            [
                "set -e; ip link set lo up",
                *self._mounts(root, readable, writable),
                f"mount -o remount,bind,ro {root}",
                f"exec {self.command_prefix(name)} {shlex.join(command)}",
            ]
        )

    def command_prefix(self, name: str) -> str:
        """Return a command prefix that enters a stage's root as its USER."""
        user, _, group = settings(self._stages, name)["USER"].rest.partition(":")
        drop = f"setpriv --reuid {user} --regid {group} --clear-groups --no-new-privs"
        variables = shlex.join(f"{k}={v}" for k, v in self.environment(name).items())
        return (
            f"chroot {self.root(name)} {drop} --bounding-set=-all --inh-caps=-all "
            f"env --ignore-environment HOME=/ {variables}"
        )

    def _execute(self, instruction: Instruction, name: str, root: Path) -> None:
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
        # An absolute target replaces the working directory.
        destination = root / str(Path(self._directory(name)) / target).lstrip("/")
        for item in (source / entry.lstrip("/") for entry in names):
            if item.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                keep = None if "from" in instruction.flags else ignored
                shutil.copytree(item, destination, symlinks=True, ignore=keep, dirs_exist_ok=True)
            else:
                destination.mkdir(parents=True, exist_ok=True)
                shutil.copy2(item, destination)
        if "chown" in instruction.flags:
            user, _, group = instruction.flags["chown"].partition(":")
            os.chown(destination, int(user), int(group))

    def _run(self, instruction: Instruction, name: str, root: Path) -> None:
        variables = {k: v for k, v in os.environ.items() if k.startswith(_FORWARDED)}
        variables |= {"HOME": "/root", **self.environment(name)}
        pip = [sys.executable, "-m", "pip", "cache", "dir"]
        cache = Path(subprocess.check_output(pip, text=True).strip())
        cache.mkdir(parents=True, exist_ok=True)
        command = f"cd {self._directory(name)}; {instruction.rest}"
        script = "\n".join(
            [
                "set -e",
                *self._mounts(root, {}, {_PIP_CACHE: cache}),
                f"exec chroot {root} /bin/sh -c {shlex.quote(command)}",
            ]
        )
        completed = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script],
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        if completed.returncode:
            raise RuntimeError(f"RUN {instruction.rest}\n{completed.stdout}{completed.stderr}")

    def _directory(self, name: str) -> str:
        effective = settings(self._stages, name)
        return effective["WORKDIR"].rest if "WORKDIR" in effective else "/"

    @staticmethod
    def _mounts(
        root: Path, readable: Mapping[str, Path], writable: Mapping[str, Path]
    ) -> list[str]:
        """Return the commands that mount system and volumes in a root."""
        system = {path: Path(path) for path in (*_SYSTEM, sys.base_prefix) if Path(path).exists()}
        kernel = {path: Path(path) for path in ("/proc", "/dev")}
        lines = [f"mount --bind {root} {root}"]
        for target, source in {**system, **readable, **writable, **kernel}.items():
            mount_point = root / target.lstrip("/")
            mount_point.mkdir(parents=True, exist_ok=True)
            lines.append(f"mount --rbind {source} {mount_point}")
            if target in {*system, *readable}:
                lines.append(f"mount -o remount,bind,ro {mount_point}")
        return lines
