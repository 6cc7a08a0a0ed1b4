"""Alembic's entry point: runs the migrations on the connection of the command."""

from alembic import context

from gpt2flow.agent.shop import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    # SQLite too can undo a change of its schema, so that a killed migration leaves the old one.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
