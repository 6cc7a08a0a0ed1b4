"""The settings of a training run: one frozen object, read from a recipe."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gpt2flow.files.documents import first_violation, read_yaml
from gpt2flow.training.errors import ConfigError

RECIPES = Path(__file__).parent / "recipes"
SHOP_RECIPE = RECIPES / "shop.yaml"


class TrainingConfig(BaseModel):
    """How a model is made from a corpus.

    The defaults suit a few megabytes of ordinary text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 1
    flow_documents: int = Field(
        100_000, gt=0, description="turns made up from the flows where no corpus is given"
    )
    valid_share: float = Field(
        0.02, gt=0, le=0.5, description="documents held back, where no held-back files are given"
    )

    vocabulary_size: int = Field(4096, gt=0)
    context_length: int = Field(512, ge=8, description="tokens that the model reads at most")
    layers: int = Field(6, gt=0)
    width: int = Field(256, gt=0)
    heads: int = Field(4, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)

    epochs: int = Field(1, gt=0, description="how often each document is read")
    batch_tokens: int = Field(4096, gt=0, description="tokens of one step, padding included")
    packed_share: float = Field(
        1.0,
        ge=0,
        le=1,
        description="documents that fill whole contexts back to back; the others have a row "
        "of their own, as the agent's turns have in use",
    )
    context_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="tokens outside of actions, in turns of the agent's flows, that the model "
        "learns to predict",
    )

    learning_rate: float = Field(1e-3, gt=0)
    warmup_share: float = Field(0.03, ge=0, lt=1, description="steps of rising learning rate")
    weight_decay: float = Field(0.1, ge=0)
    gradient_clip: float = Field(1.0, gt=0)
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="of the arithmetic; auto is bf16 where the processor is made for it"
    )
    save_every: int = Field(500, gt=0, description="steps between evaluations and checkpoints")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")
        if self.batch_tokens < self.context_length:
            raise ValueError(
                f"batch_tokens {self.batch_tokens} is below context_length {self.context_length}"
            )
        return self

    def changed(self, **changes: object) -> "TrainingConfig":
        """Return a copy with some fields changed.

        Raises:
            ConfigError: a value is out of range; names the field.
        """
        try:
            return TrainingConfig.model_validate({**self.model_dump(), **changes})
        except ValidationError as error:
            raise ConfigError(first_violation(error)) from error


def load_recipe(path: Path = SHOP_RECIPE) -> TrainingConfig:
    """Read a recipe.

    Raises:
        ConfigError: the file is missing or says something invalid.
    """
    return read_yaml(path, TrainingConfig, ConfigError)
