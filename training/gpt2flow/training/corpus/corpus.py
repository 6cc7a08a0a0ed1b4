"""Synthetic corpus: loading of its sources and writing of its files."""

import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import gpt2flow.agent.flows
from gpt2flow.agent.flows import load_flows
from gpt2flow.training.corpus.mentions import MentionGenerator
from gpt2flow.training.corpus.messages import DEFAULT_MIX, MessageGenerator, Mix
from gpt2flow.training.corpus.sources.labelled import DATA_SETS, LabelledMessages, load_labelled
from gpt2flow.training.corpus.sources.lexicon import LEXICONS, load_lexicon
from gpt2flow.training.corpus.sources.utterances import LANGUAGES, Language, load_utterances
from gpt2flow.training.corpus.turns import TurnGenerator
from gpt2flow.training.errors import OutputError

FLOWS = Path(gpt2flow.agent.flows.__file__).parent


def load_turn_generator(
    flows: Path = FLOWS,
    lexicons: Path = LEXICONS,
    labelled: LabelledMessages | None = None,
    mix: Mix = DEFAULT_MIX,
) -> TurnGenerator:
    """Load flows, utterances and lexicons.

    Args:
        flows: Directory of flows with their utterance files.
        lexicons: Directory with one lexicon per language.
        labelled: Messages of real customers to mix in; None mixes in none.
        mix: Shares of messages with several wishes.

    Raises:
        FlowError: A flow is invalid.
        CorpusError: An utterance file or lexicon is invalid.
    """
    book = load_flows(flows)

    def message_generator(language: Language) -> MessageGenerator:
        utterances = load_utterances(flows, book, language)
        lexicon = load_lexicon(language, lexicons)
        mentions = MentionGenerator(language, lexicon, utterances.spans, utterances.values)
        share = mix.listed_share
        return MessageGenerator(book, language, utterances, mentions, listed_share=share)

    messages = {language: message_generator(language) for language in LANGUAGES}
    return TurnGenerator(book, messages, labelled, mix)


def make_flow_corpus(
    out: Path,
    documents: int,
    seed: int,
    *,
    valid_documents: int = 2000,
    flows: Path = FLOWS,
    data: Path | None = None,
    mix: Mix = DEFAULT_MIX,
) -> dict[str, Any]:
    """Write `train.txt` and `valid.txt`, one document per line.

    The same arguments give the same bytes.

    Args:
        out: Directory to write to, made if missing.
        documents: Number of documents in `train.txt`.
        seed: Seed of the generator.
        valid_documents: Number of documents in `valid.txt`.
        flows: Directory of flows with their utterance files.
        data: Directory of data sets with labelled messages; None uses none.
        mix: Shares of messages with several wishes.

    Returns:
        `data_sets`, the SHA-256 of each data set that was used, by name, and `missing_data_sets`,
        the names of those that the shipped model has in addition.

    Raises:
        FlowError: A flow is invalid.
        CorpusError: An utterance file, a lexicon or a data set is invalid.
        OutputError: `out` cannot be written.
    """
    labelled = LabelledMessages(missing=list(DATA_SETS))
    if data is not None:
        labelled = load_labelled(data, load_flows(flows))
    turns = load_turn_generator(flows, labelled=labelled, mix=mix)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, count in (("train", documents), ("valid", valid_documents)):
            lines = islice(turns.documents(random.Random(f"{seed} {name}")), count)
            _write_lines(out / f"{name}.txt", lines)
    except OSError as error:
        raise OutputError(f"{out}: {error.strerror}") from error
    return {"data_sets": labelled.sources, "missing_data_sets": labelled.missing}


def _write_lines(path: Path, lines: Iterator[str]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)
