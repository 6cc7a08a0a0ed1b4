"""Confidence of each model call.

Revision v0004, after v0003.
"""

import sqlalchemy as sa
from alembic import op

revision = "v0004"
down_revision = "v0003"


def upgrade() -> None:
    """Change the schema; the confidence of earlier calls is unknown."""
    op.add_column("model_calls", sa.Column("confidence", sa.Double(), nullable=True))
