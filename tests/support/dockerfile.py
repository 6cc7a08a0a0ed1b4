"""Parser of deploy/Dockerfile, as stages of instructions."""

import json
import re
from dataclasses import dataclass, field

from tests.support.project import PROJECT

DEPLOY = PROJECT / "deploy"


@dataclass(frozen=True)
class Instruction:
    """Instruction of a Dockerfile.

    Attributes:
        name: Keyword, such as `COPY`.
        flags: Values of the `--flag=value` options.
        rest: Remaining text, verbatim.
    """

    name: str
    flags: dict[str, str]
    rest: str

    @property
    def words(self) -> list[str]:
        """Words of the rest, which is in exec form or plain text."""
        return json.loads(self.rest) if self.rest.startswith("[") else self.rest.split()

    @property
    def variables(self) -> dict[str, str]:
        """Values that an ENV or LABEL sets, by name."""
        pairs = re.findall(r'(\S+?)=("[^"]*"|\S+)', self.rest)
        return {name: value.strip('"') for name, value in pairs}


@dataclass
class Stage:
    """Stage of a Dockerfile.

    Attributes:
        base: Image or stage that FROM names.
        name: Name of the stage.
        instructions: Instructions after FROM.
    """

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
            base, keyword, name = instruction.words
            if keyword != "AS":
                raise ValueError(f"stage without a name: {line}; append AS and a name")
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
    """Return a stage and the stages it is built from, oldest first."""
    stage = stages[name]
    return [*(lineage(stages, stage.base) if stage.base in stages else []), stage]


def settings(stages: dict[str, Stage], name: str) -> dict[str, Instruction]:
    """Return the last instruction of each kind, inherited ones included."""
    return {i.name: i for stage in lineage(stages, name) for i in stage.instructions}
