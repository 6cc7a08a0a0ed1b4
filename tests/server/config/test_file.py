"""Settings file: reading, validation, and precedence of the command line."""

from pathlib import Path
from typing import Any

import pytest

from gpt2flow.server import (
    ConfigError,
    ConfigSource,
    ConnectionConfig,
    EngineConfig,
    ModelConfig,
    SecurityConfig,
    ServerConfig,
    TelemetryConfig,
)

ALL_SETTINGS = """
host = "::1"
port = 8001
drain_seconds = 5

[engine]
threads = 2
kv_cache_memory = "512 MB"
speculation = false

[connections]
keepalive_seconds = 60

[telemetry]
metrics_address = "127.0.0.1:0"

[security]
tls_certificate = "server.pem"
tls_key = "/keys/server.pem"

[[models]]
name = "shop"
path = "bundles/shop"
fingerprint = "{0}"
max_sequences = 4

[[models]]
name = "other"
path = "/bundles/other"
kv_cache_memory = 1000
"""


def read(tmp_path: Path, text: str, **given: Any) -> ServerConfig:
    file = tmp_path / "server.toml"
    file.write_text(text, encoding="utf-8")
    return ConfigSource(file=file, given=given).read()


def test_all_settings_are_read(tmp_path: Path) -> None:
    config = read(tmp_path, ALL_SETTINGS.format("a" * 64))
    engine = EngineConfig(threads=2, kv_cache_memory=512_000_000, speculation=False)
    assert config == ServerConfig(
        models={
            "shop": ModelConfig(
                path=tmp_path / "bundles/shop",
                fingerprint="a" * 64,
                engine=engine.model_copy(update={"max_sequences": 4}),
            ),
            "other": ModelConfig(
                path=Path("/bundles/other"),
                engine=engine.model_copy(update={"kv_cache_memory": 1000}),
            ),
        },
        host="::1",
        port=8001,
        drain_seconds=5.0,
        engine=engine,
        connections=ConnectionConfig(keepalive_seconds=60.0),
        telemetry=TelemetryConfig(metrics_address=("127.0.0.1", 0)),
        security=SecurityConfig(
            tls_certificate=tmp_path / "server.pem", tls_key=Path("/keys/server.pem")
        ),
    )


def test_missing_settings_have_their_defaults(tmp_path: Path) -> None:
    config = read(tmp_path, '[[models]]\nname = "m"\npath = "p"\n')
    assert config == ServerConfig(models={"m": ModelConfig(path=tmp_path / "p")})


def test_the_command_line_overrides_the_file(tmp_path: Path) -> None:
    given = {"port": 9, "engine.threads": 7, "engine.max_sequences": 3, "host": None}
    config = read(tmp_path, ALL_SETTINGS.format("a" * 64), **given)
    assert (config.host, config.port) == ("::1", 9)
    engines = [config.engine, *(model.engine for model in config.model_configs.values())]
    assert {(engine.threads, engine.max_sequences) for engine in engines} == {(7, 3)}
    config = read(tmp_path, ALL_SETTINGS.format("a" * 64), models={"m": Path("p")})
    assert config.model_configs == {"m": ModelConfig(path=Path("p"), engine=config.engine)}


MODEL = '[[models]]\nname = "m"\npath = "p"\n'


