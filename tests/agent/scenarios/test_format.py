"""Scenario files: their forms, and errors that name the field."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.scenarios import load_scenarios
from gpt2flow.agent.scenarios.format import START, Turn, Wish

KETTLES = Wish(action="add_to_cart", arguments={"product": "kettle", "quantity": 2})
GREETING = "- id: {id}\n  turns: [{{text: hi}}]\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "scenarios.yaml"


def turn(file: Path, fields: str) -> Turn:
    """Return the turn of a file with these fields."""
    file.write_text(f"[{{id: x, turns: [{{text: hi, {fields}}}]}}]", encoding="utf-8")
    return load_scenarios(file)[0].turns[0]


def error_of(path: Path, text: str | None = None) -> str:
    """Return the message of the error that loading raises."""
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_scenarios(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "wants",
    [
        "{action: add_to_cart, product: kettle, quantity: 2}",
        "[{action: add_to_cart, product: kettle, quantity: 2}]",
        "{action: add_to_cart, arguments: {product: kettle, quantity: 2}}",
        "[{action: add_to_cart, arguments: {product: kettle, quantity: 2}}]",
    ],
)
def test_a_wish_stands_alone_or_in_a_list_with_arguments_inline_or_nested(
    file: Path, wants: str
) -> None:
    assert turn(file, f"wants: {wants}").wants == [KETTLES]


def test_several_wishes_keep_their_order(file: Path) -> None:
    wants = turn(file, "wants: [{action: verify}, {action: check_out, address: 5 Oak Rd}]").wants
    assert wants == [
        Wish(action="verify"),
        Wish(action="check_out", arguments={"address": "5 Oak Rd"}),
    ]


def test_no_wishes_differ_from_wishes_that_are_left_out(file: Path) -> None:
    assert turn(file, "wants: []").wants == []
    assert turn(file, "knows: {}").wants is None


def test_known_values_keep_their_types(file: Path) -> None:
    assert turn(file, 'knows: {quantity: 2, code: "012345"}').knows == {
        "quantity": 2,
        "code": "012345",
    }


def test_fields_that_are_left_out_have_defaults(file: Path) -> None:
    file.write_text(GREETING.format(id="x"), encoding="utf-8")
    (scenario,) = load_scenarios(file)
    assert (scenario.clock, scenario.title, scenario.kind) == (START, "", None)
    assert scenario.turns == [Turn(text="hi", session="customer", hours_later=0, knows={})]
    assert scenario.shop.customers == []
    assert scenario.shop.orders == []
    assert (scenario.expect.rows, scenario.expect.outcomes, scenario.expect.absent) == ({}, [], [])


@pytest.mark.parametrize(
    "clock", ['"2026-05-04T08:30:00Z"', "2026-05-04T08:30:00Z", '"2026-05-04T10:30:00+02:00"']
)
def test_clock_is_a_time_with_a_zone(file: Path, clock: str) -> None:
    file.write_text(f"{GREETING.format(id='x')}  clock: {clock}\n", encoding="utf-8")
    assert load_scenarios(file)[0].clock == datetime(2026, 5, 4, 8, 30, tzinfo=UTC)


def test_clock_without_a_zone_is_refused(file: Path) -> None:
    error = error_of(file, f"{GREETING.format(id='x')}  clock: '2026-05-04T08:30:00'\n")
    assert "field 0.clock: Input should have timezone info" in error


def test_every_file_below_a_directory_is_loaded_in_order(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("b.yaml", "a.yaml", "deep/er/c.yaml"):
        (tmp_path / name).write_text(GREETING.format(id=name), encoding="utf-8")
    (tmp_path / "README.md").write_text("no scenario", encoding="utf-8")
    assert [each.id for each in load_scenarios(tmp_path)] == ["a.yaml", "b.yaml", "deep/er/c.yaml"]


def test_directory_without_scenarios_is_refused(tmp_path: Path) -> None:
    assert "no scenario file found, expected *.yaml" in error_of(tmp_path)


def test_missing_file_is_named(file: Path) -> None:
    assert "No such file" in error_of(file)


def test_id_that_occurs_twice_is_named(file: Path, tmp_path: Path) -> None:
    assert "scenario id 'x' is used more than once" in error_of(file, GREETING.format(id="x") * 2)
    file.write_text(GREETING.format(id="x"), encoding="utf-8")
    assert len(load_scenarios(file)) == 1
    (tmp_path / "other.yaml").write_text(GREETING.format(id="x"), encoding="utf-8")
    assert "scenario id 'x' is used more than once" in error_of(tmp_path)


@pytest.mark.parametrize(
    "text, message",
    [
        ("- {id: x, turns: [{text: hi}], extra: 1}", "field 0.extra: Extra inputs"),
        ("- {id: x, turns: [{text: hi, want: []}]}", "field 0.turns.0.want: Extra inputs"),
        ("- {id: x, turns: [{text: hi}], expect: {row: {}}}", "field 0.expect.row: Extra inputs"),
        (
            "- {id: x, turns: [{text: hi, wants: {action: a, arguments: {}, product: b}}]}",
            "field 0.turns.0.wants.0.product: Extra inputs",
        ),
        (
            "- {id: x, turns: [{text: hi, wants: {product: b}}]}",
            "field 0.turns.0.wants.0.product: Extra inputs",
        ),
        ("- {id: x, turns: [{text: hi, wants: greet}]}", "field 0.turns.0.wants: "),
        ("- {id: x, turns: []}", "field 0.turns: List should have at least 1 item"),
        ("- {turns: [{text: hi}]}", "field 0.id: Field required"),
        ("- {id: x, turns: [{text: hi, hours_later: -1}]}", "field 0.turns.0.hours_later: "),
        ("id: x", "Input should be a valid list"),
        ("- {id: x, turns: [", "while parsing a flow"),
    ],
)
def test_invalid_field_is_named(file: Path, text: str, message: str) -> None:
    assert message in error_of(file, text)


@pytest.mark.parametrize(
    "order, message",
    [
        ("number: '1042'", "orders.0.number: "),
        ("status: lost", "orders.0.status: "),
        ("lines: {}", "orders.0.lines: "),
        ("placed_days_ago: -1", "orders.0.placed_days_ago: "),
    ],
)
def test_invalid_order_is_named(file: Path, order: str, message: str) -> None:
    fields = {"number": "SO-1042", "contact": "a@b.cd", "status": "submitted", "lines": "{tea: 1}"}
    name, _, value = order.partition(": ")
    fields[name] = value
    written = ", ".join(f"{name}: {value}" for name, value in fields.items())
    text = f"[{{id: x, shop: {{orders: [{{{written}}}]}}, turns: [{{text: hi}}]}}]"
    assert f"field 0.shop.{message}" in error_of(file, text)
