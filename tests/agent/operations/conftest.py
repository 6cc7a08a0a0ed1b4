"""Operations run on both databases."""

import pytest
from tests.support.postgresql import DATABASES

from gpt2flow.agent.shop import Database


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest) -> Database:
    """Newly opened shop."""
    shop: Database = request.getfixturevalue(f"{request.param}_shop")
    return shop