@pytest.mark.parametrize(
    "text,expected",
    [
        ("port = ", "is not TOML: "),
        ("\0", "is not TOML: "),
        ("", "no model given"),
        (f"colour = 1\n{MODEL}", "colour is unknown, must be one of connections, drain_seconds,"),
        (f"port = 70000\n{MODEL}", "port is 70000, must be in [0, 65535]"),
        (f'port = "a"\n{MODEL}', "port is 'a', must be a valid integer"),
        (f"port = 1.5\n{MODEL}", "port is 1.5, must be a valid integer"),
        (f"port = true\n{MODEL}", "port is True, must be a valid integer"),
        (f"port = 2020-01-01\n{MODEL}", "port is datetime.date(2020, 1, 1), must be"),
        (f"drain_seconds = nan\n{MODEL}", "drain_seconds is nan, must be in [0, 86400]"),
        (f"engine = 3\n{MODEL}", "engine is 3, must be a table"),
        (f"[engine]\nthreads = 0\n{MODEL}", "engine.threads is 0, must be in [1, 1024]"),
        (
            f"[engine]\nthread = 1\n{MODEL}",
            "engine.thread is unknown, must be one of choices, context_length, ",
        ),
        (f'[engine]\nkv_cache_memory = "1XB"\n{MODEL}', "engine.kv_cache_memory is '1XB', must"),
        (f"[connections]\nkeepalive_seconds = 0\n{MODEL}", "connections.keepalive_seconds is 0,"),
        (
            f"[engine]\nchoices = 3\n{MODEL}",
            "engine.choices is 3, must be a table of files by name",
        ),
        (f"[engine.choices]\na = 3\n{MODEL}", "engine.choices is {'a': 3}, must have a name and a"),
        (f'[engine.choices]\n"" = "a.txt"\n{MODEL}', "engine.choices is {'': "),
        ("models = 3", "models must be tables, each under [[models]]"),
        ("models = [3]", "models must be tables, each under [[models]]"),
        ('[[models]]\npath = "p"', "models[0].name is None, must be a name"),
        ('[[models]]\nname = "m"', "models[0].path is missing"),
        (f"{MODEL}{MODEL}", "models[1].name: two models are named 'm'"),
        (f"{MODEL}threads = 0", "models[0].threads is 0, must be in [1, 1024]"),
        (
            f"{MODEL}engine = 1",
            "models[0].engine is unknown, must be one of choices, context_length, ",
        ),
        (
            f"{MODEL}[models.requests]\nmessage_bytes = 9",
            "models[0].requests.message_bytes cannot differ between models",
        ),
        (f'{MODEL}fingerprint = "A"', "models[0].fingerprint is 'A', must be 64 lower-case"),
    ],
)
def test_an_error_names_file_and_setting(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "server.toml"))
    assert expected in message
    assert "\n" not in message


def test_a_model_inherits_limits_missing_from_its_own_table(tmp_path: Path) -> None:
    limits = "[engine.requests]\nprompts = 3\nchoices = 5\n"
    config = read(tmp_path, f"{limits}{MODEL}[models.requests]\nprompts = 9\n")
    requests = config.model_configs["m"].engine.requests
    assert (requests.prompts, requests.choices) == (9, 5)


def test_lists_of_choices_are_relative_to_the_file(tmp_path: Path) -> None:
    common = '[engine.choices]\narticles = "a.txt"\ntowns = "/t.txt"\n'
    own = MODEL.replace('"m"', '"n"') + '[models.choices]\narticles = "b.txt"\n'
    text = f"{common}{MODEL}{own}"
    engines = {name: each.engine for name, each in read(tmp_path, text).model_configs.items()}
    assert engines["m"].choices == {"articles": tmp_path / "a.txt", "towns": Path("/t.txt")}
    assert engines["n"].choices == {"articles": tmp_path / "b.txt"}
    config = read(tmp_path, text, **{"engine.choices": ["x=y=z.txt"]})
    assert config.model_configs["n"].engine.choices == {"x": Path("y=z.txt")}


def test_an_error_of_the_command_line_does_not_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^engine\.threads is 0"):
        read(tmp_path, MODEL, **{"engine.threads": 0})


def test_an_error_of_the_command_line_names_what_was_typed() -> None:
    given, names = {"engine.requests.beams": 0}, {"engine.requests.beams": "--max-beams"}
    source = ConfigSource(given={"models": {"m": Path("p")}, **given}, names=names)
    with pytest.raises(ConfigError, match=r"^--max-beams is 0, must be in \[1, "):
        source.read()


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml cannot be read: No such file"):
        ConfigSource(file=tmp_path / "nowhere.toml").read()
