"""Training pipeline: clean, vocabulary, tune, train."""

import hashlib
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
from gpt2flow.training.corpus.corpus import FLOWS, make_flow_corpus
from gpt2flow.training.corpus.messages import Mix
from gpt2flow.training.curve import CURVE, record_curve
from gpt2flow.training.errors import ConfigError, CorpusError, OutputError
from gpt2flow.training.model.checkpoints import TrainerState, save_model
from gpt2flow.training.model.loop import StepReport, fit
from gpt2flow.training.model.model import find_device, sizes_of
from gpt2flow.training.progress import show_progress
from gpt2flow.training.reports.confusion import review_turns
from gpt2flow.training.reports.pages import languages_of, write_card, write_report
from gpt2flow.training.reports.targets import check_targets, open_targets
from gpt2flow.training.text.clean import CLEANING_STEPS
from gpt2flow.training.text.documents import Texts, read_texts
from gpt2flow.training.text.encoding import EncodedCorpus, encode
from gpt2flow.training.text.vocabulary import train_vocabulary

FACTS = "training.json"
_WORK = "checkpoints"
_PLAN = "plan.json"
_TUNED = "tune.db"
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
    data: Path | None = None,
    flows: Path | None = None,
    start: Path | None = None,
    log_to: Sequence[str] = (),
    console: Console | None = None,
) -> dict[str, Any]:
    """Train a GPT-2 on text and write its checkpoint.

    Args:
        corpus: Text, JSON Lines or tables; see `read_documents`. None generates turns of the
            agent's flows.
        out: Directory of the checkpoint, new or empty. It receives the Hugging Face files,
            `training.json`, `curve.csv`, `report.html`, `README.md`, `eval.txt` with validation
            documents and `calibration.txt` with training documents. During training, its
            subdirectory `checkpoints` holds the files to resume from.
        config: Settings of the run.
        valid: Files of the validation set. If empty, a share of the corpus is split off.
        tune_trials: Number of short runs that search for better settings first; their results
            are kept in `tune.db`. 0 skips the search.
        resume: Continue a killed run from its last checkpoint, with the same result as an
            uninterrupted run. A finished run is left unchanged.
        device: Name of the device to train on; see `find_device`.
        data: Directory of data sets whose labelled messages join the turns of the flows.
        flows: Directory of flows with their utterances; None selects those of the shop.
        start: Checkpoint to start from. Its vocabulary and sizes replace those of `config`.
        log_to: Other tools that receive the curve: `tensorboard`, `mlflow`.
        console: Console for progress. None shows nothing.

    Returns:
        The facts in `training.json`.

    Raises:
        CorpusError: A file is missing or not in its format, the corpus is too small, or it
            differs from that of the run to resume.
        ConfigError: A setting is invalid, or differs from that of the run to resume, or this
            machine has no such device or no such tool.
        OutputError: `out` holds other files, or cannot be written.
        TrainingError: The loss is no longer finite.
    """
    console = console or Console(quiet=True)
    chosen = find_device(device)
    check_targets(log_to)
    if start is not None:
        config = config.changed(**sizes_of(start))
    try:
        if resume and (out / FACTS).exists():
            return _read_facts(out)
        work = _prepare_output(out, resume=resume)
        data_facts: dict[str, Any] = {}
        if corpus is None:
            console.print(f"Generating {config.flow_documents} turns from the flows")
            corpus, valid, data_facts = _generate_flow_corpus(work, config, data, flows)
            _print_data_sets(console, data_facts)
        elif data is not None:
            raise ConfigError(f"data {data}: only turns of the flows take data sets")
        elif flows is not None:
            raise ConfigError(f"flows {flows}: turns are generated only without a corpus")
        texts = read_texts(corpus, valid, config.valid_share, config.seed)
        _print_cleaning(console, texts.cleaning)
        plan = {
            "config": config.model_dump(),
            "corpus": texts.sha256,
            "start": _hash_weights(start),
        }
        _check_plan(work, plan)
        return _train(
            texts,
            (out, work),
            config,
            tune_trials=tune_trials,
            device=chosen,
            console=console,
            start=start,
            log_to=log_to,
            more_facts=data_facts | {"start_sha256": plan["start"]},
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
    start: Path | None,
    log_to: Sequence[str],
    more_facts: dict[str, Any],
) -> dict[str, Any]:
    out, work = directories
    if start is None:
        console.print(
            f"Learning a vocabulary of {config.vocabulary_size} from {len(texts.train)} documents"
        )
        tokenizer = _load_or_train_tokenizer(texts, work, config)
    else:
        tokenizer = Tokenizer.from_file(str(start / "tokenizer.json"))
    encoded, validation = encode(texts.train, tokenizer), encode(texts.valid, tokenizer)
    if len(encoded.ids) < config.context_length:
        raise CorpusError(
            f"the corpus is too small: {len(encoded.ids)} tokens are less than one context "
            f"(context_length {config.context_length})"
        )
    if tune_trials:
        # Optuna takes half a second to import.
        from gpt2flow.training.model.tune import tune  # noqa: PLC0415

        with show_progress(console, f"Tuning, {tune_trials} trials") as on_progress:
            config = tune(
                encoded,
                validation,
                config,
                tune_trials,
                storage=out / _TUNED,
                device=device,
                on_progress=on_progress,
            )
    record = record_curve(work / CURVE)
    with (
        show_progress(console, "Training") as show,
        open_targets(log_to, out, work, config) as log,
    ):

        def on_progress(report: StepReport) -> None:
            show(report)
            record(report)
            log(report)

        model, state = fit(
            encoded,
            validation,
            config,
            start=start,
            save_to=(work, tokenizer),
            device=device,
            on_progress=on_progress,
        )
    facts = _collect_facts(model, state, config, texts, encoded) | more_facts
    staging = work / "final"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    save_model(staging, model, tokenizer)
    if (work / CURVE).exists():
        shutil.copyfile(work / CURVE, staging / CURVE)
    for name, documents, corpus, tokens in (
        ("eval.txt", texts.valid, validation, _EVAL_TOKENS),
        ("calibration.txt", texts.train, encoded, _CALIBRATION_TOKENS),
    ):
        text = _leading_documents(documents, corpus, tokens)
        (staging / name).write_text(text, encoding="utf-8")
    write_report(staging, facts, review_turns(model, validation, tokenizer, config))
    write_card(staging, facts)
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


