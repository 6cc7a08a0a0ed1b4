"""Tests of the commands with which people handle cases."""

import itertools
import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.support.command_line import gpt2flow
from tests.support.desk import BEN, change, changes, hand_over, hear, large_refund, new_desk, texts
from tests.support.shop import CODE, Clock, Shop
from tests.support.stopped_screens import png, stopped

from gpt2flow.agent.flows import load_flows
from gpt2flow.agent.shop import Database, database_url
from gpt2flow.agent.turns.execution import Executor
from gpt2flow.cli.main import main
from gpt2flow.files.tokens import Right, make_token

HOLDERS: list[tuple[str, Right | None, Decimal | None]] = [
    ("ben", "approve", None),
    ("eva", "approve", Decimal(100)),
    ("hal", "handle", None),
    ("shop-agent", None, None),
]
AS_BEN = ["--tokens", "tokens.toml", "--token-file", "ben"]
AS_HAL = ["--tokens", "tokens.toml", "--token-file", "hal"]
Run = Callable[..., tuple[object, str, str]]


def open_shop(path: Path) -> Shop:
    book, clock = load_flows(), Clock(datetime.now(UTC))
    database = Database.open(database_url(str(path)))
    return Shop(book, database, clock, Executor(book, database, clock, lambda: CODE, 0.5))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shop with a refund, a conversation, and people with tokens."""
    folder = tmp_path_factory.mktemp("cases")
    shop = open_shop(folder / "gpt2flow.sqlite")
    large_refund(shop)
    hear(shop, "[bold]hello[/bold] :+1:")
    hand_over(shop, "a human please")
    shop.database.close()
    entries = []
    for name, may, up_to in HOLDERS:
        token, entry = make_token(name, ValueError, may=may, up_to=up_to)
        (folder / name).write_text(token + "\n", encoding="utf-8")
        entries.append(entry)
    (folder / "tokens.toml").write_text("\n".join(entries), encoding="utf-8")
    (folder / "unknown").write_text("g2f_unknown", encoding="utf-8")
    (folder / "binary").write_bytes(b"\xff")
    (folder / "broken.toml").write_text("[[token]]\nname = 'ben'\n", encoding="utf-8")
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy of the shop, as the working directory."""
    copy = tmp_path / "work"
    shutil.copytree(template, copy)
    monkeypatch.chdir(copy)
    for variable in ("GPT2FLOW_DATABASE", "GPT2FLOW_TOKENS", "GPT2FLOW_TOKEN_FILE"):
        monkeypatch.delenv(variable, raising=False)
    return copy


