"""The GPT-2 that is trained, and the loss of a batch."""

import torch
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_utils import AttentionInterface

from gpt2flow.training.config import TrainingConfig
from gpt2flow.training.model.batches import Batch

_ATTENTION = "gpt2flow_matmul"
_HEAD_ROWS = 256


def new_model(config: TrainingConfig, end_id: int) -> GPT2LMHeadModel:
    """Return a model with random weights, drawn from torch's global generator."""
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


def register_attention() -> None:
    """Teach transformers an attention of plain matrix products.

    Rows are short and causal, without a mask for the padding at their ends. For
    these torch's fused attention is slower on a CPU: its backward pass took four
    times as long in bf16 at 128 tokens.
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
    """Attend to what came before; tensors are [rows, heads, tokens, head_size]."""
    rows, heads, tokens, size = query.shape
    flat = (rows * heads, tokens, size)
    ahead = torch.full((tokens, tokens), float("-inf"), dtype=query.dtype).triu_(1)
    scores = torch.baddbmm(
        ahead, query.reshape(flat), key.reshape(flat).transpose(1, 2), alpha=size**-0.5
    )
    weights = functional.dropout(scores.softmax(-1), dropout, module.training)
    mixed = torch.bmm(weights, value.reshape(flat)).view(rows, heads, tokens, size)
    return mixed.transpose(1, 2), None


def predict(
    model: GPT2LMHeadModel, batch: Batch, *, bf16: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run a batch.

    Args:
        model: of `new_model`.
        batch: of at least one trained token.
        bf16: whether matrix products are done in bfloat16.

    Returns:
        For the trained tokens in row order: logits, float32 [trained,
        vocabulary], and the ids that are right, int64 [trained].
    """
    ids, trained = torch.from_numpy(batch.ids), torch.from_numpy(batch.trained)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        hidden = model.transformer(ids[:, :-1], use_cache=False).last_hidden_state
        # The head costs a third of a step, so it only reads what is trained,
        # filled up to one of few shapes, since each new one is compiled.
        wanted = hidden[trained[:, 1:]]
        fill = -len(wanted) % _HEAD_ROWS
        logits = model.lm_head(functional.pad(wanted, (0, 0, 0, fill)))[: len(wanted)]
    return logits.float(), ids[trained]


def use_bf16(config: TrainingConfig) -> bool:
    """Say whether to compute in bfloat16 on this processor."""
    if config.precision == "auto":
        features = torch.cpu.get_capabilities()
        return bool(features.get("amx_bf16") or features.get("avx512_bf16"))
    return config.precision == "bf16"
