"""Scenarios: a shop as it is, what customers write, and how it must end."""

from gpt2flow.agent.scenarios.format import Scenario, Turn, load_scenarios
from gpt2flow.agent.scenarios.shop_state import check, prepare

__all__ = ["Scenario", "Turn", "check", "load_scenarios", "prepare"]
