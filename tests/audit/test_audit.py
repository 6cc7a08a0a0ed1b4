"""Audit of the pinned packages, with pip-audit and a service on loopback."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.audit.__main__ import EXCEPTIONS, LOCKS
from tests.audit.report import Report, UnreachableError, read_exceptions
from tests.support.command_line import UNREACHABLE
from tests.support.project import PROJECT
from tests.support.waiting import SECONDS

pytestmark = pytest.mark.process

ADVISORIES: dict[tuple[str, str], list[dict[str, Any]]] = {
    ("transformers", "4.57.6"): [
        {"id": "PYSEC-2026-2288", "aliases": ["CVE-2026-1839"], "affected": []},
        {"id": "PYSEC-0000-1", "aliases": [], "affected": []},
    ],
    ("jinja2", "2.10"): [
        {
            "id": "PYSEC-2019-217",
            "aliases": ["CVE-2019-10906"],
            "affected": [
                {
                    "package": {"name": "jinja2", "ecosystem": "PyPI"},
                    "ranges": [{"type": "ECOSYSTEM", "events": [{"fixed": "2.10.1"}]}],
                }
            ],
        }
    ],
}


class Service(BaseHTTPRequestHandler):
    """Advisory service with OSV's API."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        found = ADVISORIES.get((asked["package"]["name"], asked["version"]))
        body = json.dumps({"vulns": found} if found else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def audit(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.audit", *arguments],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "lock.txt"
    path.write_text("jinja2==2.10\nnumpy==2.4.6\ntransformers==4.57.6\n")
    return path


def test_an_advisory_without_an_exception_fails_the_audit(url: str, lock: Path) -> None:
    returned, printed, _ = audit("--osv-url", url, str(lock))
    assert returned == 1
    assert printed.splitlines() == [
        "lock.txt: 3 packages, 2 open advisories, 1 accepted",
        "  jinja2 2.10: CVE-2019-10906, PYSEC-2019-217 (fixed in 2.10.1)",
        "  transformers 4.57.6: PYSEC-0000-1 (not fixed)",
    ]
    returned, printed, _ = audit("--only-report", "--osv-url", url, str(lock))
    assert returned == 0
    assert "2 open advisories" in printed


def test_the_exception_of_one_version_covers_no_other() -> None:
    package = {
        "name": "transformers",
        "version": "4.57.7",
        "vulns": [{"id": "PYSEC-2026-2288", "aliases": [], "fix_versions": ["5.0.0"]}],
    }
    report = Report.parse(json.dumps({"dependencies": [package]}))
    assert report.open_findings(read_exceptions(EXCEPTIONS)) == list(report.findings)


def test_a_service_that_does_not_answer_is_one_line_and_no_failure(lock: Path) -> None:
    returned, printed, err = audit("--osv-url", f"http://{UNREACHABLE}/", str(lock))
    assert (returned, printed) == (0, "")
    assert re.fullmatch(r"No advisories were looked up: .*Connection refused.*\n", err)


def test_a_service_that_knows_no_package_has_not_answered() -> None:
    skipped = {"name": "numpy", "skip_reason": "Dependency not found on PyPI"}
    with pytest.raises(UnreachableError, match="the service knows none of 1 packages"):
        Report.parse(json.dumps({"dependencies": [skipped]}))
    known = {"name": "jinja2", "version": "3.1.6", "vulns": []}
    report = Report.parse(json.dumps({"dependencies": [skipped, known]}))
    assert (report.unknown, report.known) == (("numpy",), 1)


def test_every_exception_is_about_a_pinned_version_and_has_a_reason() -> None:
    pins = {line for lock in LOCKS for line in lock.read_text(encoding="utf-8").splitlines()}
    exceptions = read_exceptions(EXCEPTIONS)
    for exception in exceptions:
        assert f"{exception.package}=={exception.version}" in pins
        assert exception.reason.endswith(".")
    names = [name for exception in exceptions for name in exception.advisories]
    assert len(names) == len(set(names))
