"""GPT-2 model: device, construction, attention and forward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_utils import AttentionInterface
from transformers.utils import logging

from gpt2flow.training.config import TrainingConfig
from gpt2flow.training.errors import ConfigError
from gpt2flow.training.model.batches import Batch

_ATTENTION = "gpt2flow_matmul"
_HEAD_ROWS = 256


def find_device(name: str = "auto") -> torch.device:
    """Return the device of a name.

    Args:
        name: `cpu`, `cuda`, `cuda:1` and so on; `auto` is the first CUDA device, or else the CPU.

    Raises:
        ConfigError: This machine has no such device.
    """
    cuda = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if cuda else "cpu")
    known = ["cpu", *(["cuda"] if cuda else []), *(f"cuda:{index}" for index in range(cuda))]
    if name not in known:
        raise ConfigError(f"device {name}: this machine has {', '.join(known)}")
    return torch.device(name)


def new_model(config: TrainingConfig, end_id: int) -> GPT2LMHeadModel:
    """Return a model with random weights from torch's global generator."""
    register_attention()
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocabulary_size,
            n_positions=config.context_length,
            n_layer=config.layers,
            n_embd=config.width,
            n_head=config.heads,
            resid_pdrop=config.dropout,
            embd_pdrop=config.dropout,
            attn_pdrop=config.dropout,
            bos_token_id=end_id,
            eos_token_id=end_id,
            attn_implementation=_ATTENTION,
        )
    )


def load_model(checkpoint: Path, config: TrainingConfig) -> GPT2LMHeadModel:
    """Return a checkpoint's model in float32, with the dropout of `config`."""
    register_attention()
    with no_progress_bars():
        return GPT2LMHeadModel.from_pretrained(
            checkpoint,
            dtype=torch.float32,
            attn_implementation=_ATTENTION,
            resid_pdrop=config.dropout,
            embd_pdrop=config.dropout,
            attn_pdrop=config.dropout,
        )


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Silence the progress bars of transformers within a `with` block."""
    shown = logging.is_progress_bar_enabled()
    if shown:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def sizes_of(checkpoint: Path) -> dict[str, int]:
    """Return the settings that a checkpoint decides, by name.

    Raises:
        ConfigError: The directory has no GPT-2 checkpoint with a `tokenizer.json`.
    """
    for name in ("config.json", "tokenizer.json"):
        if not (checkpoint / name).is_file():
            raise ConfigError(f"{checkpoint}: no checkpoint to start from, {name} is missing")
    try:
        found = GPT2Config.from_pretrained(checkpoint)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{checkpoint}: {' '.join(str(error).split())}") from error
    if found.model_type != "gpt2":
        raise ConfigError(f"{checkpoint}: a {found.model_type} checkpoint, expected gpt2")
    return {
        "vocabulary_size": found.vocab_size,
        "context_length": found.n_positions,
        "layers": found.n_layer,
        "width": found.n_embd,
        "heads": found.n_head,
    }


def register_attention() -> None:
    """Register an attention of plain matrix products with transformers.

    Rows are short and causal, and padding at their ends needs no mask. For such rows torch's fused
    attention is slower on a CPU: in bf16 at 128 tokens, its backward pass took four times as long.
    """
    AttentionInterface.register(_ATTENTION, _causal_attention)
    AttentionMaskInterface.register(_ATTENTION, lambda *_, **__: None)


def _causal_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: torch.Tensor | None,
    dropout: float = 0.0,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Return causal attention; `query`, `key`, `value` are [rows, heads, tokens, head_size].

    The output is [rows, tokens, heads, head_size]; no attention weights are returned.
    """
    rows, heads, tokens, size = query.shape
    flat = (rows * heads, tokens, size)
    causal_mask = query.new_full((tokens, tokens), float("-inf")).triu_(1)
    scores = torch.baddbmm(
        causal_mask, query.reshape(flat), key.reshape(flat).transpose(1, 2), alpha=size**-0.5
    )
    weights = functional.dropout(scores.softmax(-1), dropout, module.training)
    mixed = torch.bmm(weights, value.reshape(flat)).view(rows, heads, tokens, size)
    return mixed.transpose(1, 2), None


def predict(
    model: GPT2LMHeadModel, batch: Batch, *, bf16: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the forward pass of a batch.

    Args:
        model: Model of `new_model`, on the device to compute on.
        batch: Rows of tokens with their loss mask.
        bf16: Compute matrix products in bfloat16.

    Returns:
        Logits, float32 [targets, vocabulary], and target ids, int64 [targets], of the tokens in
        the loss mask in row order.
    """
    device = model.device
    ids = torch.from_numpy(batch.ids).to(device)
    loss_mask = torch.from_numpy(batch.loss_mask).to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        hidden = model.transformer(ids[:, :-1], use_cache=False).last_hidden_state
        # The head costs a third of a step, so it runs on the tokens in the loss mask alone. They
        # are padded to one of few shapes, since each new shape is compiled.
        inputs = hidden[loss_mask[:, 1:]]
        padding = -len(inputs) % _HEAD_ROWS
        logits = model.lm_head(functional.pad(inputs, (0, 0, 0, padding)))[: len(inputs)]
    return logits.float(), ids[loss_mask]


def use_bf16(config: TrainingConfig, device: torch.device) -> bool:
    """Return whether to compute matrix products in bfloat16 on a device."""
    if config.precision == "auto":
        if device.type == "cuda":
            return bool(torch.cuda.is_bf16_supported())
        features = torch.cpu.get_capabilities()
        return bool(features.get("amx_bf16") or features.get("avx512_bf16"))
    return config.precision == "bf16"
