"""Reports of pip-audit, and the exceptions to them."""

import json
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class UnreachableError(Exception):
    """The advisory service did not answer."""


class AcceptedAdvisory(BaseModel):
    """Advisory about one version of a package that is accepted.

    Attributes:
        package: Name of the package.
        version: Version that is pinned.
        advisories: Names of the advisory.
        reason: Reason why it does no harm here.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    package: str = Field(min_length=1)
    version: str = Field(min_length=1)
    advisories: tuple[str, ...] = Field(min_length=1)
    reason: str = Field(min_length=20)

    def covers(self, finding: "Finding") -> bool:
        """Return whether a finding is this advisory."""
        same = (self.package, self.version) == (finding.package, finding.version)
        return same and not finding.names.isdisjoint(self.advisories)


@dataclass(frozen=True)
class Finding:
    """Advisory that pip-audit reports about a pinned version.

    Attributes:
        package: Name of the package.
        version: Version that is pinned.
        names: Its identifiers.
        fixed: Versions that mend it.
    """

    package: str
    version: str
    names: frozenset[str]
    fixed: tuple[str, ...]

    def __str__(self) -> str:
        mended = f"fixed in {', '.join(self.fixed)}" if self.fixed else "not fixed"
        return f"{self.package} {self.version}: {', '.join(sorted(self.names))} ({mended})"


@dataclass(frozen=True)
class Report:
    """Answer of the advisory service about the packages of a file.

    Attributes:
        findings: Advisories about them.
        unknown: Packages that the service does not know.
        known: Number of the others.
    """

    findings: tuple[Finding, ...]
    unknown: tuple[str, ...]
    known: int

    @classmethod
    def parse(cls, output: str) -> Self:
        """Read the JSON of pip-audit.

        Raises:
            UnreachableError: There is none, or the service knows no package at all.
        """
        try:
            packages = json.loads(output)["dependencies"]
        except ValueError as error:
            raise UnreachableError("pip-audit wrote no report") from error
        unknown = tuple(each["name"] for each in packages if "skip_reason" in each)
        known = len(packages) - len(unknown)
        # A mirror without advisories answers "not found", which pip-audit takes for no advisory.
        if not known:
            raise UnreachableError(f"the service knows none of {len(packages)} packages")
        return cls(tuple(_findings(packages)), unknown, known)

    def open_findings(self, accepted: Sequence[AcceptedAdvisory]) -> list[Finding]:
        """Return the findings that no exception covers."""
        return [
            finding
            for finding in self.findings
            if not any(exception.covers(finding) for exception in accepted)
        ]


def _findings(packages: list[dict[str, Any]]) -> Iterator[Finding]:
    for package in packages:
        for advisory in package.get("vulns", ()):
            yield Finding(
                package["name"],
                package["version"],
                frozenset([advisory["id"], *advisory.get("aliases", ())]),
                tuple(advisory["fix_versions"]),
            )


def read_exceptions(path: Path) -> list[AcceptedAdvisory]:
    """Return the exceptions of a TOML file."""
    entries = tomllib.loads(path.read_text(encoding="utf-8"))["exception"]
    return TypeAdapter(list[AcceptedAdvisory]).validate_python(entries)
