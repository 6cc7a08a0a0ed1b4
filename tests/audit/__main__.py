"""Advisories about the pinned packages.

Runs as `python -m tests.audit [--only-report] [--osv-url URL]`. It asks PyPI, or a service like
OSV. Without an answer it says so and exits with 0; with an advisory that `exceptions.toml` does not
accept, it exits with 1.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from tests.audit.report import AcceptedAdvisory, Report, UnreachableError, read_exceptions
from tests.support.project import PROJECT

LOCKS = (PROJECT / "constraints.txt", PROJECT / "constraints-reference.txt")
EXCEPTIONS = Path(__file__).with_name("exceptions.toml")
_SECONDS = 600


def main() -> None:
    """Ask for the packages of every lock file, and print findings."""
    parser = argparse.ArgumentParser(prog="python -m tests.audit", description=__doc__)
    parser.add_argument(
        "--only-report", action="store_true", help="Exit with 0, whatever is found."
    )
    parser.add_argument("--osv-url", help="Service to ask, with OSV's API; default: PyPI.")
    parser.add_argument("locks", type=Path, nargs="*", default=LOCKS, help="Files of pins.")
    options = parser.parse_args()
    accepted = read_exceptions(EXCEPTIONS)
    try:
        found = sum(_audit(lock, options.osv_url, accepted) for lock in options.locks)
    except UnreachableError as error:
        sys.stderr.write(f"No advisories were looked up: {error}\n")
        return
    sys.exit(1 if found and not options.only_report else 0)


def _audit(lock: Path, osv_url: str | None, accepted: list[AcceptedAdvisory]) -> int:
    """Print the open findings about a file of pins, and count them.

    Raises:
        UnreachableError: The service does not answer.
    """
    report = Report.parse(_ask(lock, osv_url))
    findings = report.open_findings(accepted)
    covered = len(report.findings) - len(findings)
    counts = f"{report.known} packages, {len(findings)} open advisories, {covered} accepted"
    lines = [f"{lock.name}: {counts}", *(f"  {finding}" for finding in findings)]
    if report.unknown:
        lines.append(f"  unknown to the service: {', '.join(report.unknown)}")
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return len(findings)


def _ask(lock: Path, osv_url: str | None) -> str:
    """Return the JSON that pip-audit writes about a file of pins.

    Raises:
        UnreachableError: It ended without one.
    """
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(lock)]
    # The file names every package, so nothing is installed to find more of them.
    command += ["--no-deps", "--disable-pip", "--progress-spinner=off", "--format=json"]
    command += ["--vulnerability-service=osv", f"--osv-url={osv_url}"] if osv_url else []
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UnreachableError(f"no answer in {_SECONDS} s") from error
    if not done.stdout.strip():
        lines = done.stderr.strip().splitlines()
        raise UnreachableError(lines[-1] if lines else f"pip-audit exited with {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    main()
