"""Pages of reports: complete, escaped, and without a network."""

import re
from pathlib import Path

import pytest

from gpt2flow.reports.charts import draw_bars, draw_chart
from gpt2flow.reports.pages import Table, render_page, write_page


def test_a_page_has_its_facts_charts_and_tables() -> None:
    page = render_page(
        "Soak",
        {"requests": 12, "machine": "two cores"},
        [
            draw_chart("Memory", {"rss": [(0, 1.0), (1, 2.0)]}),
            draw_bars("Rate", {"a": 1.0, "b": 2.0}, note="higher is better"),
            None,
            Table("Errors", ["status", "count"], [["UNAVAILABLE", "3"]]),
        ],
    )
    assert page.startswith("<!doctype html>")
    assert page.count("<svg") == 2
    assert page.count("<polyline") == 1
    assert page.count("<rect") == 2
    for text in ("Soak", "two cores", "higher is better", "UNAVAILABLE", 'aria-label="Memory"'):
        assert text in page


def test_a_page_loads_nothing_and_shows_text_as_text() -> None:
    evil = "<script>alert(1)</script>"
    page = render_page(evil, {evil: evil}, [Table(evil, [evil], [[evil]])])
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 5
    assert not re.search(r"(src|href)=|url\(|@import", page)


def test_a_page_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        write_page(tmp_path / "none" / "page.html", "x", {}, [])
