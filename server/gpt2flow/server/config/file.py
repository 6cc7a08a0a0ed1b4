"""Settings from a TOML file, overridden by those of the command line."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_origin

from gpt2flow.server.config.base import Settings, value_type
from gpt2flow.server.config.settings import EngineConfig, ModelConfig, ServerConfig
from gpt2flow.server.errors import ConfigError

_Group = TypeVar("_Group", bound=Settings)
_Table = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigSource:
    """Source of the settings, which may be read again and again.

    Attributes:
        file: TOML whose keys are the fields of `ServerConfig`, with a table for each group and a
            table `[[models]]` for each model. None is no file.
        given: Values that override the file, by dotted field: `host`, `engine.threads`, `models`.
            A value of None overrides nothing.
        names: Options or variables that the given values were typed as, by the same field. Errors
            show them instead of the field.
    """

    file: Path | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)

    def read(self) -> ServerConfig:
        """Return the settings.

        Raises:
            ConfigError: The file cannot be read, or a value is unusable; names both.
        """
        given = {key: value for key, value in self.given.items() if value is not None}
        if self.file is None:
            return _Reader("", Path(), self.names).server({}, given)
        try:
            table = tomllib.loads(self.file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{self.file} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise ConfigError(f"{self.file} is not TOML: {error}") from error
        return _Reader(f"{self.file}: ", self.file.parent, self.names).server(table, given)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reader of groups of settings from tables.

    Attributes:
        origin: Start of the errors about a table.
        base: Directory that relative paths of a table are relative to.
        names: Names of given values in errors, by dotted field.
    """

    origin: str
    base: Path
    names: Mapping[str, str]

    def server(self, table: _Table, given: _Table) -> ServerConfig:
        """Return the settings of the server."""
        rest = {key: value for key, value in table.items() if key != "models"}
        if "models" not in given:
            given = {**given, "models": self._models(table, given)}
        return self._make(ServerConfig, rest, given)

    def _models(self, table: _Table, given: _Table) -> dict[str, ModelConfig]:
        entries = table.get("models", [])
        if not (isinstance(entries, list) and all(isinstance(each, dict) for each in entries)):
            raise ConfigError(f"{self.origin}models must be tables, each under [[models]]")
        models: dict[str, ModelConfig] = {}
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
        """Return a model, whose entry overrides the settings of all engines."""
        fields, given_engine = EngineConfig.model_fields, _part("engine", given)
        common = self._make(EngineConfig, table.get("engine", {}), given_engine, "engine.")
        own = {key: value for key, value in entry.items() if key in fields}
        self._check_requests(own.get("requests"), where)
        engine = self._make(EngineConfig, own, _inherited(common, own) | given_engine, where)
        rest = {key: value for key, value in entry.items() if key not in {"name", *own}}
        allowed = {"name", "path", "fingerprint", *fields}
        if unknown := next((key for key in rest if key not in allowed), None):
            raise ConfigError(
                f"{self.origin}{where}{unknown} is unknown, "
                f"must be one of {', '.join(sorted(allowed))}"
            )
        return self._make(ModelConfig, rest, {"engine": engine}, where)

    def _check_requests(self, requests: object, where: str) -> None:
        """Refuse a model's limit that can only apply to the server."""
        if isinstance(requests, dict) and "message_bytes" in requests:
            raise ConfigError(
                f"{self.origin}{where}requests.message_bytes cannot differ between models: "
                "set it under [engine.requests]"
            )

    def _make(self, kind: type[_Group], table: object, given: _Table, where: str = "") -> _Group:
        """Return a group of settings; given values override the table."""
        if not isinstance(table, dict):
            raise ConfigError(f"{self.origin}{where.rstrip('.')} is {table!r}, must be a table")
        values = {name: self._resolved(kind, name, value) for name, value in table.items()}
        for name, info in kind.model_fields.items():
            group, part = info.annotation, _part(name, given)
            if isinstance(group, type) and issubclass(group, Settings) and (name in table or part):
                values[name] = self._make(group, table.get(name, {}), part, f"{where}{name}.")
            if name in given:
                values[name] = given[name]
        try:
            return kind(**values)
        except ConfigError as error:
            raise self._placed(error, where, given) from error

    def _placed(self, error: ConfigError, where: str, given: _Table) -> ConfigError:
        """Return an error under the name that the user gave the setting."""
        if error.field is None:
            return ConfigError(f"{self.origin}{error}")
        key, rule = f"{where}{error.field}", str(error).removeprefix(error.field)
        if error.field in given:
            return ConfigError(f"{self.names.get(key, key)}{rule}")
        return ConfigError(f"{self.origin}{key}{rule}")

    def _resolved(self, kind: type[Settings], name: str, value: object) -> object:
        """Return a value of a table, its paths relative to the file."""
        info = kind.model_fields.get(name)
        if info is None:
            return value
        annotation = value_type(info)[0]
        if get_origin(annotation) is Mapping and isinstance(value, dict):
            return {key: self._located(each) for key, each in value.items()}
        return self._located(value) if annotation is Path else value

    def _located(self, value: object) -> object:
        return self.base / value if isinstance(value, str) else value


def _inherited(common: Settings, own: _Table) -> dict[str, Any]:
    """Return the common settings that a table keeps, by dotted field."""
    inherited: dict[str, Any] = {}
    for name in type(common).model_fields:
        value, replaced = getattr(common, name), own.get(name)
        if name not in own:
            inherited[name] = value
        elif isinstance(value, Settings) and isinstance(replaced, dict):
            part = _inherited(value, replaced)
            inherited |= {f"{name}.{key}": each for key, each in part.items()}
    return inherited


def _part(name: str, given: _Table) -> dict[str, Any]:
    """Return the given values of a group, by field."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): v for key, v in given.items() if key.startswith(prefix)}
