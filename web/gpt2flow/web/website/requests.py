"""Requests of pages and forms: refusals, fields, addresses, answers."""

from typing import Final
from urllib.parse import parse_qsl, quote

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from gpt2flow.web.asgi import BodyTooLargeError, read_body
from gpt2flow.web.website.config import WebsiteConfig
from gpt2flow.web.website.words import LANGUAGE_COOKIE, LANGUAGES

_MAX_FIELDS: Final = 50
_PAGE_DIGITS: Final = 7
_YEAR_SECONDS: Final = 365 * 24 * 3600


class RefusedRequest(Exception):  # noqa: N818 - an answer to a request, and no failure
    """Request that is refused with a page.

    Args:
        status: HTTP status.
        reason: Key of the reason among the words of the website.
        detail: What was wrong, in the terms of the agent; empty if the reason says all.
    """

    def __init__(self, status: int, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} {detail}".strip())
        self.status = status
        self.reason = reason
        self.detail = detail


class SignInRequired(RefusedRequest):
    """Page that only people who are signed in may see."""

    def __init__(self) -> None:
        super().__init__(401, "sign_in_first")


class PageNotFound(RefusedRequest):
    """Page that does not exist."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(404, "not_found", detail)


async def read_fields(request: Request, config: WebsiteConfig) -> dict[str, str]:
    """Return the fields of a form.

    Raises:
        RefusedRequest: The body is too large, too slow or no form.
    """
    try:
        body = await read_body(request, config.max_body_bytes, config.body_seconds)
        pairs = parse_qsl(
            body.decode("utf-8", "strict"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MAX_FIELDS,
        )
    except BodyTooLargeError as error:
        raise RefusedRequest(413, "too_large") from error
    except TimeoutError as error:
        raise RefusedRequest(408, "too_slow") from error
    except ValueError as error:
        raise RefusedRequest(400, "no_form") from error
    return dict(pairs)


def local_address(request: Request) -> str:
    """Return path and query of a request."""
    query = request.url.query
    return f"{request.url.path}?{query}" if query else request.url.path


def path_part(text: str) -> str:
    """Return a text as one part of an address."""
    return quote(text, safe="")


def local_target(text: str) -> str:
    """Return an address on this website, its first page by default."""
    is_local = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable()
    return text if is_local and text.isascii() else "/"


def page_number(query: QueryParams) -> int:
    """Return the page number of a query, from 1."""
    text = query.get("page", "1")
    is_number = text.isascii() and text.isdecimal() and len(text) <= _PAGE_DIGITS
    return max(int(text), 1) if is_number else 1


def go_to(address: str) -> Response:
    """Return the answer that makes a browser read another page."""
    return RedirectResponse(address, 303)


def keep_language(response: Response, chosen: str, config: WebsiteConfig) -> None:
    """Set the cookie of a language; ignore other texts."""
    if chosen in LANGUAGES:
        response.set_cookie(
            LANGUAGE_COOKIE,
            chosen,
            max_age=_YEAR_SECONDS,
            secure=config.is_https,
            httponly=True,
            samesite="strict",
        )


def ask_to_sign_in(request: Request, path: str) -> Response:
    """Return the way to a sign-in, and back to a page.

    Args:
        request: Request of a page that only people may see.
        path: Path of the sign-in.
    """
    if request.method != "GET":
        return go_to(path)
    return go_to(f"{path}?next={path_part(local_address(request))}")
