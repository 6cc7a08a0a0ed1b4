"""Interface of operations: their context and their outcome."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from sqlalchemy.orm import Session

from gpt2flow.agent.flows.case_rules import CaseRules
from gpt2flow.agent.flows.prompt import Arguments, Choice
from gpt2flow.agent.flows.schema import Flow
from gpt2flow.agent.report import RowChange, Timer, Wanted
from gpt2flow.agent.shop import Customer, CustomerSession
from gpt2flow.agent.wording import Language

# Name of the outcome in the flow file, and the fields of its message template.
Outcome = tuple[str, Mapping[str, str | int]]


@dataclass
class Context:
    """Context of one action.

    An operation sets `recipient`, `timers`, `payments` and `changes`; the rest is input.

    Attributes:
        key: Idempotency key of the action, and of the model call that chose it.
        db: Database session whose transaction holds all effects of the action.
        session: Session of the conversation.
        customer: Logged-in customer, or the customer of the event's order.
        flow: Flow of the action.
        case_rules: How cases are looked after.
        choice: Action that the model chose, with its arguments and confidence.
        action: Name of the action.
        message: Normalized message, or the subject of the event.
        language: Language of the message to the customer.
        now: Current time.
        new_code: Generator of verification codes.
        secrets: Slots whose values nobody but the customer may see.
        proposed: Wish about which the agent asked "did you mean …?" before this message.
        recipient: Contact that the message must reach; None addresses the session.
        timers: Timers to set after the transaction.
        payments: Ids of payments to settle after the transaction.
        changes: Rows that the action wrote.
    """

    key: str
    db: Session
    session: CustomerSession
    customer: Customer | None
    flow: Flow
    case_rules: CaseRules
    choice: Choice
    action: str
    message: str
    language: Language
    now: datetime
    new_code: Callable[[], str]
    secrets: frozenset[str]
    proposed: Wanted | None = None
    recipient: str | None = None
    timers: list[Timer] = field(default_factory=list)
    payments: list[int] = field(default_factory=list)
    changes: list[RowChange] = field(default_factory=list)

    @property
    def member(self) -> Customer:
        """Customer of an action that is legal for members only."""
        assert self.customer is not None
        return self.customer

    def int_policy(self, policy: str, default: int | None = None) -> int:
        """Return a policy of the flow as an integer.

        Args:
            policy: Name of the policy.
            default: Value where the flow has none; None requires one.
        """
        value = self.flow.policies.get(policy, default)
        if value is None:
            raise KeyError(policy)
        return int(value)

    def money_policy(self, policy: str) -> Decimal:
        """Return a policy of the flow as an amount of money."""
        return Decimal(str(self.flow.policies[policy]))


Operation = Callable[[Context, Arguments], Outcome]
