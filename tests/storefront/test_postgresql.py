"""Storefront on PostgreSQL, where several processes write at once."""

import threading
from typing import TYPE_CHECKING

import httpx
import pytest
from tests.support.shop import CODE, Clock, Shop
from tests.support.storefront import running_storefront
from tests.support.website import Tokens, plain_text

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.shop import CartLine, Database, Order, Shipment, database_url
from gpt2flow.agent.turns.execution import Executor

if TYPE_CHECKING:
    from tests.support.postgresql import PostgresqlServer

pytestmark = pytest.mark.process


def test_a_shop_on_postgresql_is_that_of_sqlite(
    postgresql: "PostgresqlServer", book: FlowBook, tokens: Tokens
) -> None:
    clock = Clock()
    with postgresql.database() as url:
        database = Database.open(database_url(url))
        shop = Shop(book, database, clock, Executor(book, database, clock, lambda: CODE, 0.5))
        with (
            running_storefront(url, tokens, clock) as one,
            running_storefront(url, tokens, clock) as other,
            one.shopper() as ann,
            one.operator("hal") as hal,
        ):
            ann.register()
            form = {**ann.forms("/products/umbrella")["/products/umbrella"], "quantity": "1"}
            cookies = dict(ann.client.cookies)

            def send(address: str) -> None:
                with httpx.Client(cookies=cookies, trust_env=False, timeout=60) as client:
                    client.post(f"{address}/products/umbrella", data=form)

            threads = [threading.Thread(target=send, args=(one.url,)) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            # Another process knows the form by its record.
            send(other.url)
            assert [line.quantity for line in shop.rows(CartLine)] == [1]
            ann.do("/checkout", address="5 Oak Rd")
            response = ann.submit("/checkout/review", "/checkout/confirm")
            [order] = shop.rows(Order)
            assert response.headers["location"] == f"/orders/{order.number}"
            path = f"/office/orders/{order.number}"
            hal.do(path, f"{path}/courier")
            [parcel] = shop.rows(Shipment)
            assert parcel.tracking in plain_text(ann.read(f"/orders/{order.number}"))
            assert order.number in hal.read("/office")
            assert "Ann" in hal.read("/office")
            for strange in ("/products/%00", "/orders/SO-%00", "/?q=%00", "/orders/SO-999999999"):
                assert ann.client.get(strange).status_code in {200, 404}
            page = ann.do("/call", time="tomorrow at 3pm", details="a\x00b")
            assert "cannot be shown" in page
            assert "There is no conversation" in hal.do("/office/serve", conversation="\x00")
        database.close()
