"""Declared effects equal the effects in the shop.

The corpus is generated from the declared effects.
"""

import random
from typing import Any

import pytest
from tests.support.shop import Shop

from gpt2flow.agent.turns.execution import Event

CODE = "123456"
VALUES: dict[str, list[str | int]] = {
    "name": ["Ann", "王芳"],
    "contact": ["ann@example.com", "bob@example.com", "13800138000"],
    "code": [CODE, CODE, CODE, "000000"],
    "product": ["kettle", "umbrellas", "game", "羽绒服", "drone"],
    "quantity": [1, 2, 3, 60],
    "order": ["last", "SO-1001", "SO-1002", "SO-9999"],
    "address": ["12 Elm St, Leeds"],
    "reason": ["damaged", "changed_mind"],
    "topic": ["privacy"],
    "time": ["tomorrow at 3pm", "明天下午3点", "tomorrow at 3am", "soon"],
}


# Actions that advance the state; uniform sampling would rarely leave the start.
ADVANCING = ("register", "verify", "add_to_cart", "check_out", "confirm_order", "confirm_delivery")


@pytest.mark.parametrize("seed", range(12))
def test_facts_change_as_declared(shop: Shop, seed: int) -> None:
    """Random walks over legal actions, with slots given or omitted."""
    rng, book = random.Random(seed), shop.book
    for _ in range(40):
        before = shop.facts("s")
        legal = book.legal(before)
        action = rng.choices(legal, [4 if name in ADVANCING else 1 for name in legal])[0]
        arguments: dict[str, Any] = {
            slot: rng.choice(VALUES[slot])
            for slot in book.actions[action].slots
            if rng.random() < 0.85
        }
        step = shop.act("s", action, **arguments)
        assert step.facts == shop.facts("s")
        done = step.report.action
        allowed = {before} if step.report.result != "ok" else {book.apply(done, before)}
        if done == "remove_from_cart":
            # The facts do not show whether the line is the last one in the cart.
            allowed.add(before - {"cart", "confirming"})
        assert step.facts in allowed, (action, arguments, step.report.outcome)
        if step.raised:
            for name in ("assign_courier", "send_delivery_details"):
                after = book.apply(name, shop.executor.event_facts(Event(*step.raised)))
                assert shop.event("s", Event(*step.raised), name).facts == after
