"""Cleaning of arbitrary text for training.

Text that a small model should not spend weights on is normalized: broken encodings, invisible
characters, URLs, e-mail addresses and phone numbers. Turns of the agent's flows are exempt,
since e-mail addresses and phone numbers are the values of their slots.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import replace

import ftfy
from ftfy.fixes import fix_line_breaks

from gpt2flow.agent.flows.prompt import SPECIAL_TOKENS, STATE
from gpt2flow.training.text.formats import Document

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
_REPLACEMENTS = (
    ("special_tokens_removed", _SPECIAL, " "),
    ("urls_replaced", _URL, URL),
    ("email_addresses_replaced", _EMAIL, EMAIL),
    ("phone_numbers_replaced", _PHONE, PHONE),
)
# Key of each count, and what it counts.
CLEANING_STEPS = {
    "documents_read": "documents read",
    "mojibake_repaired": "documents with mojibake repaired",
    "characters_normalized": "documents with characters normalized",
    "control_characters_dropped": "documents with control characters dropped",
    "special_tokens_removed": "documents with special tokens removed",
    "urls_replaced": "documents with URLs replaced",
    "email_addresses_replaced": "documents with e-mail addresses replaced",
    "phone_numbers_replaced": "documents with phone numbers replaced",
    "white_space_collapsed": "documents with white space collapsed",
    "repeated_lines_dropped": "repeated lines dropped",
    "repeated_documents_dropped": "repeated documents dropped",
    "empty_documents_dropped": "empty documents dropped",
}
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
    return clean_and_explain(text)[0]


def clean_and_explain(text: str) -> tuple[str, frozenset[str]]:
    """Clean ordinary text like `clean_text`, and name the steps that changed it.

    Args:
        text: Text to clean.

    Returns:
        Cleaned text, and keys of `CLEANING_STEPS`.
    """
    # One repair can expose another, as in text that was mis-decoded twice or a number that a
    # control character splits; so repeat until a fixed point.
    steps: set[str] = set()
    while True:
        cleaned, found = _clean_once(text)
        if cleaned == text:
            return text, frozenset(steps)
        text = cleaned
        steps |= found


def _clean_once(text: str) -> tuple[str, set[str]]:
    fixed = ftfy.fix_text(text, normalization="NFC", uncurl_quotes=False)
    found = _explain_repair(text, fixed) if fixed != text else set()
    text = _drop_invisible(fixed)
    if text != fixed:
        found.add("control_characters_dropped")
    for step, pattern, replacement in _REPLACEMENTS:
        text, count = pattern.subn(replacement, text)
        if count:
            found.add(step)
    collapsed = _BLANKS.sub(" ", text)
    collapsed = "\n".join(line.strip() for line in collapsed.split("\n"))
    collapsed = _BLANK_LINES.sub("\n\n", collapsed).strip()
    if collapsed != text:
        found.add("white_space_collapsed")
    return collapsed, found


def _drop_invisible(text: str) -> str:
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in _INVISIBLE)


def _explain_repair(text: str, fixed: str) -> set[str]:
    """Name what ftfy changed; it repairs encodings line by line."""
    found = set()
    repaired = "\n".join(ftfy.fix_encoding(line) for line in text.split("\n"))
    if repaired != text:
        found.add("mojibake_repaired")
    broken = fix_line_breaks(repaired)
    visible = _drop_invisible(broken)
    if visible != broken:
        found.add("control_characters_dropped")
    if broken != repaired or _drop_invisible(fixed) != visible:
        found.add("characters_normalized")
    return found


def clean_documents(documents: Iterable[Document]) -> tuple[list[Document], dict[str, int]]:
    """Clean documents, and drop duplicates.

    Drops repeated documents, and repeated lines of at least 40 characters such as headers,
    footers and licence texts. Dialogues keep all their lines, since a turn that others say too
    is needed in its place. Turns of the agent's flows pass unchanged, duplicates included, since
    the generator decides their frequencies.

    Args:
        documents: Documents in order; the first of equal ones is kept.

    Returns:
        Cleaned documents, and a count for each of `CLEANING_STEPS`.
    """
    kept: list[Document] = []
    counts = dict.fromkeys(CLEANING_STEPS, 0)
    # Whole documents, and lines of those that are no dialogues.
    documents_seen, lines_seen = set[bytes](), set[bytes]()
    for document in documents:
        counts["documents_read"] += 1
        if is_flow_document(document.text) and not document.is_dialogue:
            kept.append(document)
            continue
        text, steps = clean_and_explain(document.text)
        for step in steps:
            counts[step] += 1
        if not text:
            counts["empty_documents_dropped"] += 1
            continue
        unique, repeated = text, 0
        if not _is_new(text, documents_seen):
            unique = ""
        elif not document.is_dialogue:
            unique, repeated = _drop_repeated(text, lines_seen)
        if not unique:
            counts["repeated_documents_dropped"] += 1
            continue
        counts["repeated_lines_dropped"] += repeated
        kept.append(replace(document, text=unique))
    return kept, counts


def _drop_repeated(text: str, seen: set[bytes]) -> tuple[str, int]:
    """Return a text's unseen part and its number of dropped lines."""
    lines = text.split("\n")
    kept = [line for line in lines if len(line) < _MIN_BOILERPLATE_LENGTH or _is_new(line, seen)]
    unique = _BLANK_LINES.sub("\n\n", "\n".join(kept)).strip()
    return unique, len(lines) - len(kept)


def _is_new(text: str, seen: set[bytes]) -> bool:
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    is_repeat = digest in seen
    seen.add(digest)
    return not is_repeat
