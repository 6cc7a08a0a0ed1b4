"""Reference of all settings: keys of the file, options, environment variables, defaults.

`python -m gpt2flow.server.config.reference` prints `docs/settings.md`; `make docs` writes it.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, get_origin

from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from gpt2flow.server.config.base import Settings, value_type
from gpt2flow.server.config.settings import ServerConfig

PREFIX: Final = "GPT2FLOW_SERVER_"
# One option stands for both.
ADDRESS: Final = ("host", "port")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, under each of its names.

    Attributes:
        key: Key of the TOML file, dotted: `engine.threads`.
        option: Command-line option: `--threads`.
        kind: Type of the option: bool, int, float, str, Path or list[str].
        default: Default as the documentation shows it; empty is none.
        meaning: Description in one sentence.
    """

    key: str
    option: str
    kind: type
    default: str
    meaning: str

    @property
    def group(self) -> str:
        """Table of the file; empty for settings outside of any."""
        return self.key.rpartition(".")[0]

    @property
    def variable(self) -> str:
        """Environment variable: the option with a prefix."""
        return variable(self.option)


def variable(option: str) -> str:
    """Return the environment variable of an option."""
    return PREFIX + option.removeprefix("--").replace("-", "_").upper()


def settings(kind: type[Settings] = ServerConfig, prefix: str = "") -> Iterator[Setting]:
    """Yield all settings but the models, in the order of the file."""
    for name, info in kind.model_fields.items():
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, Settings):
            yield from settings(annotation, f"{prefix}{name}.")
        elif name != "models":
            extra = info.json_schema_extra
            assert isinstance(extra, dict)
            yield Setting(
                key=f"{prefix}{name}",
                option=str(extra["option"] or _option(prefix, name)),
                kind=_option_type(info),
                default=str(extra["shown"] or _shown(info.get_default(call_default_factory=True))),
                meaning=info.description or "",
            )


def _option(prefix: str, name: str) -> str:
    start = "max-" if prefix == "engine.requests." else ""
    return f"--{start}{name.replace('_', '-')}"


def _option_type(info: FieldInfo) -> type:
    """Return the type of an option; sizes and durations are text."""
    annotation, metadata = value_type(info)
    if get_origin(annotation) is Mapping:
        return list[str]
    has_text_form = any(isinstance(each, BeforeValidator) for each in metadata)
    return annotation if isinstance(annotation, type) and not has_text_form else str


def _shown(value: object) -> str:
    """Return a value as TOML has it."""
    if value is None or value == {}:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def page() -> str:
    """Return the page of all settings in Markdown."""
    rows = []
    for each in settings():
        option, name = each.option, each.variable
        if each.key in ADDRESS:
            option, name = "--address", variable("--address")
        default = f"`{each.default}`" if each.default else ""
        rows.append(f"| `{each.key}` | `{option}` | `{name}` | {default} | {each.meaning} |")
    return _PAGE.format(rows="\n".join(rows))


_PAGE: Final = """\
# Settings of the server

This page is generated from the classes of the settings: `make docs`.

Each setting has three names.
An option of `gpt2flow serve` overrides its environment variable.
The variable overrides the file given by `--config`.
`--config`, `--model` and `--ready-file` have environment variables too.

| key in the file | option | environment variable | default | meaning |
|---|---|---|---|---|
{rows}

Each `[[models]]` table of the file has a `name`, a `path` and an optional `fingerprint`.
It may also hold any key of `[engine]`, for that model alone.
"""


if __name__ == "__main__":
    sys.stdout.write(page())
