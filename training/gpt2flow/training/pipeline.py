"""Training pipeline: clean, vocabulary, tune, train."""

import json
import platform
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel

from gpt2flow.agent.flows.prompt import END
from gpt2flow.files.atomic import write_atomically
from gpt2flow.training.config import TrainingConfig
from gpt2flow.training.corpus.corpus import make_flow_corpus
from gpt2flow.training.errors import ConfigError, CorpusError, OutputError
from gpt2flow.training.model.checkpoints import TrainerState, save_model
from gpt2flow.training.model.loop import fit
from gpt2flow.training.model.model import find_device
from gpt2flow.training.model.tune import tune
from gpt2flow.training.progress import show_progress
from gpt2flow.training.text.documents import Texts, read_texts
from gpt2flow.training.text.encoding import EncodedCorpus, encode
from gpt2flow.training.text.vocabulary import train_vocabulary

FACTS = "training.json"
_WORK = "checkpoints"
_PLAN = "plan.json"
_TUNED = "tune.json"
# Enough for an exporter to measure a perplexity difference of a tenth of a percent.
_EVAL_TOKENS = 6000
# Enough for an exporter to calibrate quantization.
_CALIBRATION_TOKENS = 12_000


def train(
    corpus: Sequence[Path] | None,
    out: Path,
    config: TrainingConfig,
    *,
    valid: Sequence[Path] = (),
    tune_trials: int = 0,
    resume: bool = False,
    device: str = "auto",
    console: Console | None = None,
) -> dict[str, Any]:
    """Train a GPT-2 on text and write its checkpoint.

    Args:
        corpus: UTF-8 text files; `<|endoftext|>` ends a document, and so does the end of a
            file. None generates turns of the agent's flows.
        out: Directory of the checkpoint, new or empty. It receives the Hugging Face files,
            `training.json`, `eval.txt` with validation documents and `calibration.txt` with
            training documents. During training, its subdirectory `checkpoints` holds the files
            to resume from.
        config: Settings of the run.
        valid: Text files of the validation set. If empty, a share of the corpus is split off.
        tune_trials: Number of short runs that search for better settings first; their results
            are kept in `tune.json`. 0 skips the search.
        resume: Continue a killed run from its last checkpoint, with the same result as an
            uninterrupted run. A finished run is left unchanged.
        device: Name of the device to train on; see `find_device`.
        console: Console for progress. None shows nothing.

    Returns:
        The facts in `training.json`.

    Raises:
        CorpusError: A file is missing or not text, the corpus is too small, or it differs from
            that of the run to resume.
        ConfigError: A setting is invalid, or differs from that of the run to resume, or this
            machine has no such device.
        OutputError: `out` holds other files, or cannot be written.
        TrainingError: The loss is no longer finite.
    """
    console = console or Console(quiet=True)
    chosen = find_device(device)
    try:
        if resume and (out / FACTS).exists():
            return _read_facts(out)
        work = _prepare_output(out, resume=resume)
        if corpus is None:
            console.print(f"Generating {config.flow_documents} turns from the flows")
            corpus, valid = _generate_flow_corpus(work, config)
        texts = read_texts(corpus, valid, config.valid_share, config.seed)
        _check_plan(work, {"config": config.model_dump(), "corpus": texts.sha256})
        return _train(
            texts,
            (out, work),
            config,
            tune_trials=tune_trials,
            device=chosen,
            console=console,
        )
    except OSError as error:
        raise OutputError(f"{error.filename or out}: {error.strerror}") from error


