"""A run learns, survives a kill and reports invalid input."""

import json
import math
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from gpt2flow.training.config import TrainingConfig
from gpt2flow.training.errors import ConfigError, CorpusError, OutputError, TrainingError
from gpt2flow.training.pipeline import train
from gpt2flow.training.text.documents import read_texts
from gpt2flow.training.text.encoding import encode
from gpt2flow.training.text.vocabulary import train_vocabulary

pytestmark = pytest.mark.process

Write = Callable[[str, str], Path]

_FILES = {
    "README.md",
    "config.json",
    "calibration.txt",
    "curve.csv",
    "eval.txt",
    "generation_config.json",
    "model.safetensors",
    "report.html",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "training.json",
}
# A run that waits a few steps after its first checkpoint.
_RUN = """
import sys, torch
from pathlib import Path
from gpt2flow.training.config import TrainingConfig
from gpt2flow.training.model import loop
from gpt2flow.training.pipeline import train
torch.set_num_threads(1)
config, report = TrainingConfig.model_validate_json(sys.argv[3]), loop.StepReport

def report_and_wait(step, *rest):
    if step == config.save_every + 3:
        print("waiting", flush=True)
        sys.stdin.readline()
    return report(step, *rest)

loop.StepReport = report_and_wait
train([Path(sys.argv[1])], Path(sys.argv[2]), config)
"""


@pytest.fixture
def corpus(documents: list[str], write: Write) -> Path:
    return write("corpus.txt", "\n".join(documents[:150]))


def test_a_run_learns_and_writes_a_checkpoint(
    documents: list[str], write: Write, tmp_path: Path, tiny: TrainingConfig
) -> None:
    corpus = write("corpus.txt", "\n".join(documents[:3000]))
    config = tiny.changed(
        vocabulary_size=600,
        context_length=256,
        layers=2,
        width=64,
        batch_tokens=1024,
        packed_share=0.0,
        learning_rate=5e-3,
        save_every=1000,
    )
    facts = train([corpus], tmp_path / "out", config)

    texts = read_texts([corpus], [], config.valid_share, config.seed)
    encoded = encode(texts.train, train_vocabulary(texts.train, config.vocabulary_size))
    counts = np.array(list(Counter(encoded.ids[encoded.target_mask].tolist()).values()))
    shares = counts / counts.sum()
    unigram = -float((shares * np.log(shares)).sum())
    last = facts["evaluations"][-1]
    assert last["loss"] < 0.5 * unigram
    assert last["perplexity"] == pytest.approx(math.exp(last["loss"]))

    assert {path.name for path in (tmp_path / "out").iterdir()} == _FILES
    assert json.loads((tmp_path / "out" / "training.json").read_text()) == facts
    assert facts["config"] == config.model_dump()
    assert facts["documents"] == len(texts.train) == 2940
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert facts["parameters"] == model.num_parameters()
    validation = (tmp_path / "out" / "eval.txt").read_text(encoding="utf-8").splitlines()
    assert 1 < len(validation) <= 60
    assert validation == [f"{document}<|endoftext|>" for document in texts.valid[: len(validation)]]