@pytest.fixture
def shop(folder: Path) -> Iterator[Shop]:
    shop = open_shop(folder / "gpt2flow.sqlite")
    yield shop
    shop.database.close()


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command of the agent in this process, which is faster."""
    del folder

    def run(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["gpt2flow", "agent", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capsys.readouterr()

    return run


def view(run: Run, case: str = "C-1") -> dict[str, Any]:
    code, out, _ = run("show", case, "--json")
    assert code == 0
    shown: dict[str, Any] = json.loads(out)
    return shown


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["inbox", "--limit", "0"], "Invalid value for '--limit'"),
        (["show", "C-1", "--messages", "0"], "Invalid value for '--messages'"),
        (["show", "C-1", "--messages", "all"], "Invalid value for '--messages'"),
        (["show", "C-1", "--messages", "9", "--all"], "--all and --messages exclude each other"),
        (["inbox", "--database", ""], "the database is empty"),
        (["inbox", "--database", "nowhere.sqlite"], "database nowhere.sqlite: there is no such fi"),
        (["inbox", "--database", "mysql://x/y"], "database 'mysql' is not supported"),
        (["inbox", "--flows", "nowhere"], "nowhere/shared.yaml"),
        (["inbox", "C-1"], "unexpected extra argument"),
        (["show"], "Missing argument '<case>'"),
        (["show", "C-9"], "there is no case C-9"),
        (["show", "C-0"], "case is 'C-0', must be a number such as C-7"),
        (["show", "SO-1001"], "case is 'SO-1001', must be a number such as C-7"),
        (["show", "1" + "0" * 30], "must be a number such as C-7"),
        (["show", "７"], "case is '７', must be a number such as C-7"),
        (["show", ""], "case is '', must be a number such as C-7"),
        (["assign", "C-1"], "--tokens is missing: it tells who acts; `gpt2flow token NAME --may"),
        (["close", "C-2", "--tokens", "tokens.toml"], "--token-file is missing: it tells who acts"),
        (["assign", "C-1", *AS_BEN[:3], "nowhere"], "--token-file nowhere: [Errno 2] No such file"),
        (["assign", "C-1", *AS_BEN[:3], "binary"], "--token-file binary: 'utf-8' codec"),
        (["assign", "C-1", "--tokens", "nowhere", *AS_BEN[2:]], "--tokens nowhere: No such file"),
        (["assign", "C-1", "--tokens", "broken.toml", *AS_BEN[2:]], "entry 1 ('ben'): sha256"),
        (["assign", "C-1", *AS_BEN[:3], "unknown"], "the token is unknown in tokens.toml"),
        (["assign", "C-1", *AS_BEN[:3], "shop-agent"], "'shop-agent' may not handle cases; the"),
        (["assign", "C-1", "--to", "bne", *AS_BEN], "assignee is 'bne', must be agent or a person"),
        (["assign", "C-1", "--to", "", *AS_BEN], "assignee is '', must be agent or a person in"),
        (["assign", "C-1", "--to", "agent", *AS_BEN], "only a hand_over goes back to the agent"),
        (["approve", "C-1", *AS_BEN], "--seen is missing: look at `gpt2flow agent show C-1`, and"),
        (["reject", "C-1", "No.", *AS_BEN], "--seen is missing: look at `gpt2flow agent show C-1`"),
        (["approve", "C-1", "--seen", "x", "--amount", "5 €", *AS_BEN], "--amount is '5 €', must"),
        (["approve", "C-1", "--seen", "x", "--amount", "-5", *AS_BEN], "--amount is '-5', must be"),
        (["approve", "C-1", "--seen", "x", "--amount", "nan", *AS_BEN], "--amount is 'nan', must"),
        (["approve", "C-1", "--seen", "x", "--amount", "1e2", *AS_BEN], "--amount is '1e2', must"),
        (["approve", "C-1", "--seen", "x", "--amount", "٥", *AS_BEN], "must be an amount such as"),
        (["approve", "C-1", "--seen", "x", "--amount", "0", *AS_BEN], "amount is 0, must be above"),
        (["approve", "C-1", "--seen", "x", "--amount", "0.001", *AS_BEN], "--amount is '0.001'"),
        (
            ["approve", "C-1", "--seen", "x", "--amount", "267.01", *AS_BEN],
            "at most 267.00, the to",
        ),
        (["approve", "C-1", "--seen", "x", *AS_HAL], "hal may not decide claims; the entry in the"),
        (["approve", "C-1", "--seen", "x", *AS_BEN[:3], "eva"], "eva may approve up to 100.00"),
        (["approve", "C-2", "--seen", "x", *AS_BEN], "case C-2 (hand_over) is open; only a claim"),
        (["reject", "C-1", *AS_BEN], "Missing argument"),
        (["reject", "C-1", "", "--seen", "x", *AS_BEN], "the text is empty"),
        (["reject", "C-1", "No.", "--seen", "x", *AS_HAL], "hal may not decide claims"),
        (["reply", "C-2", *AS_BEN], "Missing argument"),
        (["reply", "C-2", " ", *AS_BEN], "the text is empty"),
        (["reply", "C-2", "x" * 2001, *AS_BEN], "text too long: 2,001 characters, limit 2,000"),
        (["reply", "C-2", "a\x1b[31mb", *AS_BEN], "the text has the control character '\\x1b'"),
        (["reply", "C-2", "a\udcffb", *AS_BEN], "TEXT is 'a\\udcffb', must be valid UTF-8"),
        (["close", "C-2", "--note", "", *AS_BEN], "the note is empty"),
        (["close", "C-1", *AS_BEN], "case C-1 needs a decision: approve or reject it"),
    ],
)
def test_a_mistake_is_reported_on_one_line(run: Run, arguments: list[str], message: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("gpt2flow: error: ")
    assert message in err
    assert err.count("\n") == 1


def test_a_mistake_changes_nothing(run: Run, shop: Shop) -> None:
    before = changes(shop)
    run("approve", "C-1", "--seen", "x", *AS_BEN)
    run("assign", "C-1", "--to", "bne", *AS_BEN)
    assert (changes(shop), texts(shop)) == (before, [])


def test_the_inbox_is_listed(run: Run) -> None:
    code, out, err = run("inbox")
    assert (code, err) == (0, "")
    refund, conversation = (line for line in out.splitlines() if "C-" in line)
    for text in ("C-1", "refund", "awaiting_approval", "Ann", "SO-1001", "267.00"):
        assert text in refund
    assert "hand_over" in conversation
    assert max(map(len, out.splitlines())) <= 120
    lines = json.loads(run("inbox", "--json")[1])
    assert [line["case"] for line in lines] == ["C-1", "C-2"]
    assert len(json.loads(run("inbox", "--limit", "1", "--json")[1])) == 1
    assert run("inbox", "--assignee", "ben")[1] == "no cases\n"
    assert json.loads(run("inbox", "--assignee", "ben", "--json")[1]) == []


def test_a_case_is_shown_as_it_was_written(run: Run) -> None:
    _, out, _ = run("show", "c-1")
    for text in (
        "C-1 refund",
        "awaiting_approval",
        "Ann, ann@example.com",
        "SO-1001, delivered ",
        "total 267.00",
        "3 × bluetooth-headphones (89.00)",
        "approval_over=200.00",
        "customer: [bold]hello[/bold] :+1:",
        "opened by agent",
        f"digest    {view(run)['digest']}",
    ):
        assert text in out
    # The code with which Ann logged in.
    assert CODE not in out


def test_the_latest_messages_of_a_case_are_shown(run: Run, shop: Shop) -> None:
    whole = json.loads(run("show", "C-1", "--all", "--json")[1])
    _, out, _ = run("show", "C-1", "--messages", "1")
    count = len(whole["conversation"])
    assert f"… {count - 1} earlier messages; --all shows them" in out
    assert whole["conversation"][-1]["text"] in out
    # The last one is an answer of the shop.
    assert "customer: " not in out
    assert "earlier changes" not in out
    shown = json.loads(run("show", "C-1", "--messages", "1", "--json")[1])
    assert (shown["earlier_messages"], len(shown["conversation"])) == (count - 1, 1)
    assert shown["digest"] == whole["digest"]
    desk = new_desk(shop)
    for _ in range(30):
        desk.assign(BEN, "C-1", to="hal")
        desk.assign(BEN, "C-1", to="eva")
    assert "… 11 earlier changes; --all shows them" in run("show", "C-1")[1]
    assert "earlier" not in run("show", "C-1", "--all")[1]


def test_a_conversation_is_shown_with_the_proposal(run: Run) -> None:
    _, out, _ = run("show", "C-2")
    assert "escalate {}, confidence 1.0" in out
    assert "customer: a human please" in out
    assert "policies" not in out


def test_pictures_of_stopped_screens_are_saved(run: Run, shop: Shop, folder: Path) -> None:
    assert run("show", "C-2", "--pictures", "pictures")[1].endswith("\nC-2 has no pictures\n")
    assert not (folder / "pictures").exists()
    # The first ones are those of the template.
    shop.keys = itertools.count(100)
    for shade in (1, 2):
        stopped(shop, picture=png(shade))
    _, out, _ = run("show", "C-2")
    assert "pictures  2 of stopped screens; --pictures DIR saves them" in out
    assert "stopped by agent" in out
    for _ in range(2):
        code, out, err = run("show", "C-2", "--pictures", "pictures")
        assert (code, err) == (0, "")
        assert out.endswith("\npictures/C-2-1.png\npictures/C-2-2.png\n")
    saved = {path.name: path.read_bytes() for path in (folder / "pictures").iterdir()}
    assert saved == {"C-2-1.png": png(1), "C-2-2.png": png(2)}
    code, out, _ = run("show", "C-2", "--pictures", ".", "--json")
    assert [picture["id"] for picture in json.loads(out)["pictures"]] == [2, 1]
    assert (folder / "C-2-1.png").read_bytes() == png(1)


@pytest.mark.parametrize(
    "where, message",
    [
        ("nowhere/deep", "--pictures nowhere/deep: No such file or directory"),
        ("hal", "--pictures hal: Not a directory"),
        ("/proc/pictures", "--pictures /proc/pictures: No such file or directory"),
    ],
)
def test_a_directory_for_pictures_that_cannot_be_is_named(
    run: Run, shop: Shop, where: str, message: str
) -> None:
    shop.keys = itertools.count(100)
    stopped(shop, picture=png())
    code, out, err = run("show", "C-2", "--pictures", where)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_claim_is_taken_approved_and_closed(run: Run, shop: Shop) -> None:
    assert run("assign", "C-1", "--to", " hal ", *AS_BEN)[:2] == (
        0,
        "C-1 refund: assigned by ben, now awaiting_approval\n",
    )
    assert [line["case"] for line in json.loads(run("inbox", "--assignee", "hal", "--json")[1])]
    run("assign", "C-1", *AS_BEN)
    seen = view(run)["digest"]
    code, out, err = run("approve", "C-1", "--amount", "200", "--seen", seen, *AS_BEN)
    assert (code, out, err) == (0, "C-1 refund: approved by ben, now approved\n", "")
    assert texts(shop)[-1].endswith("Amount: 200.00.")
    code, out, _ = run("close", "C-1", "--note", "Paid.", "--json", *AS_BEN)
    assert (code, json.loads(out)["status"]) == (0, "closed")
    assert [each for _, each in changes(shop)][-4:] == [
        "assigned",
        "assigned",
        "approved",
        "closed",
    ]
    assert [line["case"] for line in json.loads(run("inbox", "--json")[1])] == ["C-2"]
    assert len(json.loads(run("inbox", "--all", "--json")[1])) == 2


def test_a_claim_is_rejected(run: Run, shop: Shop) -> None:
    seen = view(run)["digest"]
    code, out, _ = run("reject", "C-1", "It was worn.\nSorry.", "--seen", seen, *AS_BEN)
    assert (code, out) == (0, "C-1 refund: rejected by ben, now rejected\n")
    assert texts(shop)[-1].endswith("It was worn.\nSorry.")


def test_a_conversation_is_answered_and_given_back(run: Run, shop: Shop) -> None:
    assert run("reply", "C-2", "Hello", *AS_HAL)[1] == "C-2 hand_over: replied by hal, now open\n"
    assert hear(shop, "hi")[0].attended_by == "hal"
    assert "returned by hal, now closed" in run("assign", "C-2", "--to", "agent", *AS_HAL)[1]
    assert hear(shop, "hi again")[0].attended_by is None


def test_who_acts_can_be_told_by_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPT2FLOW_TOKENS", "tokens.toml")
    monkeypatch.setenv("GPT2FLOW_TOKEN_FILE", "hal")
    assert "assigned by hal" in run("assign", "C-1")[1]


@pytest.mark.parametrize("command", [["approve", "C-1"], ["reject", "C-1", "No."]])
def test_a_case_that_changed_is_shown_again(run: Run, shop: Shop, command: list[str]) -> None:
    seen = view(run)["digest"]
    change(shop, "C-1", amount=Decimal(250))
    code, out, err = run(*command, "--seen", seen, *AS_BEN)
    assert code == 2
    assert err.count("\n") == 1
    assert f"case C-1 is not as it was shown with digest '{seen}': look at it again" in err
    assert "amount    250.00" in out
    assert view(run)["digest"] in out
    assert texts(shop) == []
    code, out, _ = run(*command, "--seen", seen, "--json", *AS_BEN)
    assert (code, json.loads(out)["digest"]) == (2, view(run)["digest"])


def decide_in_terminal(answer: str) -> tuple[int, str, str]:
    """Approve the claim as Ben, who answers the question in a terminal."""
    terminal, stdin = pty.openpty()
    try:
        os.write(terminal, answer.encode())
        command = [sys.executable, "-m", "gpt2flow.cli", "agent", "approve", "C-1", *AS_BEN]
        done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, check=False)
    finally:
        os.close(terminal)
        os.close(stdin)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.process
@pytest.mark.parametrize("answer, code, sent", [("y\n", 0, 1), ("n\n", 130, 0), ("\n", 130, 0)])
def test_a_person_in_a_terminal_sees_the_case_first(
    shop: Shop, answer: str, code: int, sent: int
) -> None:
    returned, out, err = decide_in_terminal(answer)
    assert returned == code
    page, _, question = (out + err).partition("Approve refund C-1? [y/N]: ")
    assert question or not sent
    assert "total 267.00" in page
    assert len(texts(shop)) == sent


@pytest.mark.process
def test_one_of_two_processes_that_decide_at_once_wins(run: Run, shop: Shop) -> None:
    seen = ["--seen", view(run)["digest"], *AS_BEN]
    commands = [["agent", "approve", "C-1", *seen], ["agent", "reject", "C-1", "No.", *seen]]
    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(lambda arguments: gpt2flow(*arguments), commands))
    assert sorted(code for code, _, _ in results) == [0, 2]
    [error] = [err for code, _, err in results if code == 2]
    assert "only a claim that is awaiting_approval can be decided" in error
    assert len(texts(shop)) == 1
    assert [actor for actor, _ in changes(shop)].count("ben") == 1


def test_an_expired_token_and_a_closed_case_are_refused(run: Run, folder: Path) -> None:
    text = (folder / "tokens.toml").read_text(encoding="utf-8")
    expired = text.replace('name = "ben"', 'name = "ben"\nexpires = 2020-01-01T00:00:00Z')
    (folder / "expired.toml").write_text(expired, encoding="utf-8")
    code, _, err = run("close", "C-2", "--tokens", "expired.toml", "--token-file", "ben")
    assert (code, err) == (2, "gpt2flow: error: the token of 'ben' has expired\n")
    assert run("close", "C-2", *AS_BEN)[0] == 0
    for command in (["reply", "C-2", "Hi"], ["close", "C-2"], ["assign", "C-2"]):
        code, _, err = run(*command, *AS_BEN)
        assert code == 2
        assert "case C-2 is closed" in err


def test_no_shop_is_made_by_looking_for_cases(run: Run, folder: Path) -> None:
    run("inbox", "--database", "typo.sqlite")
    assert not (folder / "typo.sqlite").exists()
