"""Cleaning of arbitrary text for training.

Text that a small model should not spend weights on is normalized: broken encodings, invisible
characters, URLs, e-mail addresses and phone numbers. Turns of the agent's flows are exempt,
since e-mail addresses and phone numbers are the values of their slots.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator

import ftfy

from gpt2flow.agent.flows.prompt import END, SPECIAL_TOKENS, STATE

URL, EMAIL, PHONE = "<url>", "<email>", "<phone>"

_URL = re.compile(r"(?:https?://|www\.)[!-~]*[\w/#&=%~-]", re.IGNORECASE | re.ASCII)
_EMAIL = re.compile(r"[\w.%+-]*\w@\w[\w-]*(?:\.[\w-]*\w)+", re.ASCII)
_PHONE = re.compile(
    r"""
    (?<![\dA-Za-z_.,+-])
    (?!\d{4}([-/.])\d\d?\1\d)          # not a date
    (?: \+\d (?:[ .()-]{0,2}\d){6,14}   # international, or
      | \(?\d (?:[ .()-]{0,2}\d){9,13}  # ten digits: shorter ones are years, prices, orders
    )
    (?![\dA-Za-z_-]|[.,]\d)
    """,
    re.VERBOSE,
)
# Unicode categories of control, format, surrogate, private-use and unassigned characters.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_SPECIAL = re.compile("|".join(map(re.escape, SPECIAL_TOKENS)))
_BLANKS = re.compile(r"[^\S\n]+")
_BLANK_LINES = re.compile(r"\n{3,}")
# Shorter lines ("Yes.", "Thank you!") repeat in ordinary text too.
_MIN_BOILERPLATE_LENGTH = 40


def is_flow_document(document: str) -> bool:
    """Return whether a document is a turn of the agent's flows."""
    return document.startswith(STATE)


def clean_text(text: str) -> str:
    """Return ordinary text in normalized form.

    Repairs mis-decoded characters and normalizes to NFC, with half-width Latin letters and digits.
    Drops control and format characters. Replaces URLs, e-mail addresses and phone numbers with
    `<url>`, `<email>` and `<phone>`. Collapses white space but keeps line breaks. Idempotent.
    """
    # One repair can expose another, as in text that was mis-decoded twice or a number that a
    # control character splits; so repeat until a fixed point.
    while (cleaned := _clean_once(text)) != text:
        text = cleaned
    return text


def _clean_once(text: str) -> str:
    text = ftfy.fix_text(text, normalization="NFC", uncurl_quotes=False)
    text = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in _INVISIBLE)
    text = _SPECIAL.sub(" ", text)
    text = _URL.sub(URL, text)
    text = _EMAIL.sub(EMAIL, text)
    text = _PHONE.sub(PHONE, text)
    text = _BLANKS.sub(" ", text)
    text = "\n".join(line.strip() for line in text.split("\n"))
    return _BLANK_LINES.sub("\n\n", text).strip()


def split_documents(text: str) -> Iterator[str]:
    """Yield the documents of a text, each terminated by `<|endoftext|>`."""
    return (d for part in text.split(END) if (d := part.strip("\n")).strip())


def clean_documents(documents: Iterable[str]) -> Iterator[str]:
    """Yield cleaned documents without duplicates.

    Drops repeated documents, and repeated lines of at least 40 characters such as headers,
    footers and licence texts. Turns of the agent's flows pass unchanged, duplicates included,
    since the generator decides their frequencies.
    """
    seen: set[bytes] = set()

    def is_new(text: str) -> bool:
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        is_repeat = digest in seen
        seen.add(digest)
        return not is_repeat

    for document in documents:
        if is_flow_document(document):
            yield document
            continue
        lines = clean_text(document).split("\n")
        kept = (line for line in lines if len(line) < _MIN_BOILERPLATE_LENGTH or is_new(line))
        cleaned = _BLANK_LINES.sub("\n\n", "\n".join(kept)).strip()
        if cleaned and (len(cleaned) >= _MIN_BOILERPLATE_LENGTH or is_new(cleaned)):
            yield cleaned
