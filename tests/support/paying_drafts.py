"""A cost of runs that makes drafts pay on every machine."""

from gpt2flow.server.engine.forecast import RunCost


class PayingDrafts(RunCost):
    """Cost of runs that makes any draft pay.

    What the engine drafts otherwise depends on measured times, so on the load of the machine.
    """

    def break_even(self, tokens: int) -> float:
        del tokens
        return 0.0
