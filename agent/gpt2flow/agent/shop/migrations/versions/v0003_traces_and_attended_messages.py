"""Traces of messages in the outbox, and persons whom messages went to.

Revision v0003, after v0002.
"""

import sqlalchemy as sa
from alembic import op

revision = "v0003"
down_revision = "v0002"

# Both are unknown for the rows that are there.
_COLUMNS = {"outbox": "trace", "received_messages": "attended_by"}


def upgrade() -> None:
    """Change the schema."""
    for table, column in _COLUMNS.items():
        op.add_column(table, sa.Column(column, sa.String(), nullable=True))
