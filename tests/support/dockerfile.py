"""Reads deploy/Dockerfile: its stages, each a list of instructions."""

import json
import re
from dataclasses import dataclass, field

from tests.support.project import PROJECT

DEPLOY = PROJECT / "deploy"


@dataclass(frozen=True)
class Instruction:
    """One instruction: `COPY`, its `--flag=value` options, and the rest as it stands."""

    name: str
    flags: dict[str, str]
    rest: str

    @property
    def words(self) -> list[str]:
        """The rest as a list, in exec form or as plain words."""
        return json.loads(self.rest) if self.rest.startswith("[") else self.rest.split()

    @property
    def variables(self) -> dict[str, str]:
        """What an ENV or LABEL sets."""
        pairs = re.findall(r'(\S+?)=("[^"]*"|\S+)', self.rest)
        return {name: value.strip('"') for name, value in pairs}


@dataclass
class Stage:
    """One FROM: what it is made from, its name, and what follows."""

    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)


def parse(text: str) -> dict[str, Stage]:
    """Return the stages by name, in order.

    Raises:
        ValueError: A stage has no name.
    """
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    stages: dict[str, Stage] = {}
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        instruction = _instruction(" ".join(line.split()))
        if instruction.name == "FROM":
            base, word, name = instruction.words
            if word != "AS":
                raise ValueError(f"a stage without a name: {line}")
            stages[name] = stage = Stage(base, name)
        else:
            stage.instructions.append(instruction)
    return stages


def _instruction(line: str) -> Instruction:
    name, _, rest = line.partition(" ")
    flags = {}
    while match := re.match(r"--([a-z-]+)=(\S+) (.*)", rest):
        flags[match[1]] = match[2]
        rest = match[3]
    return Instruction(name, flags, rest)


def load() -> dict[str, Stage]:
    """Return the stages of the project's Dockerfile."""
    return parse((DEPLOY / "Dockerfile").read_text(encoding="utf-8"))


def lineage(stages: dict[str, Stage], name: str) -> list[Stage]:
    """Return a stage and those it is made from, the first one first."""
    stage = stages[name]
    return [*(lineage(stages, stage.base) if stage.base in stages else []), stage]


def settings(stages: dict[str, Stage], name: str) -> dict[str, Instruction]:
    """Return the last instruction of each kind that holds for a stage."""
    return {i.name: i for stage in lineage(stages, name) for i in stage.instructions}
