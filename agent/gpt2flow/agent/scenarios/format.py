"""Schema of scenario files, documented in `docs/scenarios.md`."""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, Field, RootModel, field_validator, model_validator

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.flows.prompt import Arguments
from gpt2flow.agent.shop.tables.orders import OrderStatus
from gpt2flow.files.documents import StrictModel, read_yaml

Value = str | int | float | bool | None

# A Monday morning, so that every part of the week lies ahead.
START = datetime(2026, 3, 2, 10, tzinfo=UTC)


class CustomerState(StrictModel):
    """Customer with an account."""

    contact: str
    name: str
    language: Literal["en", "zh"] = "en"
    address: str | None = None


class OrderState(StrictModel):
    """Order of such a customer; ages are days before the start."""

    number: str = Field(pattern=r"^SO-[0-9]{4,6}$")
    contact: str
    status: OrderStatus
    lines: dict[str, int] = Field(min_length=1, description="Quantity by stock-keeping unit.")
    address: str = "1 High Street, York"
    placed_days_ago: float = Field(0.0, ge=0)
    delivered_days_ago: float | None = Field(None, ge=0)


class ShopState(StrictModel):
    """Initial content of the shop beside its catalogue."""

    customers: list[CustomerState] = []
    orders: list[OrderState] = []
    stock: dict[str, int] = Field(
        {}, description="Stock by stock-keeping unit; others are unchanged."
    )


class Wish(StrictModel):
    """Action that a customer wants, with the values that it should have.

    In a file, the arguments stand beside the action or in `arguments`.
    """

    action: str
    arguments: Arguments = {}

    @model_validator(mode="before")
    @classmethod
    def _collect_arguments(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "arguments" in data:
            return data
        arguments = {name: value for name, value in data.items() if name != "action"}
        return {"action": data["action"], "arguments": arguments} if "action" in data else data


class Turn(StrictModel):
    """Message of a customer.

    `{code}` in the text is replaced by the last verification code that was sent.

    Attributes:
        text: Text of the message.
        session: Id of the conversation.
        hours_later: Hours by which the clock moves before the message.
        wants: Actions that the message asks for, in order. None says nothing about them.
        knows: Values with which the customer answers a question, by slot.
    """

    text: str
    session: str = "customer"
    hours_later: float = Field(0.0, ge=0)
    wants: list[Wish] | None = Field(None, description="Actions that the message asks for.")
    knows: Arguments = {}

    @field_validator("wants", mode="before")
    @classmethod
    def _accept_a_single_wish(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value


class Expectation(StrictModel):
    """Expected final state of a scenario.

    Attributes:
        rows: Exact set of rows per table; each row lists some of its columns. The
            columns `customer` (a contact) and `order` (a number) refer to other rows.
        facts: Texts that must each appear in some message, or names of outcomes.
        outcomes: Outcomes that must each occur, as `flow.action.outcome`.
        absent: Texts that no message may contain.
    """

    rows: dict[str, list[dict[str, Value]]] = {}
    facts: list[str] = Field([], description="Texts that must each appear in some message.")
    outcomes: list[str] = Field([], description="Outcomes that must each occur.")
    absent: list[str] = Field([], description="Texts that no message may contain.")


class Scenario(StrictModel):
    """Conversation to play, and the state that it must end in.

    Attributes:
        id: Unique id of the scenario.
        title: Title for people.
        kind: Group of the scenario, such as `plain` or `adversarial`.
        workflow: Workflow that the scenario belongs to.
        language: Language of the customers, `en` or `zh`.
        clock: Time of the first message.
        shop: Initial content of the shop.
        turns: Messages of the customers, in order.
        expect: Expected final state.
    """

    id: str
    title: str = ""
    kind: str | None = None
    workflow: str | None = None
    language: str | None = None
    clock: AwareDatetime = START
    shop: ShopState = ShopState()
    turns: list[Turn] = Field(min_length=1)
    expect: Expectation = Expectation()


class _Scenarios(RootModel[list[Scenario]]):
    """Content of a scenario file."""


def load_scenarios(path: Path) -> list[Scenario]:
    """Load a YAML file of scenarios, or every one of a directory.

    Raises:
        InputError: A file cannot be read, has an invalid field, or repeats an id.
    """
    files = sorted(path.rglob("*.yaml")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path}: no scenario file found, expected *.yaml")
    scenarios = [
        scenario
        for file in files
        for scenario in read_yaml(file, _Scenarios, InputError, typed=True).root
    ]
    repeated = [name for name, n in Counter(each.id for each in scenarios).items() if n > 1]
    if repeated:
        raise InputError(f"{path}: scenario id {repeated[0]!r} is used more than once")
    return scenarios
