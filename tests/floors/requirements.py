"""Oldest versions that `pyproject.toml` allows."""

import tomllib
from collections.abc import Iterator

from packaging.requirements import Requirement
from tests.support.project import PROJECT

_FLOORS = (">=", "==")


def floors(extra: str) -> dict[str, str]:
    """Return the oldest allowed version of each package of an extra.

    Packages that every part needs are among them.
    """
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: dict[str, str] = {}
    for each in (*project["dependencies"], *_requirements(project, extra)):
        requirement = Requirement(each)
        [floor] = [one.version for one in requirement.specifier if one.operator in _FLOORS]
        # Two parts may need the same package.
        found[requirement.name] = max(found.get(requirement.name, floor), floor, key=_parts)
    return found


def _requirements(project: dict[str, dict[str, list[str]]], extra: str) -> Iterator[str]:
    """Yield the requirements of an extra, and of those that it includes."""
    for each in project["optional-dependencies"][extra]:
        requirement = Requirement(each)
        if requirement.name == "gpt2flow":
            for other in requirement.extras:
                yield from _requirements(project, other)
        else:
            yield each


def _parts(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
