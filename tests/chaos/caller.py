"""Customers and people of a chaos run.

They go on until they get an answer.
"""

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NoAnswerError
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from tests.chaos.conversations import Act, AwaitOrder, Conversation, Decide, Part, Say
from tests.chaos.facts import normal
from tests.chaos.processes.keeper import ForkedKeeper, ProcessDiedError
from tests.chaos.processes.people import People

from gpt2flow.agent.cases.decisions import Desk
from gpt2flow.agent.errors import DatabaseError
from gpt2flow.agent.shop import Case, CaseEvent, Customer, Database, Order, OrderStatus, Shipment

# Longest time until a message has its report, and a condition holds.
BOUND_SECONDS = 180.0
_PAUSE_SECONDS = 0.1
# How often a customer sends a message to two agents at once, and two people act at once.
_TWICE = 0.15


@dataclass
class Findings:
    """Findings of the callers of a run.

    Attributes:
        outcomes: Outcomes of the actions of each message, by session and message.
        errors: Number of clear errors by their first words.
        defects: What must not happen.
        decisions: Decisions of people, as the number of the case and the change.
        waits: Seconds from the first attempt at a message to its report.
        takeovers: Seconds from the death of the agent that had a message to its report.
    """

    outcomes: dict[tuple[str, str], Any] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    defects: list[str] = field(default_factory=list)
    decisions: list[tuple[str, str]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    takeovers: list[float] = field(default_factory=list)


class Caller:
    """Customer of one conversation, and the person who sees to its case.

    Args:
        conversation: What happens.
        agents: Agents, of which each message gets a random one.
        database: Shop database.
        desk: Desk at which the person looks at cases.
        people: Commands of the person.
        findings: Where the results go.
        rng: Source of the choices.
    """

    def __init__(
        self,
        conversation: Conversation,
        agents: Sequence[ForkedKeeper],
        *,
        database: Database,
        desk: Desk,
        people: People,
        findings: Findings,
        rng: random.Random,
    ) -> None:
        self._conversation = conversation
        self._agents = agents
        self._database = database
        self._desk = desk
        self._people = people
        self._findings = findings
        self._rng = rng

    def play(self) -> None:
        """Play the conversation to its end, or until something is wrong."""
        try:
            for part in self._conversation.parts:
                if not self._play_part(part):
                    return
        except Exception as error:  # noqa: BLE001 - it is in the report of the campaign
            self._findings.defects.append(f"{self._conversation.name}: {error!r}")

    def _play_part(self, part: Part) -> bool:
        """Play a part; return whether it came to its end."""
        match part:
            case Say():
                return self._say(part)
            case Decide():
                return self._keep_trying(lambda: self._decide(part), str(part))
            case AwaitOrder():
                return self._keep_trying(self._is_handled, "order")

    def _say(self, message: Say) -> bool:
        """Send a message until there is a report.

        Returns:
            Whether there was one.
        """
        name, start = self._conversation.name, time.monotonic()
        died: float | None = None
        while time.monotonic() < start + BOUND_SECONDS:
            try:
                report = self._attempt(message, start + BOUND_SECONDS)
            except ProcessDiedError:
                died = time.monotonic()
                report = None
            except NoAnswerError:
                break
            if report is None:
                time.sleep(_PAUSE_SECONDS * self._rng.uniform(0.5, 2.0))
                continue
            self._note(message, report)
            self._findings.waits.append(time.monotonic() - start)
            if died is not None:
                self._findings.takeovers.append(time.monotonic() - died)
            return True
        self._findings.defects.append(f"{name}: no report of {message.id}")
        for agent in self._agents:
            agent.dump()
        return False

    def _attempt(self, message: Say, deadline: float) -> dict[str, Any] | None:
        """Send a message once.

        Returns:
            Its report, or None after a clear error.

        Raises:
            ProcessDiedError: The agent died.
            NoAnswerError: There was no answer until the deadline.
        """
        count = 2 if self._rng.random() < _TWICE else 1
        asked: list[Future[Any]] = [self._ask(message) for _ in range(count)]
        reports, died = list[dict[str, Any]](), False
        for future in asked:
            try:
                report, error, is_clear = future.result(max(deadline - time.monotonic(), 0.0))
            except ProcessDiedError:
                died = True
                continue
            if error is None:
                reports.append(report)
            elif is_clear:
                kind = error[:60]
                self._findings.errors[kind] = self._findings.errors.get(kind, 0) + 1
            else:
                self._findings.defects.append(f"{self._conversation.name}/{message.id}: {error}")
        if died and not reports:
            raise ProcessDiedError
        for report in reports:
            self._note(message, report)
        return reports[0] if reports else None

    def _ask(self, message: Say) -> "Future[Any]":
        ready = [agent for agent in self._agents if agent.is_ready]
        if not ready:
            time.sleep(_PAUSE_SECONDS)
        agent = self._rng.choice(ready or list(self._agents))
        return agent.ask(self._conversation.name, message.id, message.text)

    def _note(self, message: Say, report: dict[str, Any]) -> None:
        """Keep the outcomes of a message.

        They are the same in each of its reports.
        """
        key = (self._conversation.name, message.id)
        outcomes = [
            (each["action"], each["result"], each["outcome"], each["asked"], each["resumed"])
            for each in report["actions"]
        ]
        # An endpoint does not show what goes to a contact.
        texts = [
            normal(sent["text"])
            for each in report["actions"]
            for sent in each["messages"]
            if sent["to"] is None
        ]
        found = [outcomes, texts, report["attended_by"]]
        if self._findings.outcomes.setdefault(key, found) != found:
            was = self._findings.outcomes[key]
            self._findings.defects.append(f"{key}: reported {was}, and then {found}")

    def _keep_trying(self, attempt: Callable[[], bool], what: str) -> bool:
        """Try until an attempt succeeds, while the database may be away."""
        deadline = time.monotonic() + BOUND_SECONDS
        while time.monotonic() < deadline:
            try:
                if attempt():
                    return True
            except DatabaseError:
                pass
            time.sleep(_PAUSE_SECONDS)
        self._findings.defects.append(f"{self._conversation.name}: {what} is not done")
        return False

    def _is_handled(self) -> bool:
        """Return whether the customer's orders were sent or cancelled."""
        with self._database.translate_errors(), self._database.transaction() as db:
            orders = db.scalars(
                select(Order)
                .join(Customer, Customer.id == Order.customer_id)
                .where(Customer.contact == self._conversation.contact)
            ).all()
            parcels = {each.id: db.get(Shipment, each.id) for each in orders}
        return all(
            order.status is OrderStatus.CANCELLED
            or ((parcel := parcels[order.id]) is not None and parcel.details_sent_at is not None)
            for order in orders
        )

    def _decide(self, part: Decide) -> bool:
        """Act on the conversation's case; return whether it has the result."""
        number, done = self._newest_case()
        if number is None:
            return False
        change = _CHANGES[part.act]
        # A person looks first: the last attempt may have succeeded without an answer.
        if change not in done and not self._act(self._command(part, number), part.act):
            return False
        self._findings.decisions.append((number, change))
        return True

    def _act(self, command: tuple[str, str, list[str]], act: Act) -> bool:
        """Run a command; return whether it reported success."""
        # Two replies would be two messages to the customer.
        is_twice = act is not Act.REPLY and self._rng.random() < _TWICE
        with ThreadPoolExecutor(2) as threads:
            running = [threads.submit(self._people.act, *command) for _ in range(1 + is_twice)]
        return any(each.result() for each in running)

    def _command(self, part: Decide, number: str) -> tuple[str, str, list[str]]:
        """Return act, conversation and command of a decision."""
        match part.act:
            case Act.TAKE:
                arguments = ["assign", number]
            case Act.RETURN:
                arguments = ["assign", number, "--to", "agent"]
            case Act.REPLY:
                arguments = ["reply", number, part.text]
            case Act.CLOSE:
                arguments = ["close", number, *(["--note", part.text] if part.text else [])]
            case Act.APPROVE:
                seen = self._desk.show(number).digest
                arguments = ["approve", number, "--amount", part.text, "--seen", seen]
            case Act.REJECT:
                seen = self._desk.show(number).digest
                arguments = ["reject", number, part.text, "--seen", seen]
        return part.act.value, self._conversation.name, arguments

    def _newest_case(self) -> tuple[str | None, list[str]]:
        """Return the number of the conversation's newest case, and its changes."""
        name = self._conversation.name
        with self._database.translate_errors(), self._database.transaction() as db:
            query = select(Case).where(Case.session_id == name).order_by(Case.id.desc())
            case = db.scalars(query.limit(1)).one_or_none()
            if case is None:
                return None, []
            changes = select(CaseEvent.change).where(CaseEvent.case_id == case.id)
            return case.number, list(db.scalars(changes))


_CHANGES = {
    Act.TAKE: "assigned",
    Act.RETURN: "returned",
    Act.REPLY: "replied",
    Act.CLOSE: "closed",
    Act.APPROVE: "approved",
    Act.REJECT: "rejected",
}
