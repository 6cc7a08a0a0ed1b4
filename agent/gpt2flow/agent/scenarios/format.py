"""Schema of scenario files, documented in `docs/scenarios.md`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, RootModel

from gpt2flow.agent.errors import InputError
from gpt2flow.agent.shop.orders import OrderStatus
from gpt2flow.files.documents import StrictModel, read_yaml

Value = str | int | float | bool | None


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


class Turn(StrictModel):
    """Message of a customer.

    `{code}` in the text is replaced by the last verification code that was sent.
    """

    text: str
    session: str = "customer"


class Expectation(StrictModel):
    """Expected final state of a scenario.

    Attributes:
        rows: Exact set of rows per table; each row lists some of its columns. The
            columns `customer` (a contact) and `order` (a number) refer to other rows.
        facts: Texts that must each appear in some message.
    """

    rows: dict[str, list[dict[str, Value]]] = {}
    facts: list[str] = Field([], description="Texts that must each appear in some message.")


class Scenario(StrictModel):
    """Conversation to play, and the state that it must end in.

    Attributes:
        id: Unique id of the scenario.
        title: Title for people.
        shop: Initial content of the shop.
        turns: Messages of the customers, in order.
        expect: Expected final state.
    """

    id: str
    title: str = ""
    shop: ShopState = ShopState()
    turns: list[Turn] = Field(min_length=1)
    expect: Expectation = Expectation()


class _Scenarios(RootModel[list[Scenario]]):
    """Content of a scenario file."""


def load_scenarios(path: Path) -> list[Scenario]:
    """Load a YAML file that lists scenarios.

    Raises:
        InputError: The file cannot be read, or has an invalid field.
    """
    return read_yaml(path, _Scenarios, InputError, typed=True).root
