"""Replies to the customer: the outcome of an action, or a question."""

from collections.abc import Mapping
from dataclasses import replace

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.prompt import CONFIRMATION, Arguments, Choice
from gpt2flow.agent.operations import OPERATIONS, Context
from gpt2flow.agent.report import ActionReport, MessageSent
from gpt2flow.agent.shop import Delivery, OutboxMessage
from gpt2flow.agent.shop.tables.outbox import last_text
from gpt2flow.agent.telemetry.spans import current_span
from gpt2flow.agent.turns.execution.doubt import may_ask, open_question, question_text
from gpt2flow.agent.turns.execution.task import ESCALATE, Task


class Replier:
    """Writer of messages into the outbox, in the words of the flows.

    Args:
        book: Loaded flows.
    """

    def __init__(self, book: FlowBook) -> None:
        self._book = book

    def report_outcome(
        self,
        context: Context,
        task: Task,
        used: Arguments,
        name: str,
        fields: Mapping[str, str | int],
        *,
        sent: list[MessageSent] | None = None,
    ) -> ActionReport:
        """Send the message of an outcome.

        Args:
            context: Context of the action.
            task: Request that was executed.
            used: Arguments that the operation ran with.
            name: Name of the outcome.
            fields: Fields of its message template.
            sent: Messages with which the shop has told a contact; None tells the customer now.
        """
        outcome = self._book.actions[task.choice.action].outcomes[name]
        messages = list(sent or ())
        if outcome.message is not None and sent is None:
            text = outcome.message[context.language].format(**fields)
            messages.append(self._send(context, task, text))
        return ActionReport(
            action=task.choice.action,
            arguments=task.choice.arguments,
            used=used,
            result=outcome.result,
            outcome=name,
            messages=messages,
        )

    def ask_for_slot(
        self, context: Context, task: Task, used: Arguments, slot: str
    ) -> ActionReport:
        """Ask the customer for a slot, and store the other arguments."""
        context.session.awaiting_action = task.choice.action
        context.session.awaiting_slot = slot
        context.session.awaiting_arguments = dict(used)
        text = self._book.slots[slot].ask[context.language]
        return self._report_question(context, task, used, slot, text)

    def propose(
        self, context: Context, task: Task, used: Arguments, fields: Mapping[str, str | int]
    ) -> ActionReport:
        """Ask "did you mean …?", or hand over what was asked before.

        Args:
            context: Context of the action, whose effects were undone.
            task: Request that is in doubt.
            used: Arguments that the operation ran with.
            fields: Fields of its outcome.
        """
        action, session = task.choice.action, context.session
        message = None if task.resumed is not None else task.message
        may = may_ask(self._book, session, Choice(action, used), message)
        if not may and ESCALATE in self._book.actions:
            session.doubted = None
            task = replace(task, choice=Choice(ESCALATE))
            name, handed_over = OPERATIONS[self._book.actions[ESCALATE].operation](context, {})
            return self.report_outcome(context, task, {}, name, handed_over)
        open_question(session, action, used, task.message)
        text = question_text(self._book, action, used, fields, context.language)
        return self._report_question(context, task, used, CONFIRMATION, text)

    def _report_question(
        self, context: Context, task: Task, used: Arguments, asked: str, text: str
    ) -> ActionReport:
        return ActionReport(
            action=task.choice.action,
            arguments=task.choice.arguments,
            used=used,
            result="asked",
            asked=asked,
            messages=[self._send(context, task, text)],
        )

    def _send(self, context: Context, task: Task, text: str) -> MessageSent:
        if task.is_detour:
            text = self._book.shared.deferred[context.language].format(text=text)
        return write_message(self._book, context, text)


def write_message(book: FlowBook, context: Context, text: str) -> MessageSent:
    """Write the message of an action into the outbox.

    Args:
        book: Loaded flows.
        context: Context of the action, whose recipient gets the message.
        text: Text in the language of the context.
    """
    if text == last_text(context.db, context.session.id, context.recipient):
        text = book.shared.repeated[context.language].format(text=text)
    context.db.add(
        OutboxMessage(
            key=context.key,
            session_id=context.session.id,
            customer_id=context.customer.id if context.customer else None,
            contact=context.recipient,
            # The report of the turn hands over a reply to the session.
            delivery=Delivery.ANSWERED if context.recipient is None else Delivery.PENDING,
            flow=context.flow.flow,
            language=context.language,
            text=text,
            trace=current_span() or None,
            created_at=context.now,
        )
    )
    return MessageSent(to=context.recipient, language=context.language, text=text)
