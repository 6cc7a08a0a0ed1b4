"""Constraints on the output, and sources whose compilation is hostile."""

import json

from gpt2flow.server.params import ConstraintKind, ConstraintParams

# Compiles for minutes: its automaton has a state per remainder of a seven-digit divisor.
ENDLESS = json.dumps({"type": "integer", "multipleOf": 9_999_991})
# Overflows the stack of its compiler: each rule uses the next one twice.
DEADLY = 'start: r0\n{}\nr6000: "z"'.format(
    "\n".join(f'r{i}: r{i + 1} r{i + 1} | "{i}"' for i in range(6000))
)
# Compiles, and admits nothing.
CYCLE = json.dumps({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"})
NESTED = '{"items":' * 20_000 + "{}" + "}" * 20_000


def constraint_of(kind: str, *source: str) -> ConstraintParams:
    """Return a constraint of a kind, such as `regex`."""
    return ConstraintParams(ConstraintKind(kind), source)


def endless(number: int) -> ConstraintParams:
    """Return a constraint that compiles for minutes, another one for each number."""
    schema = json.dumps({"title": str(number), **json.loads(ENDLESS)})
    return constraint_of("json_schema", schema)
