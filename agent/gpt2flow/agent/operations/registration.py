"""Operations for registration and login with a code sent to the contact."""

import hashlib
import hmac
import secrets
from datetime import timedelta

from sqlalchemy import func, select

from gpt2flow.agent.flows.prompt import Arguments
from gpt2flow.agent.operations.context import Context, Outcome
from gpt2flow.agent.shop import Checkout, Customer, OutboxMessage, Verification

_SALT_BYTES = 16


def new_code() -> str:
    """Return a random verification code of six digits."""
    return f"{secrets.randbelow(10**6):06}"


def register(context: Context, arguments: Arguments) -> Outcome:
    """Send a code to a contact: to register, or to log in.

    A registered contact logs in instead of registering twice.
    """
    contact, name = str(arguments["contact"]), str(arguments["name"])
    registered = _find_customer(context, contact) is not None
    outcome = "already_registered" if registered else "code_sent"
    return _send_code(context, outcome, contact, None if registered else name)


def log_in(context: Context, arguments: Arguments) -> Outcome:
    """Send a code to the contact of a registered customer."""
    contact = str(arguments["contact"])
    if _find_customer(context, contact) is None:
        return "unknown_contact", {"contact": contact}
    return _send_code(context, "code_sent", contact, None)


def verify(context: Context, arguments: Arguments) -> Outcome:
    """Log in the customer if the code matches.

    A code has a lifetime and a maximum number of attempts.
    """
    verification = context.db.get_one(Verification, context.session.id)
    exhausted = verification.attempts >= context.int_policy("code_attempts")
    if exhausted or context.now >= verification.expires_at:
        return "expired", {}
    digest = _hash_code(verification.salt, str(arguments["code"]))
    if not hmac.compare_digest(digest, verification.digest):
        verification.attempts += 1
        return "wrong_code", {}
    customer = _find_customer(context, verification.contact)
    if customer is None:
        customer = Customer(
            name=verification.name or verification.contact,
            contact=verification.contact,
            language=context.language,
            created_at=context.now,
        )
        context.db.add(customer)
        context.db.flush()
    elif verification.name is not None:
        customer.name = verification.name
    context.session.customer_id = customer.id
    context.db.delete(verification)
    return "verified", {"name": customer.name}


def resend_code(context: Context, arguments: Arguments) -> Outcome:
    """Send a new code, which voids the previous one."""
    del arguments
    verification = context.db.get_one(Verification, context.session.id)
    return _send_code(context, "code_sent", verification.contact, verification.name)


def correct_contact(context: Context, arguments: Arguments) -> Outcome:
    """Send the code to another contact; a registration keeps its name."""
    contact = str(arguments["contact"])
    verification = context.db.get_one(Verification, context.session.id)
    is_login = _find_customer(context, verification.contact) is not None
    if is_login and _find_customer(context, contact) is None:
        return "unknown_contact", {"contact": contact}
    return _send_code(context, "code_sent", contact, verification.name)


def correct_name(context: Context, arguments: Arguments) -> Outcome:
    """Correct the name of a pending registration, or of the customer."""
    name = str(arguments["name"])
    if context.customer is not None:
        context.customer.name = name
    else:
        context.db.get_one(Verification, context.session.id).name = name
    return "corrected", {"name": name}


def log_out(context: Context, arguments: Arguments) -> Outcome:
    """Log out the customer; keep the cart, but not the order summary."""
    del arguments
    context.session.customer_id = None
    context.session.focus_order_id = None
    context.session.wanted = []
    checkout = context.db.get(Checkout, context.session.id)
    if checkout is not None:
        context.db.delete(checkout)
    return "logged_out", {}


def _find_customer(context: Context, contact: str) -> Customer | None:
    return context.db.scalar(select(Customer).where(Customer.contact == contact))


def _send_code(context: Context, outcome: str, contact: str, name: str | None) -> Outcome:
    """Start a verification and send its code to the contact only."""
    if _count_codes_sent(context, contact) >= context.int_policy("codes_per_hour"):
        return "too_many_codes", {"contact": contact}
    code, salt = context.new_code(), secrets.token_hex(_SALT_BYTES)
    minutes = context.int_policy("code_minutes")
    verification = context.db.get(Verification, context.session.id)
    if verification is None:
        verification = Verification(session_id=context.session.id)
        context.db.add(verification)
    verification.contact = contact
    verification.name = name
    verification.salt = salt
    verification.digest = _hash_code(salt, code)
    verification.attempts = 0
    verification.expires_at = context.now + timedelta(minutes=minutes)
    context.recipient = contact
    return outcome, {"code": code, "minutes": minutes, "contact": contact, "name": name or ""}


def _count_codes_sent(context: Context, contact: str) -> int:
    """Count a contact's codes of the last hour, from all sessions."""
    query = select(func.count(OutboxMessage.id)).where(
        OutboxMessage.contact == contact,
        OutboxMessage.flow == context.flow.flow,
        OutboxMessage.created_at > context.now - timedelta(hours=1),
    )
    return context.db.scalar(query) or 0


def _hash_code(salt: str, code: str) -> str:
    return hashlib.sha256(f"{salt}:{code}".encode()).hexdigest()
