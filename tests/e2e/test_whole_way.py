"""Whole pipeline by commands: text, checkpoint, bundle, server, agent, database rows."""

import json
import sqlite3
from pathlib import Path

from tests.support.bundles import copy_damaged_bundle
from tests.support.command_line import gpt2flow
from tests.support.server_process import server_process


def rows(database: Path, query: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(database) as connection:
        return connection.execute(query).fetchall()


def test_actions_of_a_freshly_trained_model_reach_the_database(tmp_path: Path) -> None:
    """Accept any actions: a model trained for seconds answers badly, but legally."""
    small = ["flow_documents=600", "layers=1", "width=32", "heads=1", "vocabulary_size=700"]
    settings = [argument for setting in small for argument in ("--set", setting)]
    code, _, err = gpt2flow(
        "train", "--recipe", "shop", "--out", "checkpoint", *settings, cwd=tmp_path
    )
    assert code == 0, err
    code, _, err = gpt2flow("export", "checkpoint", "bundle", "--force", cwd=tmp_path)
    assert code == 0, err
    with server_process(tmp_path / "bundle", tmp_path) as server:
        arguments = ("my order is late", "--address", server.address, "--json")
        code, out, err = gpt2flow("agent", "ask", *arguments, cwd=tmp_path)
    assert code == 0, err
    report = json.loads(out)
    actions = [action["action"] for action in report["actions"]]
    assert actions
    database = tmp_path / "gpt2flow.sqlite"
    assert rows(database, "SELECT action FROM executed_actions ORDER BY key") == [
        (action,) for action in actions
    ]
    assert rows(database, "SELECT text FROM outbox ORDER BY id") == [
        (message["text"],) for action in report["actions"] for message in action["messages"]
    ]


def test_agent_carries_out_messages_in_both_languages(address: str, tmp_path: Path) -> None:
    lines = [
        {"session": "a", "text": "please add 2 umbrellas to my cart", "id": "1"},
        {"session": "b", "text": "我要买三个保温杯", "id": "1"},
        {"session": "a", "text": "please add 2 umbrellas to my cart", "id": "1"},
    ]
    (tmp_path / "messages.jsonl").write_text("\n".join(map(json.dumps, lines)))
    code, out, err = gpt2flow("agent", "run", "messages.jsonl", "--address", address, cwd=tmp_path)
    assert code == 0, err
    assert len(out.splitlines()) == len(lines)
    # The third line repeats the first one, and is not carried out again.
    assert rows(
        tmp_path / "gpt2flow.sqlite",
        "SELECT session_id, sku, quantity FROM cart_lines ORDER BY session_id",
    ) == [("a", "umbrella", 2), ("b", "water-bottle", 3)]


def test_unknown_model_is_refused_and_leaves_nothing(address: str, tmp_path: Path) -> None:
    code, _, err = gpt2flow(
        "agent", "ask", "hello", "--address", address, "--model", "absent", cwd=tmp_path
    )
    assert code == 2
    assert err.strip().splitlines()[-1].startswith("gpt2flow: error: ")
    assert "'absent'" in err
    database = tmp_path / "gpt2flow.sqlite"
    assert rows(database, "SELECT count(*) FROM executed_actions") == [(0,)]
    assert rows(database, "SELECT count(*) FROM outbox") == [(0,)]


def test_corrupt_bundle_is_refused_by_name(bundle: Path, tmp_path: Path) -> None:
    copy_damaged_bundle(bundle, tmp_path / "bundle")
    code, _, err = gpt2flow("serve", "--model", "bundle", "--address", "127.0.0.1:0", cwd=tmp_path)
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert "model.onnx.data" in err


def test_an_unwritable_database_is_reported_by_name(address: str, tmp_path: Path) -> None:
    """Put a directory in the place of the database."""
    (tmp_path / "shop.sqlite").mkdir()
    code, _, err = gpt2flow(
        "agent", "ask", "hello", "--address", address, "--database", "shop.sqlite", cwd=tmp_path
    )
    assert code == 1
    assert "shop.sqlite" in err.strip().splitlines()[-1]
    assert "Traceback" not in err
    assert list((tmp_path / "shop.sqlite").iterdir()) == []
