"""Names of settings as options, variables and keys, and their reference page."""

from collections import Counter
from pathlib import Path

import pytest
import typer
from tests.support.project import PROJECT
from typer.testing import CliRunner

from gpt2flow.cli.commands import serve as command
from gpt2flow.cli.connection import DEFAULT_ADDRESS
from gpt2flow.cli.outcome import CommandError
from gpt2flow.server import ServerConfig
from gpt2flow.server.config.reference import ADDRESS, Setting, page, settings


def test_the_reference_page_is_up_to_date() -> None:
    """Run `make docs` to update it."""
    assert (PROJECT / "docs" / "settings.md").read_text(encoding="utf-8") == page()


def test_no_two_settings_share_an_option() -> None:
    options = Counter(each.option for each in settings())
    assert max(options.values()) == 1
    assert {"--threads", "--max-message-size", "--tls-key", "--max-stop-strings"} <= set(options)


def test_every_setting_has_a_description_and_type() -> None:
    for each in settings():
        assert each.meaning.endswith("."), each.key
        assert each.kind in (bool, int, float, str, Path, list[str]), each.key


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[ServerConfig]:
    """Settings of each started server; no server runs."""
    configs: list[ServerConfig] = []
    monkeypatch.setattr("gpt2flow.server.app.serve", lambda config, *_: configs.append(config))
    return configs


def run(*arguments: str, code: int = 0, **variables: str) -> str:
    """Run the command, which exits with `code`; return its output."""
    app = typer.Typer()
    command.add_commands(app)
    environment = {f"GPT2FLOW_SERVER_{key}": value for key, value in variables.items()}
    runner = CliRunner(env=environment | {"COLUMNS": "400"})
    result = runner.invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def test_an_option_switches_off_what_the_file_switches_on(
    tmp_path: Path, started: list[ServerConfig]
) -> None:
    file = tmp_path / "server.toml"
    file.write_text('[security]\ninsecure = true\n[[models]]\nname = "m"\npath = "p"\n')
    run("--config", str(file))
    run("--config", str(file), "--no-insecure", "--no-speculation")
    assert [each.security.insecure for each in started] == [True, False]
    assert [each.engine.speculation for each in started] == [True, False]


def test_an_option_overrides_its_variable_which_overrides_the_file(
    tmp_path: Path, started: list[ServerConfig]
) -> None:
    file = tmp_path / "server.toml"
    file.write_text(
        "[engine]\nthreads = 1\nmax_queued = 1\nprefill_chunk = 1\n"
        '[[models]]\nname = "m"\npath = "p"\n'
    )
    run("--threads", "3", THREADS="2", MAX_QUEUED="2", CONFIG=str(file))
    [config] = started
    engine = config.model_configs["m"].engine
    assert (engine.threads, engine.max_queued, engine.prefill_chunk) == (3, 2, 1)


NUMBERS = [each for each in settings() if each.kind in {int, float} and each.key != "port"]


@pytest.mark.parametrize("setting", NUMBERS, ids=lambda each: each.key)
def test_an_error_names_the_option_or_variable_that_was_given(
    setting: Setting, started: list[ServerConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CommandError, match=f"^{setting.option} is -1(.0)?, must be in "):
        run("--model", "m=p", setting.option, "-1")
    monkeypatch.setenv(setting.variable, "-1")
    with pytest.raises(CommandError, match=f"^{setting.variable} is -1(.0)?, must be in "):
        run("--model", "m=p")
    assert not started


def test_a_variable_of_another_type_is_named(started: list[ServerConfig]) -> None:
    output = run("--model", "m=p", code=2, THREADS="many")
    assert "Invalid value for '--threads' (env var: 'GPT2FLOW_SERVER_THREADS')" in output
    assert not started


def test_the_help_shows_every_default() -> None:
    output = run("--help")
    for each in settings():
        if each.default and each.key not in ADDRESS:
            assert f"{each.meaning} Default: {each.default}." in output
    assert f"Default: {DEFAULT_ADDRESS}." in output


def test_environment_variables_alone_start_a_server(started: list[ServerConfig]) -> None:
    run(
        MODEL="shop=bundles/shop",
        ADDRESS="127.0.0.1:0",
        KV_CACHE_MEMORY="512MB",
        METRICS_ADDRESS="127.0.0.1:9464",
        SPECULATION="false",
    )
    [config] = started
    assert config.models == {"shop": Path("bundles/shop")}
    assert (config.host, config.port) == ("127.0.0.1", 0)
    assert config.engine.kv_cache_memory == 512_000_000
    assert config.telemetry.metrics_address == ("127.0.0.1", 9464)
    assert not config.engine.speculation
