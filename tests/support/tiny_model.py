"""Fixtures of a tiny random GPT-2: its checkpoint and its fp32 bundle."""

from pathlib import Path

import pytest
import torch
from tests.support.engine_bench import CONTEXT, EOS, TEXT
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel

from gpt2flow.export import Profile, export_bundle


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of a random GPT-2 with a byte-level vocabulary."""
    directory = tmp_path_factory.mktemp("checkpoint")
    tokenizer = HfTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>", "<|user|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT * 3, trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    torch.set_num_threads(1)
    torch.manual_seed(7)
    config = GPT2Config(
        vocab_size=tokenizer.get_vocab_size(),
        n_positions=CONTEXT,
        n_embd=32,
        n_layer=2,
        n_head=2,
        initializer_range=0.3,
        bos_token_id=EOS,
        eos_token_id=EOS,
    )
    GPT2LMHeadModel(config).save_pretrained(directory)
    (directory / "eval.txt").write_text("\n".join(TEXT), encoding="utf-8")
    return directory


@pytest.fixture(scope="session")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundle of the checkpoint, exported as fp32."""
    out = tmp_path_factory.mktemp("bundle") / "fp32"
    export_bundle(checkpoint, out, profile=Profile.FP32)
    return out