def test_the_loss_of_the_checkpoint_is_that_of_the_evaluation(
    documents: list[str], write: Write, tmp_path: Path, tiny: TrainingConfig
) -> None:
    """The oracle is the attention and loss of transformers."""
    corpus = write("corpus.txt", "\n".join(d for d in documents[:120] if len(d.encode()) < 500))
    config = tiny.changed(packed_share=0.0, context_length=512, batch_tokens=2048)
    facts = train([corpus], tmp_path / "out", config, valid=[corpus])
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    encoded = encode(read_texts([corpus], [corpus], 0.1, 1).train, tokenizer.backend_tokenizer)
    loss, count = 0.0, 0
    for a, b in zip(encoded.starts, encoded.starts[1:], strict=False):
        labels = np.where(encoded.target_mask[a:b], encoded.ids[a:b], -100)[None]
        ids = model.dummy_inputs["input_ids"].new_tensor(encoded.ids[a:b][None])
        tokens = int((labels[:, 1:] >= 0).sum())
        loss += float(model(ids, labels=ids.new_tensor(labels)).loss.detach()) * tokens
        count += tokens
    assert facts["evaluations"][-1]["loss"] == pytest.approx(loss / count, rel=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 4},
        # The warm-up ends in divergence: the best weights are those before the kill.
        {
            "epochs": 40,
            "accumulate_steps": 3,
            "save_every": 10,
            "patience": 3,
            "learning_rate": 60.0,
            "warmup_share": 0.5,
        },
    ],
    ids=["plain", "accumulated and stopped early"],
)
def test_a_killed_run_resumes_to_the_same_weights(
    corpus: Path, tmp_path: Path, tiny: TrainingConfig, changes: dict[str, float]
) -> None:
    config = tiny.changed(dropout=0.1, **changes)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    expected = train([corpus], whole, config)
    assert expected["kept_step"] == changes.get("save_every", expected["steps"])

    command = [sys.executable, "-c", _RUN, str(corpus), str(killed), config.model_dump_json()]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGKILL)
    assert list(killed.glob("checkpoints/step-*"))
    assert not (killed / "config.json").exists()
    # A kill can also hit while a checkpoint is written.
    (killed / "checkpoints" / ".step-9999999.abcd1234.partial").mkdir()

    facts = train([corpus], killed, config, resume=True)
    assert facts["evaluations"] == expected["evaluations"]
    assert facts["kept_step"] == expected["kept_step"]
    weights, again = (load_file(path / "model.safetensors") for path in (whole, killed))
    assert weights.keys() == again.keys()
    assert all(np.array_equal(weights[name], again[name]) for name in weights)
    assert {path.name for path in killed.iterdir()} == _FILES


