"""Files of docs/training.md, used as the page says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.doc_pages import DOCS, blocks
from tests.support.project import PROJECT

from gpt2flow.agent.flows import load_flows
from gpt2flow.agent.shop import Database, Product, database_url
from gpt2flow.agent.shop.catalogue import load_catalogue
from gpt2flow.training.corpus.corpus import make_flow_corpus

ADDITIONS, ENGLISH, GOODS = blocks("training.md", "yaml")
CHINESE = """
values:
  topic:
    garment_care: ["牛仔裤怎么洗", "靴子怎么清洁"]
    membership: ["会员等级", "金卡会员有什么好处"]
spans:
  product: ["修身牛仔裤", "切尔西靴"]
"""
PAGE = (DOCS / "training.md").read_text(encoding="utf-8")
FLOWS = PROJECT / "agent/gpt2flow/agent/flows"


def add(target: dict[str, Any], more: dict[str, Any]) -> None:
    """Add entries: those of mappings by key, those of lists last."""
    for key, value in more.items():
        if isinstance(value, dict) and key in target:
            add(target[key], value)
        elif isinstance(value, list) and key in target:
            target[key] = [*target[key], *value]
        else:
            target[key] = value


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Return a directory with the flows of the clothes shop."""
    clothes = tmp_path / "clothes"
    clothes.mkdir()
    copy = next(block for block in blocks("training.md") if block.startswith("mkdir clothes"))
    commands = copy.replace("agent/gpt2flow/agent/flows", str(FLOWS)).replace(
        "mkdir clothes && ", ""
    )
    subprocess.run(["sh", "-ec", commands], cwd=tmp_path, check=True)
    path = clothes / "after_sales" / "flow.yaml"
    flow = yaml.safe_load(path.read_text(encoding="utf-8"))
    add(flow, yaml.safe_load(ADDITIONS))
    path.write_text(yaml.safe_dump(flow, allow_unicode=True), encoding="utf-8")
    (clothes / "garments").mkdir()
    (clothes / "garments" / "utterances.en.yaml").write_text(ENGLISH, encoding="utf-8")
    (clothes / "garments" / "utterances.zh.yaml").write_text(CHINESE, encoding="utf-8")
    return tmp_path


def test_the_flows_of_the_page_are_valid_and_leave_out_no_part_of_the_demo_shop(
    shop: Path,
) -> None:
    book = load_flows(shop / "clothes")
    assert book.actions.keys() == load_flows().actions.keys()
    assert book.slots["topic"].values[-2:] == ["garment_care", "membership"]
    assert set(book.flows["after_sales"].answers) == set(book.slots["topic"].values)


def test_the_goods_of_the_page_are_sold(shop: Path) -> None:
    path = shop / "clothes.yaml"
    path.write_text(GOODS, encoding="utf-8")
    url = database_url(str(shop / "clothes.sqlite"))
    database = Database.open(url, load_catalogue(path))
    with database.transaction() as session:
        assert {product.name_en for product in session.query(Product)} == {
            "slim jeans",
            "chelsea boots",
        }
    database.close()


def test_turns_are_generated_from_the_flows_of_the_page(shop: Path) -> None:
    make_flow_corpus(shop / "corpus", 1500, 1, valid_documents=1, flows=shop / "clothes")
    corpus = (shop / "corpus" / "train.txt").read_text(encoding="utf-8")
    for expected in ('"topic":"garment_care"', "slim jeans", "修身牛仔裤"):
        assert expected in corpus


def test_every_option_of_the_page_exists() -> None:
    (command,) = re.findall(r"^python (benchmarks/abcd\.py.*)$", PAGE, re.MULTILINE)
    environment = {**os.environ, "COLUMNS": "200"}
    shown = subprocess.run(
        [sys.executable, str(PROJECT / "benchmarks/abcd.py"), "--help"],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
        timeout=120,
    ).stdout
    named = set(re.findall(r"--[a-z]+", command)) | {"--votes", "--checkpoint", "--set"}
    assert all(option in shown for option in named)


def test_the_schema_of_the_page_names_buttons() -> None:
    from abcd_task.dialogues import BUTTONS

    (text,) = re.findall(r"echo '(.*?)' > buttons.json", PAGE, re.DOTALL)
    assert set(json.loads(text)["properties"]["action"]["enum"]) < set(BUTTONS)
