"""Optimizers treat each kind of parameter as they should, and resume."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel

from gpt2flow.training.config import TrainingConfig
from gpt2flow.training.errors import OutputError
from gpt2flow.training.model.loop import StepReport, fit
from gpt2flow.training.model.model import new_model
from gpt2flow.training.model.optimizer import MuonWithAdamW, Optimizer, make_optimizer
from gpt2flow.training.text.encoding import EncodedCorpus, encode
from gpt2flow.training.text.vocabulary import train_vocabulary

_BOTH = pytest.mark.parametrize("optimizer", ["adamw", "muon"])


@pytest.fixture(scope="module")
def tokenizer(documents: list[str]) -> Tokenizer:
    return train_vocabulary(documents[:500], 300)


@pytest.fixture(scope="module")
def corpora(documents: list[str], tokenizer: Tokenizer) -> tuple[EncodedCorpus, EncodedCorpus]:
    return encode(documents[:60], tokenizer), encode(documents[60:70], tokenizer)


def _make(config: TrainingConfig, optimizer: str) -> tuple[GPT2LMHeadModel, Optimizer]:
    chosen = config.changed(optimizer=optimizer, weight_decay=0.25, layers=2)
    model = new_model(chosen, 0)
    return model, make_optimizer(model, chosen)


def _names(model: GPT2LMHeadModel, parameters: list[torch.nn.Parameter]) -> list[str]:
    by_id = {id(parameter): name for name, parameter in model.named_parameters()}
    return [by_id[id(parameter)] for parameter in parameters]


def _step(model: GPT2LMHeadModel, optimizer: Optimizer) -> None:
    """Update a model from the loss of a short row."""
    ids = torch.arange(20)[None]
    model(ids, labels=ids).loss.backward()
    optimizer.step()


@_BOTH
def test_every_parameter_is_in_exactly_one_group(tiny: TrainingConfig, optimizer: str) -> None:
    model, made = _make(tiny, optimizer)
    grouped = [name for group in made.param_groups for name in _names(model, group["params"])]
    assert sorted(grouped) == sorted(name for name, _ in model.named_parameters())


@_BOTH
def test_biases_norms_and_positions_do_not_decay(tiny: TrainingConfig, optimizer: str) -> None:
    model, made = _make(tiny, optimizer)
    decays = {
        name: group["weight_decay"]
        for group in made.param_groups
        for name in _names(model, group["params"])
    }
    free = {
        name
        for name in decays
        if name.endswith(".bias") or ".ln_" in name or name == "transformer.wpe.weight"
    }
    assert {name for name, decay in decays.items() if decay == 0} == free
    assert {decay for name, decay in decays.items() if name not in free} == {0.25}


def test_muon_gets_the_matrices_of_the_blocks_only(tiny: TrainingConfig) -> None:
    model, made = _make(tiny, "muon")
    assert isinstance(made, MuonWithAdamW)
    muon = made._parts["muon"]
    assert isinstance(muon, torch.optim.Muon)
    names = [name for group in muon.param_groups for name in _names(model, group["params"])]
    assert sorted(names) == sorted(
        f"transformer.h.{layer}.{matrix}.weight"
        for layer in range(2)
        for matrix in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    )


def test_adamw_gets_everything_by_default(tiny: TrainingConfig) -> None:
    assert TrainingConfig().optimizer == "adamw"
    assert isinstance(_make(tiny, "adamw")[1], torch.optim.AdamW)


@_BOTH
def test_the_learning_rate_of_the_groups_applies_to_every_parameter(
    tiny: TrainingConfig, optimizer: str
) -> None:
    model, made = _make(tiny, optimizer)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}

    def changed() -> set[str]:
        return {name for name, weight in model.named_parameters() if not weight.equal(before[name])}

    for group in made.param_groups:
        group["lr"] = 0.0
    _step(model, made)
    assert changed() == set()
    for group in made.param_groups:
        group["lr"] = 0.01
    _step(model, made)
    assert changed() == set(before)


@_BOTH
def test_gradients_are_dropped(tiny: TrainingConfig, optimizer: str) -> None:
    model, made = _make(tiny, optimizer)
    _step(model, made)
    assert all(weight.grad is not None for weight in model.parameters())
    made.zero_grad()
    assert all(weight.grad is None for weight in model.parameters())


class _StoppedError(Exception):
    """End of an interrupted run."""


def test_an_interrupted_run_with_muon_resumes_to_the_same_weights(
    corpora: tuple[EncodedCorpus, EncodedCorpus],
    tokenizer: Tokenizer,
    tiny: TrainingConfig,
    tmp_path: Path,
) -> None:
    config = tiny.changed(optimizer="muon", dropout=0.1, save_every=6, learning_rate=0.01)
    losses: list[float] = []
    whole, state = fit(
        *corpora, config, steps=16, on_progress=lambda report: losses.append(report.loss)
    )
    assert losses[-1] < 0.9 * losses[0]

    def stop(report: StepReport) -> None:
        if report.step == 9:
            raise _StoppedError

    save_to = (tmp_path, tokenizer)
    with pytest.raises(_StoppedError):
        fit(*corpora, config, steps=16, save_to=save_to, on_progress=stop)
    resumed_at: list[int] = []
    resumed, again = fit(
        *corpora,
        config,
        steps=16,
        save_to=save_to,
        on_progress=lambda report: resumed_at.append(report.step),
    )
    assert resumed_at[0] == 7
    assert again.history == state.history
    weights = resumed.state_dict()
    assert all(weight.equal(weights[name]) for name, weight in whole.state_dict().items())


@pytest.mark.parametrize(
    "saved, resumed",
    [
        ("adamw", "muon"),
        ("muon", "adamw"),
    ],
)
def test_the_state_of_another_optimizer_is_refused(
    corpora: tuple[EncodedCorpus, EncodedCorpus],
    tokenizer: Tokenizer,
    tiny: TrainingConfig,
    tmp_path: Path,
    *,
    saved: str,
    resumed: str,
) -> None:
    save_to = (tmp_path, tokenizer)
    fit(*corpora, tiny.changed(optimizer=saved), steps=1, save_to=save_to)
    with pytest.raises(OutputError) as caught:
        fit(*corpora, tiny.changed(optimizer=resumed), steps=2, save_to=save_to)
    assert str(caught.value) == (
        f"{tmp_path / 'step-0000001'}: cannot resume from this checkpoint: "
        "the checkpoint has the state of another optimizer"
    )
