"""Messages to a file and to the console."""

import asyncio
import json
import threading
from pathlib import Path

import pytest
from tests.support.outbox import outgoing

from gpt2flow.agent.delivery.local import ConsoleTransport, FileTransport
from gpt2flow.agent.delivery.message import DeliveryError, OutgoingMessage, Transport
from gpt2flow.agent.errors import InputError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "messages.jsonl"


def append(transport: Transport, message: OutgoingMessage) -> None:
    asyncio.run(transport.send(message))


def keys(file: Path) -> list[str]:
    lines = file.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["data"]["key"] for line in lines]


def test_messages_are_appended_as_lines(file: Path) -> None:
    transport = FileTransport(file)
    for key in ("a", "b"):
        append(transport, outgoing(key, text="你好\nAnn"))
    first, _ = file.read_text(encoding="utf-8").splitlines()
    assert json.loads(first) == outgoing("a", text="你好\nAnn").payload()
    assert keys(file) == ["a", "b"]


def test_a_key_is_written_once_by_whichever_process(file: Path) -> None:
    first, second = FileTransport(file), FileTransport(file)
    for transport in (first, second, FileTransport(file)):
        append(transport, outgoing("a"))
    append(second, outgoing("b"))
    append(first, outgoing("b"))
    assert keys(file) == ["a", "b"]


def test_a_line_that_a_crash_cut_off_is_replaced(file: Path) -> None:
    transport = FileTransport(file)
    append(transport, outgoing("a"))
    whole = file.read_bytes()
    for end in (1, 10, len(whole) - 1):
        file.write_bytes(whole + whole[:end])
        append(FileTransport(file), outgoing("b"))
        assert keys(file) == ["a", "b"]
        file.write_bytes(whole)
    # By a process that was running before, too.
    file.write_bytes(whole + whole[:10])
    append(transport, outgoing("b"))
    assert keys(file) == ["a", "b"]


def test_a_file_that_was_moved_away_is_made_anew(file: Path) -> None:
    transport = FileTransport(file)
    append(transport, outgoing("a"))
    file.rename(file.with_suffix(".old"))
    append(transport, outgoing("b"))
    assert keys(file) == ["b"]


def test_threads_write_whole_lines(file: Path) -> None:
    transport = FileTransport(file)
    threads = [
        threading.Thread(target=transport._append, args=(outgoing(f"{n}", text="x" * 9000),))
        for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(keys(file), key=int) == [str(n) for n in range(20)]


@pytest.mark.parametrize("content", ["notes", "notes\n", '{"type": "order"}\n', "[]\n", "\n"])
def test_another_file_is_refused_and_stays_as_it_is(file: Path, content: str) -> None:
    file.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"messages\.jsonl"):
        FileTransport(file)
    assert file.read_text(encoding="utf-8") == content


def test_a_file_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere/x: No such file or directory"):
        FileTransport(tmp_path / "nowhere" / "x")


def test_a_folder_that_went_away_is_a_temporary_failure(file: Path) -> None:
    folder = file.parent / "folder"
    folder.mkdir()
    transport = FileTransport(folder / "x")
    (folder / "x").unlink()
    folder.rmdir()
    with pytest.raises(DeliveryError, match="No such file") as raised:
        append(transport, outgoing())
    assert not raised.value.is_permanent


def test_a_console_that_is_closed_is_a_temporary_failure() -> None:
    printed: list[str] = []
    append(ConsoleTransport(lambda message: printed.append(message.text)), outgoing("a"))
    assert printed == ["text of a"]

    def fail(_: OutgoingMessage) -> None:
        raise BrokenPipeError

    with pytest.raises(DeliveryError) as raised:
        append(ConsoleTransport(fail), outgoing("a"))
    assert not raised.value.is_permanent
