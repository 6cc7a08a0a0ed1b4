"""Agents that work in the database, and on the shop's screens."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import inspect, select
from sqlalchemy.orm import Session
from tests.support.console import Tokens, new_tokens
from tests.support.conversations import Conversation
from tests.support.shop import CODE, Clock
from tests.support.storefront import RunningStorefront, running_storefront

from gpt2flow.agent.agent import Agent
from gpt2flow.agent.config import AgentConfig, BrowserConfig
from gpt2flow.agent.shop import Base, Database, database_url

_Row = TypeVar("_Row", bound=Base)
# Records of who did what, in which the two ways differ.
_RECORDS = {"executed_actions", "model_calls", "agent_processes", "alembic_version"}
# Columns that name those records, or are drawn by lot.
_OWN = {"outbox": {"id", "key", "trace"}, "verifications": {"salt", "digest"}}
_OWN |= {"received_messages": {"key"}}


@dataclass
class Workplace:
    """Shop in which an agent works on the screens.

    Attributes:
        path: Database file.
        clock: Clock of the shop and of the agent.
        tokens: File of tokens; `bot` is the agent.
        shop: Running shop.
    """

    path: Path
    clock: Callable[[], datetime]
    tokens: Tokens
    shop: RunningStorefront
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def browser(self) -> BrowserConfig:
        """Settings of the agent's hands."""
        token = self.tokens.path.with_name("bot.token")
        token.write_text(self.tokens.secrets["hal"], encoding="utf-8")
        return BrowserConfig(self.shop.url, token, settle_seconds=1.0, **self.settings)

    @contextmanager
    def agent(self, conversation: Conversation) -> Iterator[Agent]:
        """Run the agent of a conversation until the block ends."""
        config = AgentConfig(database=str(self.path), browser=self.browser)
        with Agent(config, model=conversation.model, clock=self.clock, codes=lambda: CODE) as agent:
            yield agent

    def rows(self, table: type[_Row]) -> list[_Row]:
        """Return all rows of a table."""
        with self._transaction() as db:
            found = list(db.scalars(select(table)).unique())
            db.expunge_all()
            return found

    def write(self, change: Callable[[Session], object]) -> None:
        """Change rows of the shop."""
        with self._transaction() as db:
            change(db)

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        database = Database.open(database_url(str(self.path)))
        with closing(database), database.transaction() as db:
            yield db


@contextmanager
def workplace(
    path: Path, clock: Callable[[], datetime] | None = None, **settings: Any
) -> Iterator[Workplace]:
    """Open the shop of a database until the block ends.

    Args:
        path: Database file.
        clock: Clock of the shop and of the agent; None is one that stands still.
        settings: Settings of the shop.
    """
    clock, tokens = clock or Clock(), new_tokens(path.with_name("tokens.toml"))
    with running_storefront(path, tokens, clock, **settings) as shop:
        yield Workplace(path, clock, tokens, shop)


def play_in_database(path: Path, conversation: Conversation) -> list[str | None]:
    """Carry a conversation out without a browser, and return the outcomes."""
    config = AgentConfig(database=str(path))
    with Agent(config, model=conversation.model, clock=Clock(), codes=lambda: CODE) as agent:
        return play(agent, conversation)


def play(agent: Agent, conversation: Conversation) -> list[str | None]:
    """Send all messages of a conversation, and return the outcomes."""
    outcomes: list[str | None] = []
    for number, text in enumerate(conversation.messages):
        report = agent.handle(conversation.session, text, str(number))
        outcomes += [action.outcome for action in report.actions]
    return outcomes


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return the rows that only one of two shops has."""
    sides = (("first", one, other), ("second", other, one))
    return [
        f"only in the {side}: {table} {row}"
        for side, has, lacks in sides
        for table, found in has.items()
        for row in found
        if row not in lacks[table]
    ]


def rows(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Return all rows of a shop by table, records left out."""
    database, found = Database.open(database_url(str(path))), {}
    with database.transaction() as db:
        for mapper in Base.registry.mappers:
            table = mapper.class_.__tablename__
            if table in _RECORDS:
                continue
            own = _OWN.get(table, set())
            columns = [c.key for c in inspect(mapper.class_).column_attrs if c.key not in own]
            found[table] = sorted(
                (
                    {name: getattr(row, name) for name in columns}
                    for row in db.scalars(select(mapper.class_)).unique()
                ),
                key=repr,
            )
    database.close()
    return found
