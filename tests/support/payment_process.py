"""Payment service as a process, and requests to it."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from tests.support.project import PROJECT
from tests.support.waiting import SECONDS, eventually

from gpt2flow.agent.payments.port import PaymentKind, PaymentRequest


@dataclass(frozen=True)
class PaymentProcess:
    """Process of `gpt2flow agent payment-service` on a free port of 127.0.0.1.

    Attributes:
        process: The process.
        url: URL of the service.
        log: File of its log.
    """

    process: "subprocess.Popen[str]"
    url: str
    log: Path

    def kill(self) -> None:
        """Send SIGKILL, and wait until the process is gone."""
        self.process.kill()
        self.process.wait(SECONDS)

    def stop(self) -> int:
        """Send SIGTERM, and return the exit code."""
        self.process.terminate()
        return self.process.wait(SECONDS)


@contextmanager
def payment_service(folder: Path, *options: str, port: int = 0) -> Iterator[PaymentProcess]:
    """Run the payment service until the block ends.

    Args:
        folder: Directory of its data, `payments.sqlite`, its log and its ready file.
        options: Further options of the command.
        port: Port to serve on; 0 picks a free one.

    Yields:
        The process, once it serves.
    """
    ready, log = folder / "payments.port", folder / "payments.log"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "gpt2flow.cli", "agent", "payment-service"]
    given = ["--address", f"127.0.0.1:{port}", "--data", str(folder / "payments.sqlite")]

    def is_ready() -> bool:
        assert process.poll() is None, log.read_text()
        return ready.exists()

    with (
        log.open("ab") as output,
        subprocess.Popen(
            [*command, *given, "--ready-file", str(ready), *options],
            cwd=PROJECT,
            stderr=output,
            text=True,
        ) as process,
    ):
        try:
            eventually(is_ready)
            yield PaymentProcess(process, f"http://127.0.0.1:{ready.read_text().strip()}", log)
        finally:
            process.kill()


def charge(
    key: str, amount: str = "50.00", *, order: str = "SO-1", account: str = "ann@example.com"
) -> PaymentRequest:
    """Return a request of a charge."""
    return PaymentRequest(key, PaymentKind.CHARGE, order, account, Decimal(amount))


def refund(
    key: str, amount: str = "50.00", *, order: str = "SO-1", account: str = "ann@example.com"
) -> PaymentRequest:
    """Return a request of a refund."""
    return PaymentRequest(key, PaymentKind.REFUND, order, account, Decimal(amount))
