"""Manifest of a bundle, and the verification of a bundle against it."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from gpt2flow.files.documents import StrictModel, first_violation
from gpt2flow.server.errors import BundleError

FORMAT_VERSION: Final = 2
MANIFEST_NAME = "manifest.json"
MODEL_NAME = "model.onnx"
WEIGHTS_NAME = "model.onnx.data"
TOKENIZER_NAME = "tokenizer.json"

REFERENCE_PROFILE: Final = "reference"
"""Profile of Optimum's graph, which is compared with and not served."""


class HubModel(StrictModel):
    """Model of a Hugging Face hub, at one commit.

    Attributes:
        id: Id of the model, as `gpt2` or `owner/name`.
        commit: Commit that was downloaded.
    """

    id: str
    commit: str


class Source(StrictModel):
    """Checkpoint that the bundle was made from.

    Attributes:
        checkpoint_sha256: Hash of the checkpoint's files, after an adapter was merged.
        parameters: Number of trained parameters.
        architecture: Architecture of the model.
        models: Models of a hub that it comes from: checkpoint or adapter, then the base model.
    """

    checkpoint_sha256: str
    parameters: int = Field(gt=0)
    architecture: Literal["gpt2"] = "gpt2"
    models: list[HubModel] = Field(default_factory=list)


class OperatorRecipe(StrictModel):
    """Storage of one node's weights; without block size, floating point."""

    bits: int = Field(gt=0)
    block_size: int | None = Field(default=None, gt=0)


class Recipe(StrictModel):
    """Storage of the weights and of the KV cache.

    Attributes:
        profile: Name of the quantization profile.
        kv_cache: Dtype of the KV cache.
        default_bits: Bits per weight of most matrices.
        block_size: Number of weights that share a scale; None without quantization.
        method: Rounding method of the weights.
        kept: Names of sensitive matrices, which have more bits than the others.
        calibration: Name of the text that calibrated the method and the cache.
        operators: Storage of the weights by node.
    """

    profile: str
    kv_cache: str
    default_bits: int = Field(gt=0)
    block_size: int | None = Field(default=None, gt=0)
    method: str | None = None
    kept: list[str] = Field(default_factory=list)
    calibration: str | None = None
    operators: dict[str, OperatorRecipe] = Field(default_factory=dict)


class ModelShape(StrictModel):
    """Dimensions of the model, which size buffers and bound requests.

    Attributes:
        layers: Number of layers.
        heads: Number of attention heads.
        head_size: Channels of a head in the KV cache.
        hidden_size: Channels between layers.
        context_length: Most tokens of a sequence.
        vocabulary_size: Rows of the head; the tokenizer may have fewer tokens.
        eos_token_ids: Tokens that end a text; may be none.
        bos_token_id: Token that an empty prompt becomes; None refuses it.
    """

    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    head_size: int = Field(gt=0)
    hidden_size: int = Field(gt=0)
    context_length: int = Field(gt=1)
    vocabulary_size: int = Field(gt=1)
    eos_token_ids: list[Annotated[int, Field(ge=0)]]
    bos_token_id: int | None = Field(ge=0)

    @model_validator(mode="before")
    @classmethod
    def _read_single_eos(cls, fields: Any) -> Any:
        """Accept the single end token of earlier bundles."""
        if isinstance(fields, dict) and "eos_token_id" in fields:
            rest = {name: value for name, value in fields.items() if name != "eos_token_id"}
            return {"eos_token_ids": [fields["eos_token_id"]]} | rest
        return fields


class PartQuality(StrictModel):
    """Quality of the predictions of one phase of inference."""

    tokens: int = Field(gt=0)
    perplexity_ratio: float
    argmax_agreement: float
    mean_kl: float


