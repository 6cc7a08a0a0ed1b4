"""Tools of others on a real gateway, for `make interop`.

Each runs in an environment of its own, which takes minutes to install.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.gateway_process import PROMPT, RunningGateway, gateway_process
from tests.support.interop_environment import PROGRAMS, environment, python_of, run_program
from tests.support.project import SHIPPED_BUNDLE
from tests.support.waiting import SECONDS

from gpt2flow.client import BeamSearch, Client, Options, Sampling

GREEDY = Sampling(temperature=0)
CHOICES = ['{"action":"add_to_cart', '{"action":"greet']
# Prompt, and the choice that the shipped model prefers.
LINES = [(PROMPT, 0), ("<|state|>guest<|user|>hello<|act|>", 1)]


@pytest.fixture(scope="module")
def gateway(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    with gateway_process(address, tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address) as opened:
        yield opened


def test_langchain_gets_what_grpc_returns(gateway: RunningGateway, client: Client) -> None:
    found = run_program("langchain", gateway.url)
    text = client.generate(PROMPT, Options(GREEDY, max_new_tokens=30)).text
    short = Options(GREEDY, max_new_tokens=4)
    assert found["completion"] == found["streamed_completion"] == text
    assert found["batch"] == [
        each.text for each in client.generate_many([PROMPT, f"{PROMPT}2"], short)
    ]
    beams = Options(BeamSearch(num_beams=3), max_new_tokens=8)
    assert found["best"] == client.generate(PROMPT, beams).text
    chat = client.generate(PROMPT, Options(GREEDY))
    assert found["chat"] == found["streamed_chat"] == chat.text
    assert found["usage"]["input_tokens"] == chat.usage.prompt_tokens
    assert found["usage"]["output_tokens"] == chat.usage.completion_tokens
    assert found["wish"] in {"umbrella", "kettle"}
    assert found["tools"]["name"] == "add_to_cart"
    assert found["tools"]["args"]["product"] in {"umbrella", "kettle"}
    assert found["tools"]["after"]


@pytest.fixture(scope="module")
def samples(
    gateway: RunningGateway, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[dict[str, Any]]]:
    """Return the samples that lm-eval has logged, by task."""
    folder = tmp_path_factory.mktemp("lm_eval")
    lines = [{"prompt": prompt, "choices": CHOICES, "gold": gold} for prompt, gold in LINES]
    data = folder / "lines.jsonl"
    data.write_text("\n".join(json.dumps(line) for line in lines))
    for path in (PROGRAMS / "lm_eval_tasks").glob("*.yaml"):
        (folder / path.name).write_text(path.read_text().replace("DATA", str(data)))
    model = {
        "model": "shop",
        "base_url": f"{gateway.url}/completions",
        "tokenizer_backend": "huggingface",
        "tokenizer": str(tokenizer(folder / "tokenizer")),
        "max_length": 512,
        "num_concurrent": 2,
    }
    command = [
        *(str(python_of("lm-eval").with_name("lm_eval")), "--model", "local-completions"),
        *("--model_args", ",".join(f"{name}={value}" for name, value in model.items())),
        *("--tasks", "wishes,actions", "--include_path", str(folder)),
        *("--output_path", str(folder / "out"), "--log_samples"),
    ]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=4 * SECONDS,
        check=False,
        env=environment() | offline,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, list[dict[str, Any]]] = {}
    for path in (folder / "out").rglob("samples_*.jsonl"):
        found[path.name.split("_")[1]] = [
            json.loads(line) for line in path.read_text().splitlines()
        ]
    return found


def tokenizer(folder: Path) -> Path:
    """Return a folder from which transformers reads the tokenizer as it is."""
    folder.mkdir()
    (folder / "tokenizer.json").symlink_to(SHIPPED_BUNDLE / "tokenizer.json")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_lm_eval_ranks_by_the_log_likelihoods_of_grpc(
    samples: dict[str, list[dict[str, Any]]], client: Client
) -> None:
    found = sorted(samples["wishes"], key=lambda sample: int(sample["doc_id"]))
    assert [sample["acc"] for sample in found] == [1.0, 1.0]
    for (prompt, gold), sample in zip(LINES, found, strict=True):
        scores = client.score(prompt, CHOICES).scores
        likelihoods = [float(answer[0][0]) for answer in sample["resps"]]
        assert likelihoods == pytest.approx([each.total_logprob for each in scores], rel=1e-3)
        # The likelier answer is also what greedy decoding would write.
        assert sample["resps"][gold][0][1] == "True"


def test_lm_eval_generates_what_grpc_returns(
    samples: dict[str, list[dict[str, Any]]], client: Client
) -> None:
    found = sorted(samples["actions"], key=lambda sample: int(sample["doc_id"]))
    options = Options(GREEDY, max_new_tokens=24, stop_strings=(",",))
    expected = client.generate_many([prompt for prompt, _ in LINES], options)
    assert [sample["resps"][0][0] for sample in found] == [each.text for each in expected]


def test_guidellm_loads_the_gateway(
    gateway: RunningGateway, client: Client, tmp_path: Path
) -> None:
    prompts = [f"{PROMPT}{number}" for number in range(12)]
    lines = tmp_path / "prompts.jsonl"
    lines.write_text("\n".join(json.dumps({"prompt": prompt}) for prompt in prompts))
    target = gateway.url.removesuffix("/v1")
    options = {
        "--backend": f"kind=openai_http,target={target},model=shop,request_format=/v1/completions",
        "--profile": "kind=concurrent,streams=4",
        "--constraint": f"kind=max_requests,count={len(prompts)}",
        "--data": f"kind=json_file,path={lines}",
        "--tokenizer": f"kind=huggingface_auto,model={tokenizer(tmp_path / 'tokenizer')}",
        "--output": f"kind=json,path={tmp_path / 'out.json'}",
    }
    program = str(python_of("guidellm").with_name("guidellm"))
    words = [word for pair in options.items() for word in pair]
    done = subprocess.run(
        [program, "run", *words, "--disable-progress"],
        capture_output=True,
        text=True,
        timeout=4 * SECONDS,
        check=False,
        env=environment() | {"HF_HUB_OFFLINE": "1"},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    [benchmark] = json.loads((tmp_path / "out.json").read_text())["benchmarks"]
    totals = benchmark["metrics"]["request_totals"]
    assert (totals["successful"], totals["errored"]) == (len(prompts), 0)
    for request in benchmark["requests"]["successful"]:
        prompt = json.loads(request["request_args"])["body"]["prompt"]
        assert request["prompt_tokens"] == len(client.tokenize(prompt))
        assert 0 < request["output_tokens"] <= 16
        assert request["time_to_first_token_ms"] > 0
