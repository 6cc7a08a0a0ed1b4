"""From a corpus to a checkpoint: clean, vocabulary, tune, train."""

import json
import platform
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel

from gpt2flow.agent.flows.prompt import END
from gpt2flow.training.config import TrainingConfig
from gpt2flow.training.corpus.corpus import make_flow_corpus
from gpt2flow.training.errors import ConfigError, CorpusError, OutputError
from gpt2flow.training.model.checkpoints import TrainerState, save_model, write_atomically
from gpt2flow.training.model.loop import fit
from gpt2flow.training.model.tune import tune
from gpt2flow.training.progress import training_bar
from gpt2flow.training.text.documents import Texts, read_texts
from gpt2flow.training.text.encoding import EncodedCorpus, encode
from gpt2flow.training.text.vocabulary import train_vocabulary

FACTS = "training.json"
_WORK = "checkpoints"
_PLAN = "plan.json"
_TUNED = "tune.json"
# About what an exporter needs to tell a tenth of a percent of perplexity.
_EVAL_TOKENS = 6000
# About what it needs to calibrate with.
_CALIBRATION_TOKENS = 12_000


def train(
    corpus: Sequence[Path] | None,
    out: Path,
    config: TrainingConfig,
    *,
    valid: Sequence[Path] = (),
    tune_trials: int = 0,
    resume: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Make a checkpoint from text.

    Args:
        corpus: text files; `<|endoftext|>` ends a document, a file's end too.
            None makes up turns of the agent's flows.
        out: the directory of the checkpoint: Hugging Face files, `training.json`,
            `eval.txt` of held-back documents and `calibration.txt` of others. While
            training, its `checkpoints` holds what is needed to resume.
        config: all settings.
        valid: text files to hold back; none: documents of the corpus are.
        tune_trials: search for better settings first, in so many short runs; the
            results stay in `tune.json`.
        resume: go on where a killed run stood; the result is the same. Does
            nothing where the run was finished.
        console: shows progress; None shows nothing.

    Returns:
        The facts in `training.json`.

    Raises:
        CorpusError: a file is missing or no text, or there is too little text.
        ConfigError: a setting does not fit, or `resume` finds another one.
        OutputError: `out` holds something else, or cannot be written.
    """
    console = console or Console(quiet=True)
    try:
        if resume and (out / FACTS).exists():
            return _read_facts(out)
        work = _open_output(out, resume=resume)
        if corpus is None:
            console.print(f"Making up {config.flow_documents} turns of the flows")
            corpus, valid = _flow_corpus(work, config)
        texts = read_texts(corpus, valid, config.valid_share, config.seed)
        _hold_plan(work, {"config": config.model_dump(), "corpus": texts.sha256})
        return _train(texts, (out, work), config, tune_trials, console)
    except OSError as error:
        raise OutputError(f"{error.filename or out}: {error.strerror}") from error


def _train(
    texts: Texts,
    folders: tuple[Path, Path],
    config: TrainingConfig,
    tune_trials: int,
    console: Console,
) -> dict[str, Any]:
    out, work = folders
    console.print(
        f"Learning a vocabulary of {config.vocabulary_size} from {len(texts.train)} documents"
    )
    tokenizer = _vocabulary(texts, work, config)
    encoded, held_back = encode(texts.train, tokenizer), encode(texts.valid, tokenizer)
    if len(encoded.ids) < config.context_length:
        raise CorpusError(
            f"the corpus is too small: {len(encoded.ids)} tokens are less than one context "
            f"(context_length {config.context_length})"
        )
    if tune_trials:
        with training_bar(console, f"Tuning, {tune_trials} trials") as watch:
            config = tune(
                encoded, held_back, config, tune_trials, results=out / _TUNED, watch=watch
            )
    with training_bar(console, "Training") as watch:
        model, state = fit(encoded, held_back, config, saves=(work, tokenizer), watch=watch)
    facts = _facts(model, state, config, texts, encoded)
    draft = work / "final"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    save_model(draft, model, tokenizer)
    for name, documents, corpus, tokens in (
        ("eval.txt", texts.valid, held_back, _EVAL_TOKENS),
        ("calibration.txt", texts.train, encoded, _CALIBRATION_TOKENS),
    ):
        text = _some_documents(documents, corpus, tokens)
        (draft / name).write_text(text, encoding="utf-8")
    _finish(out, work, draft, facts)
    return facts


def _vocabulary(texts: Texts, work: Path, config: TrainingConfig) -> Tokenizer:
    """Learn the vocabulary, or loads that of the run that is resumed."""
    path = work / "tokenizer.json"
    if not path.exists():
        write_atomically(path, train_vocabulary(texts.train, config.vocabulary_size).to_str())
    return Tokenizer.from_file(str(path))


def _open_output(out: Path, *, resume: bool) -> Path:
    """Make the directory for what training leaves on its way."""
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is no directory")
    work = out / _WORK
    if out.exists() and any(out.iterdir()) and not (resume and work.exists()):
        hint = "" if resume else ", or resume the run that made it"
        raise OutputError(f"{out} is not empty; choose another directory{hint}")
    work.mkdir(parents=True, exist_ok=True)
    return work


def _flow_corpus(work: Path, config: TrainingConfig) -> tuple[list[Path], list[Path]]:
    folder = work / "corpus"
    make_flow_corpus(folder, config.flow_documents, config.seed)
    return [folder / "train.txt"], [folder / "valid.txt"]


def _hold_plan(work: Path, plan: dict[str, Any]) -> None:
    """Note what is trained on; a run that is resumed must want the same."""
    path = work / _PLAN
    if not path.exists():
        write_atomically(path, json.dumps(plan, indent=2) + "\n")
        return
    noted = json.loads(path.read_text(encoding="utf-8"))
    for name, value in plan["config"].items():
        if noted["config"].get(name) != value:
            raise ConfigError(
                f"{name} {value}: the run to resume in {work} has {noted['config'].get(name)}"
            )
    if noted["corpus"] != plan["corpus"]:
        raise CorpusError(f"the corpus is not the one of the run to resume in {work}")


def _facts(
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


def _some_documents(documents: Sequence[str], encoded: EncodedCorpus, tokens: int) -> str:
    """Whole documents from the start, of about so many tokens, at least one."""
    count = 1
    while count < len(documents) and encoded.starts[count] < tokens:
        count += 1
    return "".join(f"{document}{END}\n" for document in documents[:count])


def _finish(out: Path, work: Path, draft: Path, facts: dict[str, Any]) -> None:
    """Move the files of the checkpoint to `out`; its facts come last."""
    for path in sorted(draft.iterdir()):
        path.replace(out / path.name)
    write_atomically(out / FACTS, json.dumps(facts, indent=2) + "\n")
    shutil.rmtree(work)


def _read_facts(out: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((out / FACTS).read_text(encoding="utf-8"))
    return facts
