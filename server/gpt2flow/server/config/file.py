"""Reads the settings from a TOML file, and lays those of the command line over them."""

import dataclasses
import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from gpt2flow.server.config.settings import (
    EngineConfig,
    ModelConfig,
    ServerConfig,
    parse_address,
    parse_bytes,
)
from gpt2flow.server.errors import ConfigError

_T = TypeVar("_T")
_Table = Mapping[str, Any]
# What text means, by the `unit` in a field's metadata.
_UNITS: Mapping[str, Callable[[str, str], object]] = {
    "bytes": parse_bytes,
    "address": lambda name, text: parse_address(text, name),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigSource:
    """Where the settings come from; they may be read again and again.

    Attributes:
        file: TOML whose keys are the fields of `ServerConfig`, a table for each group of them,
            and a table `[[models]]` for each model. None is no file.
        given: What goes before the file, by field: `host`, `engine.threads`, `models`. None is
            not given.
    """

    file: Path | None = None
    given: Mapping[str, Any] = field(default_factory=dict)

    def read(self) -> ServerConfig:
        """Return the settings.

        Raises:
            ConfigError: The file cannot be read, or a value is not usable; says which.
        """
        given = {key: value for key, value in self.given.items() if value is not None}
        if self.file is None:
            return _Reader("", Path()).server({}, given)
        try:
            table = tomllib.loads(self.file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{self.file} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise ConfigError(f"{self.file} is not TOML: {error}") from error
        return _Reader(f"{self.file}: ", self.file.parent).server(table, given)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Makes settings of tables.

    Attributes:
        origin: What errors begin with.
        base: What relative paths are relative to.
    """

    origin: str
    base: Path

    def server(self, table: _Table, given: _Table) -> ServerConfig:
        """Return the settings of the server."""
        rest = {key: value for key, value in table.items() if key != "models"}
        if "models" not in given:
            given = {**given, "models": self._models(table, given)}
        return self._make(ServerConfig, rest, given)

    def _models(self, table: _Table, given: _Table) -> dict[str, Path | ModelConfig]:
        entries = table.get("models", [])
        if not (isinstance(entries, list) and all(isinstance(each, dict) for each in entries)):
            raise ConfigError(f"{self.origin}models must be tables, each under [[models]]")
        models: dict[str, Path | ModelConfig] = {}
        for i, entry in enumerate(entries):
            name = entry.get("name")
            if not (isinstance(name, str) and name):
                raise ConfigError(f"{self.origin}models[{i}].name is {name!r}, must be a name")
            if name in models:
                raise ConfigError(f"{self.origin}models[{i}].name: two models are named {name!r}")
            if "path" not in entry:
                raise ConfigError(f"{self.origin}models[{i}].path is missing")
            models[name] = self._model(f"models[{i}].", entry, table, given)
        return models

    def _model(self, where: str, entry: _Table, table: _Table, given: _Table) -> ModelConfig:
        """Return a model whose engine has its own settings over those of all engines."""
        engine_fields = _fields(EngineConfig)
        own = {key: value for key, value in entry.items() if key in engine_fields}
        of_all = self._make(
            EngineConfig, table.get("engine", {}), _part("engine", given), "engine."
        )
        given_engine = {name: getattr(of_all, name) for name in engine_fields if name not in own}
        engine = self._make(EngineConfig, own, given_engine | _part("engine", given), where)
        rest = {key: value for key, value in entry.items() if key not in {"name", *own}}
        allowed = {"name", *_fields(ModelConfig), *engine_fields} - {"engine"}
        self._check_keys(where, rest, allowed)
        return self._make(ModelConfig, rest, {"engine": engine}, where)

    def _make(self, kind: type[_T], table: object, given: _Table, where: str = "") -> _T:
        """Return an object of a group of settings; what is given goes before the table."""
        if not isinstance(table, dict):
            raise ConfigError(f"{self.origin}{where.rstrip('.')} is {table!r}, must be a table")
        fields = _fields(kind)
        self._check_keys(where, table, set(fields))
        hints = get_type_hints(kind)
        values = {}
        for name, setting in fields.items():
            group = _group(hints[name])
            if name in given:
                values[name] = given[name]
            elif group is not None and (name in table or _part(name, given)):
                part = _part(name, given)
                values[name] = self._make(group, table.get(name, {}), part, f"{where}{name}.")
            elif name in table:
                unit = setting.metadata.get("unit")
                values[name] = self._value(f"{where}{name}", table[name], hints[name], unit)
        try:
            return kind(**values)
        except ConfigError as error:
            # Ranges are checked by the groups themselves, which do not know where a value is from.
            if str(error).partition(" ")[0] in given:
                raise
            place = "" if str(error).startswith("--") else where
            raise ConfigError(f"{self.origin}{place}{error}") from error

    def _value(self, where: str, value: object, hint: Any, unit: str | None) -> object:
        if unit is not None and isinstance(value, str):
            return _UNITS[unit](f"{self.origin}{where}", value)
        try:
            # As JSON, since only then do strict types admit paths and tuples.
            text = json.dumps(value, default=str)
            read = TypeAdapter(hint).validate_json(text, strict=True)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].replace("Input should", "must")
            raise ConfigError(f"{self.origin}{where} is {value!r}, {reason}") from error
        return self.base / read if isinstance(read, Path) else read

    def _check_keys(self, where: str, table: _Table, allowed: set[str]) -> None:
        for key in table:
            if key not in allowed:
                known = ", ".join(sorted(allowed))
                raise ConfigError(f"{self.origin}{where}{key} is unknown, must be one of {known}")


def _fields(kind: type[Any]) -> dict[str, dataclasses.Field[Any]]:
    return {each.name: each for each in dataclasses.fields(kind)}


def _group(hint: Any) -> type[Any] | None:
    """Return the class of a field that is a group of settings, or may be one."""
    for kind in (hint, *getattr(hint, "__args__", ())):
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            return kind
    return None


def _part(name: str, given: _Table) -> dict[str, Any]:
    """Return what is given of a group, by field."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): v for key, v in given.items() if key.startswith(prefix)}
