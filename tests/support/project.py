"""Paths of the project's files that tests read."""

from pathlib import Path

PROJECT = Path(__file__).parents[2]
SHIPPED_BUNDLE = PROJECT / "models" / "shop"
