"""Addresses of a client's servers, and the choice among them."""

import threading
from collections.abc import Sequence
from hashlib import blake2b
from itertools import count
from time import monotonic
from typing import Final

from gpt2flow.client import validation

# Seconds for which an address that failed is chosen only if all others have failed too.
SET_ASIDE_SECONDS: Final = 5.0
# A comma is a part of a path, and separates endpoints within one target of gRPC.
_WHOLE: Final = ("unix:", "unix-abstract:", "ipv4:", "ipv6:")
_RULE: Final = "host:port or unix:PATH, or several of them, such as host:port,host:port"


def parse_addresses(given: str | Sequence[str]) -> tuple[str, ...]:
    """Return the addresses of a client, each once.

    Args:
        given: One address, several with commas between them, or a sequence of addresses.

    Raises:
        SettingsError: There is none, or one is no address.
    """
    if isinstance(given, str):
        validation.text("address", given)
        parts = [given] if is_one_target(given) else given.split(",")
        addresses = [part.strip() for part in parts]
    else:
        addresses = validation.sequence("address", given, _RULE)
    for address in addresses:
        if not (validation.text("address", address) and address.isprintable()):
            raise validation.invalid("address", given, _RULE)
    if not addresses:
        raise validation.invalid("address", given, _RULE)
    return tuple(dict.fromkeys(addresses))


def is_one_target(address: str) -> bool:
    """Return whether an address is a single target of gRPC."""
    return "," not in address or address.startswith(_WHOLE)


def rank_addresses(session: str, addresses: Sequence[str]) -> list[str]:
    """Return addresses in the order in which a session prefers them.

    This is rendezvous hashing: each address has a weight that depends on the session and the
    address alone, and the highest comes first. Further addresses therefore take sessions over, but
    move none between the others. Every client on every machine computes the same order.
    """
    return sorted(addresses, key=lambda address: _weight(session, address), reverse=True)


def _weight(session: str, address: str) -> bytes:
    # As a key, the address is kept apart from the session; a key has at most 64 bytes.
    key = blake2b(address.encode(), digest_size=32).digest()
    return blake2b(session.encode(), key=key, digest_size=16).digest()


class AddressBook:
    """Addresses of a client, with those that failed a short time ago.

    Threads may share one.

    Args:
        addresses: Addresses of the servers, at least one.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = tuple(addresses)
        self._turns = count()
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def choose(self, session: str | None) -> str:
        """Return the address of the next attempt of a call.

        Args:
            session: Session of the call, which has an order of its own. None: one after the other.
        """
        if len(self._addresses) == 1:
            return self._addresses[0]
        if session is None:
            start = next(self._turns) % len(self._addresses)
            order = [*self._addresses[start:], *self._addresses[:start]]
        else:
            order = rank_addresses(session, self._addresses)
        now = monotonic()
        with self._lock:
            healthy = [each for each in order if self._until.get(each, now) <= now]
        # With none that is healthy, the one that failed first is the likeliest to be back.
        return healthy[0] if healthy else min(order, key=self._until_or_zero)

    def set_aside(self, address: str) -> None:
        """Record that a server could not be reached."""
        with self._lock:
            self._until[address] = monotonic() + SET_ASIDE_SECONDS

    def _until_or_zero(self, address: str) -> float:
        return self._until.get(address, 0.0)
