"""What an operation is given, and what it gives back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from sqlalchemy.orm import Session

from gpt2flow.agent.flows.prompt import Arguments
from gpt2flow.agent.flows.schema import Flow
from gpt2flow.agent.operations.wording import Language
from gpt2flow.agent.report import RowChange, Timer
from gpt2flow.agent.shop import Customer, CustomerSession

# The outcome's name in the flow file, and the fields of its message.
Outcome = tuple[str, Mapping[str, str | int]]


@dataclass
class Context:
    """One action's surroundings; everything it does belongs to `db`'s transaction.

    What the operation does besides changing rows it leaves here: `recipient`
    is the contact that its message must reach, if not the session itself.
    """

    db: Session
    session: CustomerSession
    customer: Customer | None
    flow: Flow
    action: str
    message: str
    language: Language
    now: datetime
    new_code: Callable[[], str]
    recipient: str | None = None
    timers: list[Timer] = field(default_factory=list)
    changes: list[RowChange] = field(default_factory=list)

    @property
    def member(self) -> Customer:
        """The customer of an action that is legal for members only."""
        assert self.customer is not None
        return self.customer

    def number(self, policy: str) -> int:
        """A policy of the flow that is a whole number."""
        return int(self.flow.policies[policy])

    def amount(self, policy: str) -> Decimal:
        """A policy of the flow that is an amount of money."""
        return Decimal(str(self.flow.policies[policy]))


Operation = Callable[[Context, Arguments], Outcome]