def test_intermediate_checkpoints_are_complete_models(
    corpus: Path, tmp_path: Path, tiny: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpt2flow.training.pipeline.save_model", _fail)
    with pytest.raises(OutputError, match="No space left"):
        train([corpus], tmp_path / "out", tiny)
    (step,) = (tmp_path / "out" / "checkpoints").glob("step-*")
    assert AutoModelForCausalLM.from_pretrained(step).num_parameters() > 0
    assert (step / "tokenizer.json").exists()
    monkeypatch.undo()
    facts = train([corpus], tmp_path / "out", tiny, resume=True)
    assert facts["steps"] == int(step.name.removeprefix("step-"))


def _fail(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_finished_run_is_not_run_again(
    corpus: Path, tmp_path: Path, tiny: TrainingConfig
) -> None:
    facts = train([corpus], tmp_path / "out", tiny)
    before = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns
    assert train([corpus], tmp_path / "out", tiny, resume=True) == facts
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == before


def test_without_a_corpus_the_flows_are_the_corpus(tmp_path: Path, tiny: TrainingConfig) -> None:
    config = tiny.changed(
        flow_documents=300, vocabulary_size=600, context_length=128, batch_tokens=2048
    )
    facts = train(None, tmp_path / "out", config)
    assert facts["documents"] == 300
    assert facts["data_sets"] == {}
    assert "banking77" in facts["missing_data_sets"]
    assert facts["evaluations"][-1]["turns"] is not None
    assert (tmp_path / "out" / "eval.txt").read_text(encoding="utf-8").startswith("<|state|>")
    assert {path.name for path in (tmp_path / "out").iterdir()} == _FILES


def test_ordinary_text_is_learned(write: Write, tmp_path: Path, tiny: TrainingConfig) -> None:
    rhyme = "one two three four five once I caught a fish alive\n"
    corpus = write("rhyme.txt", "".join(f"{i} {rhyme}" for i in range(400)))
    config = tiny.changed(vocabulary_size=280, epochs=3, learning_rate=1e-2)
    facts = train([corpus], tmp_path / "out", config)
    assert facts["evaluations"][-1]["perplexity"] < 3
    assert facts["evaluations"][-1]["turns"] is None


def test_a_missing_file_is_named(tmp_path: Path, tiny: TrainingConfig) -> None:
    with pytest.raises(CorpusError, match=r"nowhere\.txt: No such file"):
        train([tmp_path / "nowhere.txt"], tmp_path / "out", tiny)


def test_a_file_that_is_not_text_is_named(tmp_path: Path, tiny: TrainingConfig) -> None:
    (tmp_path / "image.txt").write_bytes(b"ab\xff\xfe")
    with pytest.raises(CorpusError, match=r"image\.txt: not UTF-8 text, at byte 2"):
        train([tmp_path / "image.txt"], tmp_path / "out", tiny)


@pytest.mark.parametrize(
    "text, problem",
    [
        ("", "no text is left after cleaning"),
        ("\x00\n \u200b<|endoftext|>\n", "no text is left after cleaning"),
        ("a", "its only document cannot be cut into training and validation set"),
        ("abc " * 20, "too small for vocabulary_size 300"),
    ],
)
def test_too_little_text_is_rejected(
    write: Write, tmp_path: Path, tiny: TrainingConfig, text: str, problem: str
) -> None:
    with pytest.raises(CorpusError, match=problem):
        train([write("small.txt", text)], tmp_path / "out", tiny)


def test_less_text_than_one_context_is_rejected(
    corpus: Path, tmp_path: Path, tiny: TrainingConfig
) -> None:
    config = tiny.changed(context_length=10**6, batch_tokens=10**6)
    with pytest.raises(CorpusError, match=r"less than one context \(context_length 1000000\)"):
        train([corpus], tmp_path / "out", config)


def test_an_unusable_output_directory_is_rejected(
    corpus: Path, tmp_path: Path, tiny: TrainingConfig
) -> None:
    with pytest.raises(OutputError, match=r"corpus\.txt is not a directory"):
        train([corpus], corpus, tiny)
    with pytest.raises(OutputError, match=r"corpus\.txt"):
        train([corpus], corpus / "out", tiny)
    with pytest.raises(OutputError, match="is not empty; choose another directory, or resume"):
        train([corpus], tmp_path, tiny)
    with pytest.raises(OutputError, match=r"is not empty; choose another directory$"):
        train([corpus], tmp_path, tiny, resume=True)


def test_a_run_is_resumed_with_its_own_settings_and_corpus_alone(
    corpus: Path,
    write: Write,
    tmp_path: Path,
    tiny: TrainingConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gpt2flow.training.pipeline.save_model", _fail)
    with pytest.raises(OutputError):
        train([corpus], tmp_path / "out", tiny)
    with pytest.raises(ConfigError, match=r"learning_rate 0\.5: the run to resume .* has 0\.001"):
        train([corpus], tmp_path / "out", tiny.changed(learning_rate=0.5), resume=True)
    other = write("other.txt", corpus.read_text(encoding="utf-8")[:-1000])
    with pytest.raises(CorpusError, match="the corpus differs from that of the run to resume"):
        train([other], tmp_path / "out", tiny, resume=True)


def test_a_loss_that_is_not_finite_ends_the_run(
    corpus: Path, tmp_path: Path, tiny: TrainingConfig
) -> None:
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf); try a learning_rate below"):
        train([corpus], tmp_path / "out", tiny.changed(learning_rate=1e18, epochs=5))


def test_a_run_starts_from_a_checkpoint_with_its_vocabulary_and_sizes(
    corpus: Path, write: Write, documents: list[str], tmp_path: Path, tiny: TrainingConfig
) -> None:
    first, more = tmp_path / "first", write("more.txt", "\n".join(documents[150:300]))
    train([corpus], first, tiny.changed(layers=2, epochs=3, learning_rate=0.01))
    config = tiny.changed(vocabulary_size=500, layers=1, width=64, save_every=1, seed=5)
    started = train([more], tmp_path / "second", config, start=first)
    fresh = train([more], tmp_path / "third", config.changed(layers=2, width=32))
    assert started["config"]["layers"] == 2
    assert started["config"]["width"] == 32
    assert (tmp_path / "second" / "tokenizer.json").read_bytes() == (
        first / "tokenizer.json"
    ).read_bytes()
    assert started["evaluations"][0]["loss"] < fresh["evaluations"][0]["loss"] - 1


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json"])
def test_a_start_that_is_no_checkpoint_is_named(
    corpus: Path, tmp_path: Path, tiny: TrainingConfig, missing: str
) -> None:
    first = tmp_path / "first"
    train([corpus], first, tiny)
    (first / missing).unlink()
    with pytest.raises(ConfigError, match=f"{missing} is missing"):
        train([corpus], tmp_path / "second", tiny, start=first)
    assert not (tmp_path / "second").exists()
