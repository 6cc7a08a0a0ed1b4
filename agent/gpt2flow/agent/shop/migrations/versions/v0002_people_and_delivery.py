"""Cases with a life, messages of customers, and delivery of the outbox.

Revision v0002, after v0001.
"""

import sqlalchemy as sa
from alembic import op

from gpt2flow.agent.shop.tables.base import Money, UtcDateTime

revision = "v0002"
down_revision = "v0001"


def upgrade() -> None:
    """Change the schema."""
    op.create_table(
        "case_events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("case_id", sa.Integer(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("change", sa.String(), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "open",
                "approved",
                "awaiting_approval",
                "rejected",
                "scheduled",
                "due",
                "expired",
                "closed",
                name="casestatus",
                native_enum=False,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("text", sa.String(), nullable=True),
        sa.Column("details", sa.JSON(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["case_id"], ["cases.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("case_events") as table:
        table.create_index("ix_case_events_case_id", ["case_id"], unique=False)

    op.create_table(
        "agent_processes",
        sa.Column("executor_id", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("seen_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("executor_id"),
    )
    op.create_table(
        "payments",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column(
            "kind",
            sa.Enum("charge", "refund", name="paymentkind", native_enum=False, length=32),
            nullable=False,
        ),
        sa.Column("order_id", sa.Integer(), nullable=False),
        sa.Column("case_id", sa.Integer(), nullable=True),
        sa.Column("amount", Money(), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "requested",
                "paid",
                "refused",
                "void",
                "stuck",
                name="paymentstatus",
                native_enum=False,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("reference", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", UtcDateTime(), nullable=False),
        sa.Column("settled_at", UtcDateTime(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["case_id"], ["cases.id"]),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("key"),
    )
    with op.batch_alter_table("payments") as table:
        table.create_index("ix_payments_case_id", ["case_id"], unique=False)
        table.create_index("ix_payments_order_id", ["order_id"], unique=False)
        table.create_index("ix_payments_status", ["status", "next_attempt_at"], unique=False)

    op.create_table(
        "received_messages",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("session_id", sa.String(), nullable=False),
        sa.Column("language", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"]),
        sa.PrimaryKeyConstraint("key"),
    )
    with op.batch_alter_table("received_messages") as table:
        table.create_index("ix_received_messages_session_id", ["session_id"], unique=False)

    with op.batch_alter_table("cases") as table:
        table.add_column(sa.Column("assignee", sa.String(), nullable=True))
        table.add_column(sa.Column("urgency", sa.Integer(), server_default="0", nullable=False))
        table.add_column(sa.Column("inbox_since", UtcDateTime(), nullable=True))
        table.add_column(sa.Column("attention_at", UtcDateTime(), nullable=True))
        table.add_column(sa.Column("proposal", sa.JSON(), nullable=True))
        table.create_index("ix_cases_assignee", ["assignee"], unique=False)
        table.create_index("ix_cases_attention_at", ["attention_at"], unique=False)

    with op.batch_alter_table("outbox") as table:
        table.add_column(
            sa.Column(
                "audience",
                sa.Enum("customer", "staff", name="audience", native_enum=False, length=32),
                server_default="customer",
                nullable=False,
            )
        )
        table.add_column(sa.Column("case_id", sa.Integer(), nullable=True))
        table.add_column(
            sa.Column(
                "delivery",
                sa.Enum(
                    "answered",
                    "pending",
                    "sent",
                    "dead",
                    name="delivery",
                    native_enum=False,
                    length=32,
                ),
                server_default="pending",
                nullable=False,
            )
        )
        table.add_column(sa.Column("attempts", sa.Integer(), server_default="0", nullable=False))
        table.add_column(sa.Column("next_attempt_at", UtcDateTime(), nullable=True))
        table.add_column(sa.Column("claimed_until", UtcDateTime(), nullable=True))
        table.add_column(sa.Column("sent_at", UtcDateTime(), nullable=True))
        table.add_column(sa.Column("error", sa.String(), nullable=True))
        table.create_index("ix_outbox_case_id", ["case_id"], unique=False)
        table.create_index("ix_outbox_delivery", ["delivery", "id"], unique=False)
        table.create_foreign_key("outbox_case_id_fkey", "cases", ["case_id"], ["id"])

    with op.batch_alter_table("sessions") as table:
        table.add_column(sa.Column("attended_by", sa.String(), nullable=True))

    # Replies within a turn were handed over by its report; the others were never sent, and a
    # customer should not get them late.
    op.execute("UPDATE outbox SET delivery = 'answered' WHERE contact IS NULL")
    op.execute(
        "UPDATE outbox SET delivery = 'dead', error = 'written before messages were delivered'"
        " WHERE contact IS NOT NULL"
    )
    # Cases from before are looked after from the next start of the agent on.
    op.execute(
        "UPDATE cases SET attention_at = coalesce(due_at, created_at)"
        " WHERE status IN ('open', 'awaiting_approval', 'due', 'scheduled')"
    )
    op.execute(
        "UPDATE cases SET inbox_since = created_at"
        " WHERE status IN ('open', 'awaiting_approval', 'due')"
    )
