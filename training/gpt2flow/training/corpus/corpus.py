"""The corpus of the agent's flows: turns, made up from a seed."""

import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import gpt2flow.agent.flows
from gpt2flow.agent.flows import load_flows
from gpt2flow.training.corpus.lexicon import FOLDER as LEXICON
from gpt2flow.training.corpus.lexicon import load_lexicon
from gpt2flow.training.corpus.mentions import MentionMaker
from gpt2flow.training.corpus.messages import MessageMaker
from gpt2flow.training.corpus.turns import TurnMaker
from gpt2flow.training.corpus.utterances import LANGUAGES, Language, load_utterances
from gpt2flow.training.errors import OutputError

FLOWS = Path(gpt2flow.agent.flows.__file__).parent


def load_turn_maker(flows: Path = FLOWS, lexicon: Path = LEXICON) -> TurnMaker:
    """Load flows, utterances and words.

    Args:
        flows: a folder of flows with their utterance files.
        lexicon: a folder with a lexicon per language.

    Raises:
        FlowError: a flow is not valid.
        CorpusError: an utterance file or lexicon is not valid.
    """
    book = load_flows(flows)

    def maker(language: Language) -> MessageMaker:
        said = load_utterances(flows, book, language)
        words = load_lexicon(language, lexicon)
        mentions = MentionMaker(language, words, said.spans, said.values)
        return MessageMaker(book, language, said, mentions)

    return TurnMaker(book, {language: maker(language) for language in LANGUAGES})


def make_flow_corpus(
    out: Path, documents: int, seed: int, *, valid_documents: int = 2000, flows: Path = FLOWS
) -> None:
    """Write `train.txt` and `valid.txt`, one document a line.

    The same arguments give the same bytes.

    Args:
        out: the directory, made if it is missing.
        documents: how many go into `train.txt`.
        seed: of all that is random.
        valid_documents: how many go into `valid.txt`.
        flows: the folder of flows.

    Raises:
        FlowError, CorpusError: as `load_turn_maker`.
        OutputError: `out` cannot be written.
    """
    turns = load_turn_maker(flows)
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
