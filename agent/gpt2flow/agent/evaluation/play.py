"""Playing of one scenario: turns, answers, and check of its end."""

import random
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from gpt2flow.agent.config import CONFIRM_BELOW
from gpt2flow.agent.errors import AgentError, InputError
from gpt2flow.agent.evaluation.conversation import Conversation, new_database
from gpt2flow.agent.evaluation.customer import MAX_ANSWERS, Answer, NoCodeError, Script
from gpt2flow.agent.evaluation.harm import GUARDED_TABLES, Rows, harmful_actions, harmful_rows
from gpt2flow.agent.evaluation.variation import vary
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.prompt import CONFIRMATION
from gpt2flow.agent.report import TurnReport
from gpt2flow.agent.scenarios import Scenario, Turn, check, prepare
from gpt2flow.agent.scenarios.shop_state import check_table, outcomes, rows
from gpt2flow.agent.shop import Database
from gpt2flow.agent.shop.catalogue import Catalogue
from gpt2flow.agent.turns.model import ChoiceModel


@dataclass
class Playthrough:
    """Result of playing one scenario once.

    Attributes:
        scenario: Scenario that was played.
        repeat: Number of the repeat, from 0.
        reports: Reports of all turns, answers included.
        differences: Differences from the expected end, or why the scenario could not go on.
        harm: Effects on money, goods or identity that differ from the wish.
        needless_questions: Number of "did you mean …?" that were answered with yes.
        illegal_actions: Number of actions that the flows refused.
    """

    scenario: Scenario
    repeat: int
    reports: list[TurnReport] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    harm: list[str] = field(default_factory=list)
    needless_questions: int = 0
    illegal_actions: int = 0

    @property
    def passed(self) -> bool:
        """Whether the scenario ended as expected."""
        return not self.differences

    @property
    def questions(self) -> int:
        """Number of questions that the agent asked."""
        actions = [action for report in self.reports for action in report.actions]
        return sum(a.asked is not None or a.outcome == "asked_again" for a in actions)

    @property
    def escalated(self) -> bool:
        """Whether the conversation was handed over to a person."""
        actions = [action for report in self.reports for action in report.actions]
        return any(action.outcome == "handed_over" for action in actions)


class Player:
    """Player of scenarios against one model.

    Args:
        book: Loaded flows.
        catalogue: Products and couriers of the shop.
        model: Model that chooses the actions.
        directory: Directory of the databases.
        confirm_below: Confidence below which the agent asks, from 0 to 1.
    """

    def __init__(
        self,
        book: FlowBook,
        catalogue: Catalogue,
        model: ChoiceModel,
        directory: Path,
        confirm_below: float = CONFIRM_BELOW,
    ) -> None:
        self._book = book
        self._catalogue = catalogue
        self._model = model
        self._directory = directory
        self._confirm_below = confirm_below

    def play(self, scenario: Scenario, repeat: int = 0, seed: int = 0) -> Playthrough:
        """Play a scenario in a new database.

        Args:
            scenario: Scenario to play.
            repeat: Number of the repeat. Repeat 0 sends the messages as written; later ones vary
                them.
            seed: Seed of the variation and of the verification codes.

        Raises:
            InputError: The scenario refers to an unknown table, product or customer.
        """
        rng = random.Random(f"{seed} {repeat} {scenario.id}")
        result = Playthrough(scenario, repeat)
        with new_database(self._directory, uuid.uuid4().hex, self._catalogue) as database:
            with database.transaction() as db:
                prepare(db, scenario, scenario.clock)
            conversation = Conversation(
                self._book,
                self._model,
                database,
                scenario.clock,
                rng,
                confirm_below=self._confirm_below,
            )
            before = _guarded_rows(database)
            self._converse(conversation, result, rng)
            _check_end(self._book, database, before, result)
        return result

    def _converse(
        self, conversation: Conversation, result: Playthrough, rng: random.Random
    ) -> None:
        script = Script(self._book, self._catalogue.names, result.scenario)
        for turn in result.scenario.turns:
            script.begin(turn)
            conversation.forward(turn.hours_later)
            text = _varied(turn, rng) if result.repeat else turn.text
            try:
                self._exchange(conversation, script, turn.session, text, result)
            except NoCodeError as error:
                result.differences.append(str(error))
                return
            except AgentError as error:
                result.illegal_actions += "not allowed" in str(error)
                result.differences.append(f"the agent failed at {turn.text!r}: {error}")
                return

    def _exchange(
        self,
        conversation: Conversation,
        script: Script,
        session: str,
        text: str,
        result: Playthrough,
    ) -> None:
        """Send a message, and answer the questions that follow."""
        for _ in range(1 + MAX_ANSWERS):
            report = conversation.handle(session, script.fill(text))
            script.note(report)
            result.reports.append(report)
            result.harm += harmful_actions(self._book, script, result.scenario, report)
            answer = script.answer(report)
            if answer is None:
                return
            result.needless_questions += _was_needless(report, answer)
            text = answer.text


def _was_needless(report: TurnReport, answer: Answer) -> bool:
    return answer.kind == "yes" and any(a.asked == CONFIRMATION for a in report.actions)


def _varied(turn: Turn, rng: random.Random) -> str:
    wished = [value for wish in turn.wants or [] for value in wish.arguments.values()]
    return vary(turn.text, [str(value) for value in [*wished, *turn.knows.values()]], rng)


def _guarded_rows(database: Database) -> Rows:
    with database.transaction() as db:
        return {table: rows(db, table) for table in GUARDED_TABLES}


def _check_end(book: FlowBook, database: Database, before: Rows, result: Playthrough) -> None:
    texts = [message.text for report in result.reports for message in report.messages]
    ended = set(outcomes(book, result.reports))
    with database.transaction() as db:
        differences = check(db, result.scenario, texts, ended, book.outcomes)
    # What stopped a conversation explains the rest.
    result.differences += [] if result.differences else differences
    result.harm += harmful_rows(result.scenario, before, _guarded_rows(database))


def check_names(scenario: Scenario, products: Collection[str]) -> None:
    """Validate what a scenario refers to, before any of them is played.

    Args:
        scenario: Scenario to validate.
        products: Stock-keeping units of the catalogue.

    Raises:
        InputError: A product or table is unknown, or an order's customer is not in the scenario.
    """
    ordered = {sku for order in scenario.shop.orders for sku in order.lines}
    for sku in sorted(ordered | set(scenario.shop.stock)):
        if sku not in products:
            raise InputError(f"scenario {scenario.id}: unknown product {sku!r}")
    for table in scenario.expect.rows:
        check_table(table)
    contacts = {customer.contact for customer in scenario.shop.customers}
    for order in scenario.shop.orders:
        if order.contact not in contacts:
            raise InputError(f"scenario {scenario.id}: unknown customer {order.contact!r}")
