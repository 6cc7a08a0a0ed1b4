"""Cleans arbitrary text for training.

Noise that no model of this size should spend weights on gets one form: odd
encodings, invisible characters, addresses and numbers of real people. Turns of
the agent's flows are left as they are, since their slots are the very e-mail
addresses and phone numbers that are noise elsewhere.
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
    (?!\d{4}([-/.])\d\d?\1\d)          # a date
    (?: \+\d (?:[ .()-]{0,2}\d){6,14}   # international, or
      | \(?\d (?:[ .()-]{0,2}\d){9,13}  # ten digits: shorter ones are years, prices, orders
    )
    (?![\dA-Za-z_-]|[.,]\d)
    """,
    re.VERBOSE,
)
_SPECIAL = re.compile("|".join(map(re.escape, SPECIAL_TOKENS)))
_BLANKS = re.compile(r"[^\S\n]+")
_BLANK_LINES = re.compile(r"\n{3,}")
# Shorter lines ("Yes.", "Thank you!") repeat in good text too.
_BOILERPLATE_LENGTH = 40


def is_flow_document(document: str) -> bool:
    """Say whether a document is a turn of the agent's flows."""
    return document.startswith(STATE)


def clean_text(text: str) -> str:
    """Return ordinary text with its noise in one form.

    Repairs wrong encodings, normalises to NFC with full-width Latin letters and
    digits narrowed, drops control and format characters, replaces URLs, e-mail
    addresses and phone numbers, and squeezes white space; line breaks stay.
    Idempotent.
    """
    # A repair can uncover another (text that was mis-decoded twice, a number
    # that a control character had split), so clean until nothing changes.
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


_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})


def split_documents(text: str) -> Iterator[str]:
    """Yield the documents of a text, which `<|endoftext|>` ends."""
    return (d for part in text.split(END) if (d := part.strip("\n")).strip())


def clean_documents(documents: Iterable[str]) -> Iterator[str]:
    """Yield cleaned documents without repeats.

    A document that came before is dropped, and so is a long line that came
    before: headers, footers, licence texts. Turns of the agent's flows pass
    unchanged, repeats and all: how often a turn occurs is the generator's to say.
    """
    seen: set[bytes] = set()

    def is_new(text: str) -> bool:
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        known = digest in seen
        seen.add(digest)
        return not known

    for document in documents:
        if is_flow_document(document):
            yield document
            continue
        lines = clean_text(document).split("\n")
        kept = (line for line in lines if len(line) < _BOILERPLATE_LENGTH or is_new(line))
        cleaned = _BLANK_LINES.sub("\n\n", "\n".join(kept)).strip()
        if cleaned and (len(cleaned) >= _BOILERPLATE_LENGTH or is_new(cleaned)):
            yield cleaned
