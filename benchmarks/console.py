"""Time of the console's pages over a shop with many cases.

    python benchmarks/console.py --cases 10000

It fills a new SQLite shop, serves the console from a process of its own, signs in, and reads each
page in turn.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import httpx
from sqlalchemy import insert

from gpt2flow.agent.shop import (
    Case,
    CaseKind,
    CaseStatus,
    Customer,
    CustomerSession,
    Database,
    ReceivedMessage,
    database_url,
)
from gpt2flow.cli.processes import console
from gpt2flow.files.tokens import make_token

PAGES = {
    "inbox, first page": "/",
    "inbox, last page": "/?page=200",
    "all refunds": "/?view=all&kind=refund",
    "case": "/cases/C-5000",
    "conversations": "/conversations",
    "search": "/conversations?q=needle",
}


def fill(path: Path, count: int) -> None:
    """Create a shop in which each of some customers has one case.

    Args:
        path: SQLite file to create.
        count: Number of cases.
    """
    database = Database.open(database_url(str(path)))
    start = datetime.now(UTC) - timedelta(days=30)
    numbers = range(1, count + 1)
    times = {number: start + timedelta(minutes=number) for number in numbers}
    with database.transaction() as db:
        db.execute(
            insert(Customer),
            [
                {
                    "id": number,
                    "name": f"Customer {number}",
                    "contact": f"customer{number}@example.com",
                    "language": "en",
                    "created_at": times[number],
                }
                for number in numbers
            ],
        )
        db.execute(
            insert(CustomerSession),
            [
                {
                    "id": f"s{number}",
                    "customer_id": number,
                    "language": "en",
                    "created_at": times[number],
                }
                for number in numbers
            ],
        )
        db.execute(
            insert(ReceivedMessage),
            [
                {
                    "key": f"s{number}/1",
                    "session_id": f"s{number}",
                    "language": "en",
                    "text": f"the {'needle' if number % 1000 == 0 else 'kettle'} came broken",
                    "created_at": times[number],
                }
                for number in numbers
            ],
        )
        db.execute(
            insert(Case),
            [
                {
                    "kind": CaseKind.REFUND,
                    "status": CaseStatus.AWAITING_APPROVAL,
                    "session_id": f"s{number}",
                    "customer_id": number,
                    "amount": Decimal(number % 1000 + 1),
                    "reason": "defective",
                    "note": "the kettle came broken",
                    "inbox_since": times[number],
                    "created_at": times[number],
                }
                for number in numbers
            ],
        )
    database.close()


@contextmanager
def signed_in(folder: Path, count: int) -> Iterator[httpx.Client]:
    """Serve the console of a filled shop, and yield a client."""
    fill(folder / "shop.sqlite", count)
    secret, entry = make_token("ben", ValueError, may="approve")
    tokens = folder / "tokens.toml"
    tokens.write_text(entry, encoding="utf-8")
    with (
        console(folder / "shop.sqlite", tokens, folder) as address,
        httpx.Client(base_url=f"http://{address}", trust_env=False, timeout=60) as client,
    ):
        client.post("/sign-in", data={"token": secret})
        yield client


def main() -> None:
    """Read each page, and print the median of its times in milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="Number of cases in the inbox.")
    parser.add_argument("--repeats", type=int, default=20, help="Number of reads of each page.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object.")
    arguments = parser.parse_args()
    figures = {}
    with (
        tempfile.TemporaryDirectory() as name,
        signed_in(Path(name), arguments.cases) as client,
    ):
        for title, path in PAGES.items():
            times = []
            for _ in range(arguments.repeats):
                start = time.perf_counter()
                response = client.get(path)
                times.append(1000 * (time.perf_counter() - start))
                response.raise_for_status()
            figures[title] = {
                "median": round(statistics.median(times), 1),
                "largest": round(max(times), 1),
            }
    if arguments.json:
        print(json.dumps(figures))
        return
    for title, figure in figures.items():
        print(f"{title:20} {figure['median']:8.1f} ms, largest {figure['largest']:8.1f} ms")


if __name__ == "__main__":
    main()
