"""Hub of models on loopback, which speaks what `huggingface_hub` asks for."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

_MODEL = re.compile(r"/api/models/(?P<id>[^?]+?)(?:/revision/(?P<revision>[^/?]+))?")
_FILE = re.compile(r"/(?P<id>.+?)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")
# Longer than any test, which ends the hub before.
_SILENCE = 300


def commit_of(directory: Path) -> str:
    """Return a name of a directory's content, as long as a commit's."""
    digest = hashlib.sha256()
    for path in sorted(directory.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:40]


@dataclass
class ModelHub:
    """Models by id, and what goes wrong with them.

    Attributes:
        address: Address of the hub.
        models: Directory of each revision of each model.
        moved: New ids by old ones, which the hub redirects.
        token: Token that reads need; None lets everyone read.
        faults: What goes wrong, by a part of the path: an HTTP status, `silent`, `loop`, `half`
            (every answer ends early), `half once`, `stall` (after half a file), `page` (no hub
            answers).
        requests: Methods and paths of all requests, in order.
        stalled: Set when an answer stalls.
        ended: Set when the hub ends.
    """

    address: str = ""
    models: dict[str, dict[str, Path]] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    token: str | None = None
    faults: dict[str, int | str] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    stalled: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    def add(self, model_id: str, directory: Path, revision: str = "main") -> str:
        """Add a model, and return its commit."""
        commit = commit_of(directory)
        self.models.setdefault(model_id, {}).update({revision: directory, commit: directory})
        return commit

    def downloaded(self) -> list[str]:
        """Return the names of the files that were sent, in order."""
        found = [_FILE.fullmatch(path) for method, path in self.requests if method == "GET"]
        return [match["name"] for match in found if match]


@contextmanager
def running_hub() -> Iterator[ModelHub]:
    """Run a hub in threads of this process."""
    hub = ModelHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[ModelHub]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, *_arguments: object) -> None:
        """Print nothing."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path))
        fault = next((fault for part, fault in self.hub.faults.items() if part in path), None)
        if fault == "silent":
            self.hub.ended.wait(_SILENCE)
            self.close_connection = True
        elif fault == "loop":
            self._send(302, headers={"Location": self.path})
        elif fault == "page":
            self._send(200, b"<html>Log in to the network</html>")
        elif isinstance(fault, int):
            self._send(fault)
        elif self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._send(401, headers={"X-Error-Code": "RepoNotFound"})
        else:
            self._find(path, fault)

    def _find(self, path: str, fault: str | None) -> None:
        match = _MODEL.fullmatch(path) or _FILE.fullmatch(path)
        if match is None:
            self._send(404)
            return
        if new := self.hub.moved.get(match["id"]):
            self._send(307, headers={"Location": self.path.replace(match["id"], new, 1)})
            return
        revisions = self.hub.models.get(match["id"])
        directory = (revisions or {}).get(match["revision"] or "main")
        name = match.groupdict().get("name")
        if directory is None:
            code = "RepoNotFound" if revisions is None else "RevisionNotFound"
            self._send(404, headers={"X-Error-Code": code})
        elif name is None:
            self._send(200, self._describe(match["id"], directory))
        elif not (directory / name).is_file():
            self._send(404, headers={"X-Error-Code": "EntryNotFound"})
        else:
            self._send_file(directory, name, fault)

    def _describe(self, model_id: str, directory: Path) -> bytes:
        files = [
            {"rfilename": path.name, "size": path.stat().st_size, "blobId": "0"}
            for path in sorted(directory.iterdir())
        ]
        described = {"id": model_id, "sha": commit_of(directory), "siblings": files}
        return json.dumps(described | {"private": False, "tags": [], "downloads": 0}).encode()

    def _send_file(self, directory: Path, name: str, fault: str | None) -> None:
        content = (directory / name).read_bytes()
        start = 0
        if fault != "half" and (wanted := self.headers.get("Range")):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        headers = {
            "X-Repo-Commit": commit_of(directory),
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}",
        }
        if not start:
            del headers["Content-Range"]
        self._send_headers(206 if start else 200, len(content) - start, headers)
        if self.command == "HEAD":
            return
        if fault is None or (fault == "half once" and start):
            self.wfile.write(content[start:])
            return
        self.wfile.write(content[start : start + (len(content) - start) // 2])
        self.wfile.flush()
        if fault == "stall":
            self.hub.stalled.set()
            self.hub.ended.wait(_SILENCE)
        self.close_connection = True

    def _send(
        self, status: int, content: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        self._send_headers(status, len(content), headers or {})
        if self.command != "HEAD":
            self.wfile.write(content)

    def _send_headers(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(length)}).items():
            self.send_header(name, value)
        self.end_headers()
