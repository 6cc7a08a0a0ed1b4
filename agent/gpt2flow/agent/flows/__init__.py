"""Built-in flow files, and the loader of flow folders."""

from gpt2flow.agent.flows.book import FlowBook, load_flows

__all__ = ["FlowBook", "load_flows"]
