"""Training of a small GPT-2 on WikiText-2, for the quantization benchmark.

    python benchmarks/wikitext_model.py --text DIR --vocabulary DIR --out CHECKPOINT

`--text` holds `train*.txt`, `valid.txt` and `test.txt` of WikiText-2 raw; `--vocabulary` holds
`encoder.json` and `vocab.bpe` of GPT-2, whose vocabulary the model uses. The checkpoint's
`eval.txt` is the test text, its `calibration.txt` the validation text.
"""

import argparse
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel

END_OF_TEXT = "<|endoftext|>"
CONTEXT = 256
BATCH = 8


def load_gpt2_tokenizer(directory: Path) -> Tokenizer:
    """Return GPT-2's tokenizer, built from the two files that OpenAI published."""
    model = models.BPE.from_file(str(directory / "encoder.json"), str(directory / "vocab.bpe"))
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer


def read_tokens(files: list[Path], tokenizer: Tokenizer) -> torch.Tensor:
    """Return the concatenated token ids [tokens] of the files."""
    ids = [tokenizer.encode(file.read_text(encoding="utf-8")).ids for file in files]
    return torch.from_numpy(np.concatenate(ids))


def train(tokens: torch.Tensor, config: GPT2Config, epochs: float) -> GPT2LMHeadModel:
    """Train with AdamW under bfloat16 autocast.

    The learning rate warms up over the first 5 % of the steps, then follows a cosine.
    """
    torch.manual_seed(1)
    model = GPT2LMHeadModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.5e-3, betas=(0.9, 0.95))
    steps = int(epochs * len(tokens) / (BATCH * CONTEXT))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.5e-3, steps, pct_start=0.05)
    started = time.monotonic()
    for step in range(steps):
        starts = torch.randint(len(tokens) - CONTEXT, (BATCH,))
        rows = torch.stack([tokens[start : start + CONTEXT] for start in starts])
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=rows, labels=rows).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 20 == 0:
            print(f"{step}/{steps} loss {loss:.3f} {time.monotonic() - started:.0f} s", flush=True)
    return model.eval()


def main() -> None:
    """Train and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--text", type=Path, required=True, help="Directory of WikiText-2 raw, split into files."
    )
    parser.add_argument(
        "--vocabulary", type=Path, required=True, help="Directory of GPT-2's vocabulary files."
    )
    parser.add_argument("--out", type=Path, required=True, help="Checkpoint directory to write.")
    parser.add_argument("--layers", type=int, default=4, help="Transformer layers.")
    parser.add_argument("--width", type=int, default=256, help="Embedding width, in units of 64.")
    parser.add_argument("--epochs", type=float, default=0.4, help="Passes over the tokens.")
    options = parser.parse_args()
    tokenizer = load_gpt2_tokenizer(options.vocabulary)
    tokens = read_tokens(sorted(options.text.glob("train*.txt")), tokenizer)
    config = GPT2Config(
        vocab_size=tokenizer.get_vocab_size(),
        n_positions=CONTEXT,
        n_embd=options.width,
        n_layer=options.layers,
        n_head=options.width // 64,
        resid_pdrop=0.1,
        embd_pdrop=0.1,
        attn_pdrop=0.0,
        # On a CPU in bfloat16, its backward pass is several times as fast as the other ones'.
        attn_implementation="eager",
    )
    model = train(tokens, config, options.epochs)
    model.save_pretrained(options.out)
    tokenizer.save(str(options.out / "tokenizer.json"))
    shutil.copyfile(options.text / "test.txt", options.out / "eval.txt")
    shutil.copyfile(options.text / "valid.txt", options.out / "calibration.txt")


if __name__ == "__main__":
    main()
