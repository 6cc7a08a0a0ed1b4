"""Tokenizers with more tokens than their model."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tests.support.vocabularies import KINDS, SENTENCES, UNKNOWN
from tokenizers import AddedToken, Tokenizer

from gpt2flow.export.checkpoint.checkpoint import read_checkpoint
from gpt2flow.export.checkpoint.pruning import leave_out_tokens
from gpt2flow.export.errors import CheckpointError

PATH = Path("tokenizer.json")
ADDED = ("[MORE]", "parcel arrived")
TEXTS = (*SENTENCES, UNKNOWN, "", "a [MORE] b", "The parcel arrived.[MORE]")


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may change."""
    return Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))


def extended(tokenizer: Tokenizer) -> Tokenizer:
    """Return a tokenizer with a special and an ordinary token more."""
    longer = Tokenizer.from_str(tokenizer.to_str())
    longer.add_special_tokens([AddedToken(ADDED[0], special=True)])
    longer.add_tokens([ADDED[1]])
    return longer


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_is_encoded_as_before_the_tokens_were_added(kind: str) -> None:
    before = KINDS[kind].make()
    size = before.get_vocab_size()
    longer = extended(before)
    assert max(max(longer.encode(text).ids, default=0) for text in TEXTS) >= size
    content, left_out = leave_out_tokens(longer, PATH, size)
    assert left_out == list(ADDED)
    pruned = Tokenizer.from_buffer(content)
    assert pruned.get_vocab() == before.get_vocab()
    for text in TEXTS:
        assert pruned.encode(text).ids == before.encode(text).ids


def test_a_tokenizer_that_fits_is_left_alone(tokenizer: Tokenizer) -> None:
    assert leave_out_tokens(tokenizer, PATH, 113) == (b"", [])
    assert leave_out_tokens(tokenizer, PATH, 120) == (b"", [])


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_whose_own_tokens_the_model_lacks_is_refused(kind: str) -> None:
    tokenizer = KINDS[kind].make()
    size = tokenizer.get_vocab_size()
    with pytest.raises(CheckpointError, match=rf"of id {size - 1}; the model has {size - 1} entr"):
        leave_out_tokens(tokenizer, PATH, size - 1)


def test_a_token_around_every_text_is_needed() -> None:
    tokenizer = KINDS["byte-level BPE"].make()
    tokenizer.add_special_tokens(["<s>"])
    fields = json.loads(tokenizer.to_str())
    token = {"id": "<s>", "ids": [tokenizer.token_to_id("<s>")], "tokens": ["<s>"]}
    parts = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    fields["post_processor"] = {
        "type": "TemplateProcessing",
        "single": parts,
        "pair": parts,
        "special_tokens": {"<s>": token},
    }
    with pytest.raises(CheckpointError, match=r"has a token '<s>' of id 400; the model has 400 "):
        leave_out_tokens(Tokenizer.from_str(json.dumps(fields)), PATH, 400)


def test_a_checkpoint_is_read_without_the_tokens_and_with_a_warning(
    copy: Path, tokenizer: Tokenizer
) -> None:
    longer = extended(tokenizer)
    longer.enable_padding(pad_id=113, pad_token=ADDED[0])
    longer.save(str(copy / "tokenizer.json"))
    source = read_checkpoint(copy)
    assert source.warnings == (
        (
            "tokenizer.json: tokens that the model of 113 entries lacks are left out: "
            "'[MORE]', 'parcel arrived'"
        ),
    )
    written = Tokenizer.from_buffer(source.tokenizer_json)
    assert written.get_vocab() == tokenizer.get_vocab()
    assert torch.tensor(written.encode("a [MORE] b").ids).max() < 113
