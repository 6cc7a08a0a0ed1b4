"""Lexicons: the vocabulary of slot values, per language."""

from pathlib import Path

from pydantic import Field

from gpt2flow.files.documents import StrictModel, read_yaml
from gpt2flow.training.corpus.sources.utterances import Language
from gpt2flow.training.errors import CorpusError

LEXICONS = Path(__file__).parent / "lexicon"


class Lexicon(StrictModel):
    """Words of one language from which slot values are generated.

    The entries of `times`, `last_order`, `order_mentions` and `address_patterns` are templates.
    `address_patterns` have placeholders for number, street, city, postcode and unit;
    `order_mentions` have one for number.
    """

    products: list[str] = Field(min_length=1)
    adjectives: list[str] = Field(min_length=1)
    given_names: list[str] = Field(min_length=1)
    surnames: list[str] = Field(min_length=1)
    streets: list[str] = Field(min_length=1)
    cities: list[str] = Field(min_length=1)
    address_patterns: list[str] = Field(min_length=1)
    times: list[str] = Field(min_length=1)
    last_order: list[str] = Field(min_length=1)
    order_mentions: list[str] = Field(min_length=1)
    email_domains: list[str] = Field(min_length=1)
    number_words: dict[str, int] = Field(min_length=1)


def load_lexicon(language: Language, directory: Path = LEXICONS) -> Lexicon:
    """Load the lexicon of one language.

    Args:
        language: Language of the words.
        directory: Directory of the lexicons, one `<language>.yaml` each.

    Raises:
        CorpusError: The file is missing or invalid.
    """
    return read_yaml(directory / f"{language}.yaml", Lexicon, CorpusError)
