"""Cases on both databases, and the desk at which people handle them."""

import pytest
from tests.support.desk import new_desk
from tests.support.postgresql import DATABASES
from tests.support.shop import Shop

from gpt2flow.agent.cases.decisions import Desk
from gpt2flow.agent.shop import Database


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest) -> Database:
    """Newly opened shop."""
    shop: Database = request.getfixturevalue(f"{request.param}_shop")
    return shop


@pytest.fixture
def desk(shop: Shop) -> Desk:
    return new_desk(shop)
