"""Synthetic corpus: loading of its sources and writing of its files."""

import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import gpt2flow.agent.flows
from gpt2flow.agent.flows import load_flows
from gpt2flow.training.corpus.lexicon import LEXICONS, load_lexicon
from gpt2flow.training.corpus.mentions import MentionGenerator
from gpt2flow.training.corpus.messages import MessageGenerator
from gpt2flow.training.corpus.turns import TurnGenerator
from gpt2flow.training.corpus.utterances import LANGUAGES, Language, load_utterances
from gpt2flow.training.errors import OutputError

FLOWS = Path(gpt2flow.agent.flows.__file__).parent


def load_turn_generator(flows: Path = FLOWS, lexicons: Path = LEXICONS) -> TurnGenerator:
    """Load flows, utterances and lexicons.

    Args:
        flows: Directory of flows with their utterance files.
        lexicons: Directory with one lexicon per language.

    Raises:
        FlowError: A flow is invalid.
        CorpusError: An utterance file or lexicon is invalid.
    """
    book = load_flows(flows)

    def message_generator(language: Language) -> MessageGenerator:
        utterances = load_utterances(flows, book, language)
        lexicon = load_lexicon(language, lexicons)
        mentions = MentionGenerator(language, lexicon, utterances.spans, utterances.values)
        return MessageGenerator(book, language, utterances, mentions)

    return TurnGenerator(book, {language: message_generator(language) for language in LANGUAGES})


def make_flow_corpus(
    out: Path, documents: int, seed: int, *, valid_documents: int = 2000, flows: Path = FLOWS
) -> None:
    """Write `train.txt` and `valid.txt`, one document per line.

    The same arguments give the same bytes.

    Args:
        out: Directory to write to, made if missing.
        documents: Number of documents in `train.txt`.
        seed: Seed of the generator.
        valid_documents: Number of documents in `valid.txt`.
        flows: Directory of flows with their utterance files.

    Raises:
        FlowError: A flow is invalid.
        CorpusError: An utterance file or lexicon is invalid.
        OutputError: `out` cannot be written.
    """
    turns = load_turn_generator(flows)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, count in (("train", documents), ("valid", valid_documents)):
            lines = islice(turns.documents(random.Random(f"{seed} {name}")), count)
            _write_lines(out / f"{name}.txt", lines)
    except OSError as error:
        raise OutputError(f"{out}: {error.strerror}") from error


def _write_lines(path: Path, lines: Iterator[str]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)
