"""Pictures of screens at which the agent stopped."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import Session

from gpt2flow.agent.cases.life import AGENT, record
from gpt2flow.agent.cases.messages import hide_codes
from gpt2flow.agent.shop import Case, CaseEvent, CasePicture

STOPPED: Final = "stopped"
"""Kind of change of a case for which the agent stopped at a screen."""
# Entry of such a change's details with the id of its picture.
_PICTURE: Final = "picture"


@dataclass(frozen=True)
class Stop:
    """Stop of an action at a screen.

    Attributes:
        reason: What was expected and what was found.
        picture: PNG of the screen; None if there is none.
        details: What the agent was about to do.
        at: Time of the stop.
    """

    reason: str
    picture: bytes | None
    details: dict[str, Any]
    at: datetime


class StoppedScreen(BaseModel):
    """Picture of a screen at which the agent stopped.

    Attributes:
        id: Id of the picture.
        at: Time of the stop.
        text: Why the agent stopped, without verification codes; empty after an erasure.
    """

    model_config = ConfigDict(frozen=True)

    id: int
    at: datetime
    text: str


def record_stop(db: Session, case: Case, stop: Stop) -> None:
    """Write a stop into the history of a case, with its picture.

    Args:
        db: Session on the shop.
        case: Case of the person who looks at it.
        stop: What stopped, and how.
    """
    details = stop.details
    if stop.picture is not None:
        row = CasePicture(case_id=case.id, content=stop.picture, created_at=stop.at)
        db.add(row)
        db.flush()
        details = details | {_PICTURE: row.id}
    record(db, case, AGENT, STOPPED, stop.at, text=stop.reason, details=details)


def picture_of(event: CaseEvent) -> int | None:
    """Return the id of a stop's picture; None if there is none."""
    return (event.details or {}).get(_PICTURE)


def list_pictures(db: Session, case: Case, codes: Sequence[str]) -> list[StoppedScreen]:
    """Return the pictures of a case, newest first, without their contents.

    Args:
        db: Session on the shop.
        case: Case to see.
        codes: Verification codes to hide.
    """
    rows = db.execute(
        select(CasePicture.id, CasePicture.created_at)
        .where(CasePicture.case_id == case.id)
        .order_by(CasePicture.id.desc())
    ).all()
    if not rows:
        return []
    stops = select(CaseEvent).where(CaseEvent.case_id == case.id, CaseEvent.change == STOPPED)
    texts = {picture_of(event): event.text or "" for event in db.scalars(stops)}
    return [
        StoppedScreen(id=key, at=at, text=hide_codes(texts.get(key, ""), codes)) for key, at in rows
    ]


def read_picture(db: Session, case: Case, picture: int) -> bytes | None:
    """Return a picture of a case; None for another's."""
    row = db.get(CasePicture, picture)
    return row.content if row is not None and row.case_id == case.id else None


def read_pictures(db: Session, case: Case) -> list[bytes]:
    """Return the pictures of a case, oldest first."""
    query = select(CasePicture.content).where(CasePicture.case_id == case.id)
    return list(db.scalars(query.order_by(CasePicture.id)))
