"""Counter of the shop, which carries out the actions of its forms."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy.orm import Session

from gpt2flow.agent.config import Clock
from gpt2flow.agent.errors import FlowError
from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.book import holds
from gpt2flow.agent.flows.prompt import Arguments, Choice
from gpt2flow.agent.flows.schema import Outcome as FlowOutcome
from gpt2flow.agent.operations import OPERATIONS, Context, new_code
from gpt2flow.agent.payments.payer import Payer
from gpt2flow.agent.report import ActionReport, MessageSent, Step
from gpt2flow.agent.shop import Customer, Database, ExecutedAction
from gpt2flow.agent.shop.database import retry_conflicts
from gpt2flow.agent.turns.execution import Event, Task
from gpt2flow.agent.turns.execution.changes import collect_changes, keep_step, merge_changes
from gpt2flow.agent.turns.execution.contexts import action_facts, new_context
from gpt2flow.agent.turns.execution.replies import write_message
from gpt2flow.agent.turns.execution.wishes import remember_action
from gpt2flow.agent.turns.state import lock_session
from gpt2flow.agent.wording import Language
from gpt2flow.web.website.requests import path_part

_SUBMITTED: Final = "order_submitted"
"""Event whose actions the back office carries out."""


@dataclass(frozen=True)
class Submission:
    """Form that carries out one action of the flows.

    Attributes:
        session: Id of the conversation.
        form: Random id of the form as it was shown; one form acts once.
        action: Name of the action.
        arguments: Values of its slots, by name.
        language: Language of the page.
        message: What the customer wrote beside the values.
        order: Number of the order that the back office handles; None acts for the session.
        operator: Name of the operator who sent the form; None for the customer.
    """

    session: str
    form: str
    action: str
    arguments: Arguments
    language: Language
    message: str = ""
    order: str | None = None
    operator: str | None = None

    @property
    def key(self) -> str:
        """Idempotency key of the form."""
        return form_key(self.session, self.form)


ACTIONS: Final = (
    *("add_to_cart", "set_quantity", "remove_from_cart", "check_out", "confirm_order"),
    *("decline_order", "cancel_order", "register", "log_in", "verify", "resend_code"),
    *("correct_contact", "correct_name", "log_out", "change_address", "confirm_delivery"),
    *("request_refund", "request_return", "request_exchange", "schedule_follow_up"),
    *("assign_courier", "send_delivery_details"),
)
"""Actions that the pages carry out."""


class NotAllowedNow(Exception):  # noqa: N818 - an answer to a form, and no failure
    """Action that the flows do not allow now; nothing was changed."""


class Counter:
    """Counter at which the actions of forms are carried out.

    Threads may share an instance.

    Args:
        book: Loaded flows.
        database: Shop database.
        clock: Source of the current time.
        payer: Settler of the payments that actions request.
        codes: Generator of verification codes.
    """

    def __init__(
        self,
        book: FlowBook,
        database: Database,
        clock: Clock,
        payer: Payer,
        codes: Callable[[], str] = new_code,
    ) -> None:
        self._book = book
        self._database = database
        self._clock = clock
        self._payer = payer
        self._codes = codes

    def carry_out(self, submission: Submission) -> Step:
        """Carry out the action of a form in one transaction.

        The payments that it requests are settled after it.
        A form that was sent before does nothing, and has the result of the first time.

        Args:
            submission: Form with its action.

        Raises:
            NotAllowedNow: The flows do not allow the action; nothing was changed.
            DatabaseError: The database failed; nothing was changed.
        """
        with self._database.translate_errors():
            step = retry_conflicts(lambda: self._carry_out_once(submission))
        for payment in step.payments:
            self._payer.settle(payment)
        return step

    def _carry_out_once(self, submission: Submission) -> Step:
        with self._database.transaction() as db:
            now = self._clock()
            session = lock_session(db, submission.session, submission.language, now)
            recorded = find_step(db, submission.session, submission.form)
            if recorded is not None:
                return recorded
            task = self._task(submission)
            spec = self._book.actions[submission.action]
            # An operator may cancel an order at any time, as the agent itself may.
            is_legal = task.is_compensation or holds(spec.when, action_facts(db, session, task))
            if not is_legal or set(spec.required) - submission.arguments.keys():
                raise NotAllowedNow(submission.action)
            context = new_context(self._book, db, session, task, now=now, new_code=self._codes)
            return self._run(context, task, submission)

    def _run(self, context: Context, task: Task, submission: Submission) -> Step:
        collect_changes(context.db, context.changes)
        spec = self._book.actions[submission.action]
        name, fields = OPERATIONS[spec.operation](context, submission.arguments)
        outcome, session = spec.outcomes[name], context.session
        report = ActionReport(
            action=submission.action,
            arguments=submission.arguments,
            used=submission.arguments,
            result=outcome.result,
            outcome=name,
            messages=self._answer(context, task, submission, outcome, fields),
        )
        if submission.operator is None:
            session.language = submission.language
            remember_action(session, report)
        elif task.event is None and session.customer_id is not None:
            # The page is in the operator's language, and messages are in the customer's.
            customer = context.db.get_one(Customer, session.customer_id)
            customer.language = session.language
        return self._record(context, task, report)

    def _task(self, submission: Submission) -> Task:
        """Return the task that the agent would have for the action."""
        spec = self._book.actions[submission.action]
        event = None if submission.order is None else Event(_SUBMITTED, submission.order)
        return Task(
            key=submission.key,
            session=submission.session,
            message=submission.message,
            choice=Choice(submission.action, submission.arguments),
            language=submission.language,
            event=event,
            is_compensation=event is not None and spec.event is None,
        )

    def _answer(
        self,
        context: Context,
        task: Task,
        submission: Submission,
        outcome: FlowOutcome,
        fields: Mapping[str, str | int],
    ) -> list[MessageSent]:
        """Return the messages of an outcome; write those to contacts."""
        if outcome.message is None:
            return []
        if context.recipient is None:
            # The page shows it, and the conversation has no message of it.
            text = outcome.message[context.language].format(**fields)
            return [MessageSent(to=None, language=context.language, text=text)]
        if task.event is not None and outcome.result == "refused":
            # What the office tried in vain is no news for the customer.
            return []
        if task.event is None and submission.operator is not None:
            context.language = "zh" if context.session.language == "zh" else "en"
        text = outcome.message[context.language].format(**fields)
        return [write_message(self._book, context, text)]

    def _record(self, context: Context, task: Task, report: ActionReport) -> Step:
        context.db.flush()
        step = Step(
            report=report.model_copy(update={"changes": merge_changes(context.changes)}),
            facts=action_facts(context.db, context.session, task),
            timers=context.timers,
            payments=context.payments,
        )
        keep_step(context, step)
        return step


def check_actions(book: FlowBook) -> None:
    """Check that the flows have all actions of the pages.

    Raises:
        FlowError: One is missing.
    """
    if missing := [name for name in ACTIONS if name not in book.actions]:
        raise FlowError(f"the flows lack {', '.join(missing)}, which the pages carry out")


def form_key(session: str, form: str) -> str:
    """Return the idempotency key of a session's form."""
    return f"web/{path_part(session)}/{form}"


def find_step(db: Session, session: str, form: str) -> Step | None:
    """Return what a form did that was sent before.

    None if it was not.

    Args:
        db: Session on the shop.
        session: Id of the conversation.
        form: Random id of the form.
    """
    record = db.get(ExecutedAction, form_key(session, form))
    return None if record is None else Step.model_validate(record.step)
