"""HTTP receiver of webhooks on 127.0.0.1, which verifies every signature."""

import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError
from tests.support.certificates import Pair

SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass(frozen=True)
class HttpAnswer:
    """Answer to one request."""

    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Received:
    """Request whose signature was right."""

    key: str
    headers: dict[str, str]
    body: dict[str, Any]
    content: bytes


class WebhookReceiver:
    """Receiver whose answers a test chooses.

    Attributes:
        answer: Function from a request to its answer; it may block.
        received: Requests in the order of their arrival.
        failures: Requests without a right signature.
        cut_off: Number of answers that the sender did not read to their end.
        truncated: Number of requests whose sender ended in the middle.
        most_at_once: Largest number of requests at a time, by contact.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.answer: Callable[[Received], HttpAnswer] = lambda _: HttpAnswer()
        self.received: list[Received] = []
        self.failures: list[str] = []
        self.cut_off = 0
        self.truncated = 0
        self.most_at_once: Counter[str] = Counter()
        self._open: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def keys(self) -> list[str]:
        """Keys in the order of their arrival, repetitions included."""
        return [each.key for each in self.received]

    def keys_by_contact(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for each in self.received:
            found.setdefault(str(each.body["data"]["contact"]), []).append(each.key)
        return found

    def receive(self, headers: dict[str, str], content: bytes) -> HttpAnswer:
        """Verify and record a request; return the answer."""
        try:
            body = Webhook(SECRET).verify(content, headers)
        except WebhookVerificationError as error:
            self.failures.append(str(error))
            return HttpAnswer(401)
        request = Received(headers["webhook-id"], headers, body, content)
        contact = str(body["data"]["contact"])
        with self._lock:
            self.received.append(request)
            self._open[contact] += 1
            self.most_at_once[contact] = max(self.most_at_once[contact], self._open[contact])
        try:
            return self.answer(request)
        finally:
            with self._lock:
                self._open[contact] -= 1


@contextmanager
def webhook_receiver(pair: Pair | None = None) -> Iterator[WebhookReceiver]:
    """Run a receiver until the block ends; a certificate makes it TLS."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            content = self.rfile.read(length)
            if len(content) < length:
                receiver.truncated += 1
                self.close_connection = True
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = receiver.receive(headers, content)
            self.send_response(answer.status)
            size = {} if answer.status == 204 else {"content-length": str(len(answer.body))}
            for name, value in (size | answer.headers).items():
                self.send_header(name, value)
            self.end_headers()
            try:
                self.wfile.write(answer.body)
            except OSError:
                receiver.cut_off += 1
                raise

        def log_message(self, *args: Any) -> None:
            """Keep the output of the tests clean."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Keep quiet about senders that a test has killed."""

    with Server(("127.0.0.1", 0), Handler) as server:
        if pair is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(pair.certificate, pair.key)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "http" if pair is None else "https"
        receiver = WebhookReceiver(f"{scheme}://127.0.0.1:{server.server_address[1]}/hook")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
