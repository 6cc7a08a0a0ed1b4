"""Settings of a training run: one frozen object, read from a recipe."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator

from gpt2flow.files.documents import StrictModel, first_violation, read_yaml
from gpt2flow.training.errors import ConfigError

RECIPES = Path(__file__).parent / "recipes"
SHOP_RECIPE = RECIPES / "shop.yaml"


class TrainingConfig(StrictModel):
    """Settings of data, architecture and optimization.

    The defaults suit a few megabytes of ordinary text. A recipe is a YAML file of these fields.
    """

    seed: int = Field(1, description="Seed of the corpus, the split, the weights and the batches")
    flow_documents: int = Field(
        100_000, gt=0, description="Turns generated from the flows if no corpus is given"
    )
    more_wishes: list[float] = Field(
        [62.0, 29.0, 9.0],
        min_length=3,
        max_length=3,
        description="Weights of no further wish, one, and two, in generated messages",
    )
    listed_share: float = Field(
        0.15,
        ge=0,
        le=1,
        description="Share of generated requests that list several products or orders",
    )
    valid_share: float = Field(
        0.02,
        gt=0,
        le=0.5,
        description="Share of the conversations and single documents in the validation set if no "
        "validation files are given",
    )

    vocabulary_size: int = Field(
        4096, gt=0, description="Vocabulary entries, special tokens and the 256 bytes included"
    )
    context_length: int = Field(512, ge=8, description="Longest sequence of the model, in tokens")
    layers: int = Field(6, gt=0, description="Transformer blocks")
    width: int = Field(256, gt=0, description="Hidden size; a multiple of heads")
    heads: int = Field(4, gt=0, description="Attention heads per layer")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="Dropout rate of embeddings, attention and residuals"
    )

    epochs: int = Field(1, gt=0, description="Passes over the training documents")
    batch_tokens: int = Field(4096, gt=0, description="Tokens per batch, padding included")
    accumulate_steps: int = Field(
        1, gt=0, description="Batches whose gradients are summed into one update, which is a step"
    )
    packed_share: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of the documents packed back to back into full contexts; the others "
        "have a row of their own, as the agent's turns have at inference",
    )
    context_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of the tokens outside actions, in turns of the agent's flows, that "
        "count in the loss",
    )

    optimizer: Literal["adamw", "muon"] = Field(
        "adamw",
        description="AdamW, or Muon for the matrices within the blocks and AdamW for the rest",
    )
    learning_rate: float = Field(1e-3, gt=0, description="Peak learning rate")
    warmup_share: float = Field(
        0.03, ge=0, lt=1, description="Share of the steps with linear learning-rate warm-up"
    )
    weight_decay: float = Field(0.1, ge=0, description="Weight decay of the matrices")
    gradient_clip: float = Field(1.0, gt=0, description="Maximum norm of the gradient")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="Arithmetic of the matrix products; auto is bf16 on processors with bf16 "
        "instructions",
    )
    save_every: int = Field(500, gt=0, description="Steps between evaluations and checkpoints")
    patience: int = Field(
        0,
        ge=0,
        description="Evaluations in a row without a better validation loss that end the run, "
        "whose best weights are kept; 0 trains to the last step and keeps its weights",
    )

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.batch_tokens < self.context_length:
            raise ValueError(
                f"batch_tokens {self.batch_tokens} is below context_length {self.context_length}"
            )
        return self

    def changed(self, **changes: object) -> "TrainingConfig":
        """Return a copy with some fields changed.

        Raises:
            ConfigError: A value is out of range; the message names the field.
        """
        try:
            return TrainingConfig.model_validate({**self.model_dump(), **changes})
        except ValidationError as error:
            raise ConfigError(first_violation(error)) from error


def parse_settings(texts: Sequence[str]) -> dict[str, str]:
    """Parse settings, each of the form `name=value`.

    Raises:
        ConfigError: One is not of that form; the message quotes it.
    """
    settings = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ConfigError(f"--set {text!r} is not of the form name=value")
        settings[name] = value
    return settings


def find_recipe(name: str) -> Path:
    """Return the path of a built-in recipe, or the name itself."""
    built_in = RECIPES / f"{name}.yaml"
    return built_in if built_in.is_file() else Path(name)


def load_recipe(path: Path = SHOP_RECIPE) -> TrainingConfig:
    """Read a recipe.

    Args:
        path: YAML file whose keys are fields of `TrainingConfig`.

    Raises:
        ConfigError: The file is missing or invalid; the message names the field and its value.
    """
    return read_yaml(path, TrainingConfig, ConfigError)
