"""Sweep for payments to settle, and for cases of other programs."""

from collections.abc import Callable, Iterable
from datetime import timedelta
from threading import Event, Thread

import structlog

from gpt2flow.agent.payments.payer import Payer
from gpt2flow.agent.report import Timer

_INTERVAL_SECONDS = 2.0
# A turn makes the charge that it has requested, and then handles the order. It is taken to have
# ended without that after so long.
_TURN_SECONDS = 5.0
_LOG = structlog.get_logger(__name__)


class PaymentSweep:
    """Thread that settles payments whose time has come.

    They are refunds that waited or that a person approved, and payments without an answer. Several
    processes may sweep at once: a payment is claimed before it is made.

    Cases that another program has opened get their timer when they are due.

    Args:
        payer: Settler of the payments.
        set_timer: Function that sets the timer of a case, which may be set already.
        due_timers: Function that returns the timers of cases whose time has come.
    """

    def __init__(
        self,
        payer: Payer,
        set_timer: Callable[[Timer], None],
        due_timers: Callable[[], Iterable[Timer]] = list,
    ) -> None:
        self._payer = payer
        self._set_timer = set_timer
        self._due_timers = due_timers
        self._stop = Event()
        self._thread = Thread(target=self._run, name="payments", daemon=True)

    def start(self) -> None:
        """Start to sweep."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the payment that is being made, and stop."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_INTERVAL_SECONDS):
            try:
                self._sweep()
            except Exception as error:  # noqa: BLE001 - without this thread, nothing is paid
                # Mostly the database is away: turns fail with that error too.
                _LOG.warning("payments_failed", error=type(error).__name__)

    def _sweep(self) -> None:
        for payment in self._payer.due(timedelta(seconds=_TURN_SECONDS)):
            if self._stop.is_set():
                return
            for timer in self._payer.settle(payment).timers:
                self._set_timer(timer)
        for timer in self._due_timers():
            self._set_timer(timer)
