"""The words that slot values are made of."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from gpt2flow.files.documents import read_yaml
from gpt2flow.training.corpus.utterances import Language
from gpt2flow.training.errors import CorpusError

FOLDER = Path(__file__).parent / "lexicon"


class Lexicon(BaseModel):
    """The words of one language. Lists are templates where they have brackets.

    `address_patterns` have blanks for number, street, city, postcode and unit;
    `order_mentions` one for number.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

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


def load_lexicon(language: Language, folder: Path = FOLDER) -> Lexicon:
    """Load the words of one language.

    Raises:
        CorpusError: the file is missing or says something invalid.
    """
    return read_yaml(folder / f"{language}.yaml", Lexicon, CorpusError)
