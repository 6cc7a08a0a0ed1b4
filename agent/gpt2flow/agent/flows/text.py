"""The one form of a customer's message that model, grammar and corpus share."""

import re
import unicodedata

_SPACE = re.compile(r"\s+")
_DROPPED = ("Cc", "Cf", "Cs", "Co")
# A straight quote or a backslash would need an escape inside the JSON of an
# action, so that a slot's value would no longer be cut out letter by letter.
_REPLACED = str.maketrans({'"': "'", "\\": "/"})


def normalise(text: str) -> str:
    """Return `text` in NFKC on one line, free of what would need escapes.

    Control and format characters go, white space becomes single blanks, and
    `<|` is broken up so that no message can spell a special token.
    """
    text = "".join(c for c in text if c.isspace() or unicodedata.category(c) not in _DROPPED)
    text = _SPACE.sub(" ", unicodedata.normalize("NFKC", text))
    return text.translate(_REPLACED).replace("<|", "< |").strip()


def language(text: str) -> str:
    """Return `zh` for text with Chinese characters, else `en`."""
    return "zh" if any("\u4e00" <= c <= "\u9fff" for c in text) else "en"
