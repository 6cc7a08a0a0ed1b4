"""Actions under way on the shop's screens, and pictures for people.

Revision v0005, after v0004.
"""

import sqlalchemy as sa
from alembic import op

from gpt2flow.agent.shop.tables.base import UtcDateTime

revision = "v0005"
down_revision = "v0004"


def upgrade() -> None:
    """Change the schema."""
    op.create_table(
        "screen_work",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("session_id", sa.String(), nullable=False),
        sa.Column("task", sa.JSON(), nullable=False),
        sa.Column("before", sa.String(), nullable=True),
        sa.Column("pressed_at", UtcDateTime(), nullable=True),
        sa.Column("outcome", sa.String(), nullable=True),
        sa.Column("fields", sa.JSON(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"]),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index("ix_screen_work_session_id", "screen_work", ["session_id"])
    op.create_table(
        "case_pictures",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("case_id", sa.Integer(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["case_id"], ["cases.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_case_pictures_case_id", "case_pictures", ["case_id"])
