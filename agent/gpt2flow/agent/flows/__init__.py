"""The flow files that ship with the agent, and the loader of any such folder."""

from gpt2flow.agent.flows.book import FlowBook, load_flows

__all__ = ["FlowBook", "load_flows"]
