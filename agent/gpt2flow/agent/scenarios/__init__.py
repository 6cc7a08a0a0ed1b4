"""Scenarios: initial shop state, customer messages and expected final state."""

from gpt2flow.agent.scenarios.format import Scenario, Turn, load_scenarios
from gpt2flow.agent.scenarios.shop_state import check, prepare

__all__ = ["Scenario", "Turn", "check", "load_scenarios", "prepare"]