class Quality(StrictModel):
    """Quality of the bundle against the fp32 reference, on the evaluation text.

    Attributes:
        text: Name and hash of the text.
        tokens: Number of tokens that were predicted.
        perplexity_fp32: Perplexity of the reference.
        perplexity: Perplexity of the bundle, prefilled and decoded as in the server.
        perplexity_ratio: Perplexity of the bundle divided by that of the reference.
        argmax_agreement: Share of predictions whose most likely token is the same.
        mean_kl: Mean Kullback-Leibler divergence of the bundle from the reference, in nats.
        parts: Quality of prefill, and of decoding.
        gate: Largest allowed ratio of the quality gate; None without a gate.
        forced: Whether the bundle was written although it failed the gate.
    """

    text: str
    tokens: int = Field(ge=0)
    perplexity_fp32: float
    perplexity: float
    perplexity_ratio: float
    argmax_agreement: float
    mean_kl: float
    parts: dict[str, PartQuality] = Field(default_factory=dict)
    gate: float | None = None
    forced: bool = False


class Manifest(StrictModel):
    """Content of `manifest.json`.

    Attributes:
        format_version: Version of the format.
        created_by: Versions of the tools that wrote the bundle.
        source: Checkpoint that it was made from.
        recipe: Storage of weights and cache.
        shape: Dimensions of the model.
        quality: Measured quality; None if it was not measured.
        training: Facts about the training.
        warnings: Lines about what of the checkpoint was left out or assumed.
        files: SHA-256 of each file.
    """

    format_version: Literal[2] = FORMAT_VERSION
    created_by: dict[str, str]
    source: Source
    recipe: Recipe
    shape: ModelShape
    quality: Quality | None = None
    training: dict[str, Any] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)
    files: dict[str, str]

    @field_validator("files")
    @classmethod
    def _names_stay_inside(cls, files: dict[str, str]) -> dict[str, str]:
        for name in files:
            path = Path(name)
            if not name or path.is_absolute() or ".." in path.parts or name == MANIFEST_NAME:
                raise ValueError(f"{name!r} is not the name of a file of the bundle")
        for name in (MODEL_NAME, TOKENIZER_NAME):
            if name not in files:
                raise ValueError(f"{name} is not listed")
        return files

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Parse the bytes of a `manifest.json`.

        Raises:
            BundleError: It is not JSON, has another format version, or a field is bad.
        """
        try:
            fields = json.loads(data)
        except ValueError as error:
            raise BundleError(f"{MANIFEST_NAME} is not JSON: {error}") from error
        version = fields.get("format_version") if isinstance(fields, dict) else None
        if version != FORMAT_VERSION:
            raise BundleError(
                f"{MANIFEST_NAME} has format version {version!r}, must be {FORMAT_VERSION}; "
                "write the bundle anew with: gpt2flow export CHECKPOINT OUT"
            )
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise BundleError(f"{MANIFEST_NAME}: {first_violation(error)}") from error

    def to_bytes(self) -> bytes:
        """Return the bytes of `manifest.json`; they are deterministic."""
        text = json.dumps(self.model_dump(mode="json"), ensure_ascii=False, indent=2)
        return text.encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Bundle:
    """Bundle whose files match its manifest.

    Attributes:
        directory: Directory of the bundle.
        manifest: Its manifest.
        fingerprint: SHA-256 of the bytes of `manifest.json`, in hexadecimal.
    """

    directory: Path
    manifest: Manifest
    fingerprint: str


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_bundle(directory: Path, fingerprint: str | None = None) -> Bundle:
    """Read a bundle's manifest, and verify the hash of every file.

    Args:
        directory: Directory of the bundle.
        fingerprint: Required fingerprint; None accepts any.

    Raises:
        BundleError: The directory or a file is missing, the manifest is unreadable or has
            another fingerprint, or a file does not match its hash. The message names the file.
    """
    if not directory.is_dir():
        raise BundleError(f"{directory} is not a directory")
    data = _read(directory / MANIFEST_NAME)
    actual = hashlib.sha256(data).hexdigest()
    if fingerprint not in {None, actual}:
        raise BundleError(f"{directory} has the fingerprint {actual}, must have {fingerprint}")
    manifest = Manifest.from_bytes(data)
    for name, expected in manifest.files.items():
        path = directory / name
        try:
            found = file_sha256(path)
        except OSError as error:
            raise BundleError(f"{path} cannot be read: {error.strerror}") from error
        if found != expected:
            raise BundleError(f"{path} does not match the hash in {MANIFEST_NAME}")
    return Bundle(directory, manifest, actual)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