def _train(
    texts: Texts,
    directories: tuple[Path, Path],
    config: TrainingConfig,
    *,
    tune_trials: int,
    device: torch.device,
    console: Console,
) -> dict[str, Any]:
    out, work = directories
    console.print(
        f"Learning a vocabulary of {config.vocabulary_size} from {len(texts.train)} documents"
    )
    tokenizer = _load_or_train_tokenizer(texts, work, config)
    encoded, validation = encode(texts.train, tokenizer), encode(texts.valid, tokenizer)
    if len(encoded.ids) < config.context_length:
        raise CorpusError(
            f"the corpus is too small: {len(encoded.ids)} tokens are less than one context "
            f"(context_length {config.context_length})"
        )
    if tune_trials:
        with show_progress(console, f"Tuning, {tune_trials} trials") as on_progress:
            config = tune(
                encoded,
                validation,
                config,
                tune_trials,
                results=out / _TUNED,
                device=device,
                on_progress=on_progress,
            )
    with show_progress(console, "Training") as on_progress:
        model, state = fit(
            encoded,
            validation,
            config,
            save_to=(work, tokenizer),
            device=device,
            on_progress=on_progress,
        )
    facts = _collect_facts(model, state, config, texts, encoded)
    staging = work / "final"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    save_model(staging, model, tokenizer)
    for name, documents, corpus, tokens in (
        ("eval.txt", texts.valid, validation, _EVAL_TOKENS),
        ("calibration.txt", texts.train, encoded, _CALIBRATION_TOKENS),
    ):
        text = _leading_documents(documents, corpus, tokens)
        (staging / name).write_text(text, encoding="utf-8")
    _publish(out, work, staging, facts)
    return facts


def _load_or_train_tokenizer(texts: Texts, work: Path, config: TrainingConfig) -> Tokenizer:
    """Return the tokenizer of the run to resume, or train one."""
    path = work / "tokenizer.json"
    if not path.exists():
        write_atomically(path, train_vocabulary(texts.train, config.vocabulary_size).to_str())
    return Tokenizer.from_file(str(path))


def _prepare_output(out: Path, *, resume: bool) -> Path:
    """Make the working directory inside `out` and return it."""
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is not a directory")
    work = out / _WORK
    if out.exists() and any(out.iterdir()) and not (resume and work.exists()):
        hint = "" if resume else ", or resume the run that made it"
        raise OutputError(f"{out} is not empty; choose another directory{hint}")
    work.mkdir(parents=True, exist_ok=True)
    return work


def _generate_flow_corpus(work: Path, config: TrainingConfig) -> tuple[list[Path], list[Path]]:
    directory = work / "corpus"
    make_flow_corpus(directory, config.flow_documents, config.seed)
    return [directory / "train.txt"], [directory / "valid.txt"]


def _check_plan(work: Path, plan: dict[str, Any]) -> None:
    """Record a new run's plan, or compare it with the recorded plan.

    A plan is the settings and the hash of the corpus.
    """
    path = work / _PLAN
    if not path.exists():
        write_atomically(path, json.dumps(plan, indent=2) + "\n")
        return
    recorded = json.loads(path.read_text(encoding="utf-8"))
    for name, value in plan["config"].items():
        if recorded["config"].get(name) != value:
            raise ConfigError(
                f"{name} {value}: the run to resume in {work} has {recorded['config'].get(name)}"
            )
    if recorded["corpus"] != plan["corpus"]:
        raise CorpusError(
            f"the corpus differs from that of the run to resume in {work}; pass the same files"
        )


def _collect_facts(
    model: GPT2LMHeadModel,
    state: TrainerState,
    config: TrainingConfig,
    texts: Texts,
    encoded: EncodedCorpus,
) -> dict[str, Any]:
    return {
        "documents": len(texts.train),
        "held_back_documents": len(texts.valid),
        "corpus_sha256": texts.sha256,
        "corpus_tokens": len(encoded.ids),
        "steps": state.step,
        "trained_tokens": state.tokens,
        "seconds": round(state.seconds, 1),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "config": config.model_dump(),
        "evaluations": state.history,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("gpt2flow", "tokenizers", "torch", "transformers")},
        },
    }


def _leading_documents(documents: Sequence[str], encoded: EncodedCorpus, tokens: int) -> str:
    """Return the shortest prefix of whole documents with at least `tokens` tokens."""
    count = 1
    while count < len(documents) and encoded.starts[count] < tokens:
        count += 1
    return "".join(f"{document}{END}\n" for document in documents[:count])


def _publish(out: Path, work: Path, staging: Path, facts: dict[str, Any]) -> None:
    """Move the checkpoint to `out`, write its facts and delete `work`.

    The facts are written after all other files, since `training.json` marks a finished run.
    """
    for path in sorted(staging.iterdir()):
        path.replace(out / path.name)
    write_atomically(out / FACTS, json.dumps(facts, indent=2) + "\n")
    shutil.rmtree(work)


def _read_facts(out: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((out / FACTS).read_text(encoding="utf-8"))
    return facts
