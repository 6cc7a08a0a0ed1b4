"""Small site of pages with forms, which keeps what it was sent."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

_PAGE = (
    "<!doctype html><html lang=en><title>{path}</title><main><h1>{path}</h1>{body}</main></html>"
)


@dataclass(frozen=True)
class FormSite:
    """Running site.

    Attributes:
        url: Address of the site.
        pages: Body of the pages by path; one with `->` first names the page that follows a form.
        sent: Path and fields of each form that was sent.
    """

    url: str
    pages: Mapping[str, str]
    sent: list[tuple[str, dict[str, str]]] = field(default_factory=list)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    site: FormSite


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        """Answer with a page."""
        path = urlsplit(self.path).path
        page = self.server.site.pages.get(path)
        if page is None:
            self.send_error(404)
            return
        content = _PAGE.format(path=path, body=page).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        # What a shop of today sends: no script of others runs, and none in attributes.
        self.send_header("Content-Security-Policy", "default-src 'self'; form-action 'self'")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        """Keep a form, and redirect to the page that follows it."""
        length = int(self.headers["Content-Length"])
        fields = parse_qs(self.rfile.read(length).decode(), keep_blank_values=True)
        site = self.server.site
        site.sent.append((self.path, {name: values[-1] for name, values in fields.items()}))
        self.send_response(303)
        self.send_header("Location", site.pages[self.path].removeprefix("->"))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def form_site(pages: Mapping[str, str]) -> Iterator[FormSite]:
    """Serve pages until the block ends.

    Args:
        pages: Body of each page by path; `->/path` is where a form of that path leads.
    """
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.site = FormSite(f"http://127.0.0.1:{server.server_port}", pages)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.site
        finally:
            server.shutdown()
            thread.join()