def _generate_flow_corpus(
    work: Path, config: TrainingConfig, data: Path | None, flows: Path | None
) -> tuple[list[Path], list[Path], dict[str, Any]]:
    directory = work / "corpus"
    mix = Mix(config.more_wishes, config.listed_share)
    facts = make_flow_corpus(
        directory, config.flow_documents, config.seed, flows=flows or FLOWS, data=data, mix=mix
    )
    return [directory / "train.txt"], [directory / "valid.txt"], facts


def _print_data_sets(console: Console, facts: dict[str, Any]) -> None:
    """Name the data sets of the corpus, and the missing ones."""
    for name, sha256 in facts["data_sets"].items():
        console.print(f"Data set {name}, SHA-256 {sha256}")
    if missing := facts["missing_data_sets"]:
        console.print(f"Without the data sets {', '.join(missing)}")


def _print_cleaning(console: Console, counts: dict[str, int]) -> None:
    """Print a line for each step of the cleaning that found something."""
    for step, count in counts.items():
        if count:
            console.print(f"  {CLEANING_STEPS[step]:<40}{count:>11,}", highlight=False)


def _hash_weights(checkpoint: Path | None) -> str | None:
    """Return the SHA-256 of a checkpoint's files of weights."""
    if checkpoint is None:
        return None
    digest = hashlib.sha256()
    for path in sorted([*checkpoint.glob("*.safetensors"), *checkpoint.glob("*.bin")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _check_plan(work: Path, plan: dict[str, Any]) -> None:
    """Record a new run's plan, or compare it with the recorded plan.

    A plan is the settings and the hash of the corpus.
    """
    path = work / _PLAN
    if not path.exists():
        write_atomically(path, json.dumps(plan, indent=2) + "\n")
        return
    recorded = json.loads(path.read_text(encoding="utf-8"))
    # Settings that are newer than the run have their defaults.
    settings = TrainingConfig().model_dump() | recorded["config"]
    for name, value in plan["config"].items():
        if settings[name] != value:
            raise ConfigError(f"{name} {value}: the run to resume in {work} has {settings[name]}")
    if recorded.get("start") != plan["start"]:
        raise ConfigError(f"the run to resume in {work} started from another checkpoint")
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
        "cleaning": texts.cleaning,
        "corpus_tokens": len(encoded.ids),
        "languages": languages_of(texts.train),
        "steps": state.step,
        "kept_step": state.best_step if config.patience else state.step,
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
