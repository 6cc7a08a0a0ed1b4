"""Execution of actions, each in one transaction."""

from gpt2flow.agent.turns.execution.contexts import check_operations
from gpt2flow.agent.turns.execution.executor import Executor
from gpt2flow.agent.turns.execution.task import (
    ADD_TO_CART,
    AFFIRM,
    DENY,
    ESCALATE,
    SMALL_TALK,
    Event,
    Task,
)

__all__ = [
    "ADD_TO_CART",
    "AFFIRM",
    "DENY",
    "ESCALATE",
    "SMALL_TALK",
    "Event",
    "Executor",
    "Task",
    "check_operations",
]
