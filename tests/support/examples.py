"""Number of examples of a property test."""

from hypothesis import settings

# The default of Hypothesis, which complete runs keep.
_USUAL = 100


def examples(count: int) -> int:
    """Return `count`, scaled to the loaded Hypothesis profile."""
    return max(1, count * settings().max_examples // _USUAL)
