"""Export profiles and their recipes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import ClassVar, Final, Self

from gpt2flow.export.errors import InputError

# Kernels read long blocks fastest; the shorter ones serve widths that 128 does not divide.
BLOCK_SIZES: Final = (128, 64, 32, 16)


class _Choice(StrEnum):
    """Base class of the names that a user chooses from."""

    _label: ClassVar[str]

    def __init_subclass__(cls, label: str) -> None:
        cls._label = label

    @classmethod
    def parse(cls, name: str) -> Self:
        """Return the member of the given name.

        Raises:
            InputError: There is no such member; the message lists the allowed names.
        """
        try:
            return cls(name)
        except ValueError as error:
            allowed = ", ".join(cls)
            raise InputError(f"unknown {cls._label} {name!r}; choose one of: {allowed}") from error


class Profile(_Choice, label="profile"):
    """Kind of bundle that an export writes."""

    REFERENCE = "reference"
    FP32 = "fp32"
    INT8 = "int8"
    INT4 = "int4"


class KvCache(_Choice, label="KV cache"):
    """Data type of the keys and values in the KV cache."""

    FP32 = "fp32"
    INT8 = "int8"


class Method(_Choice, label="method"):
    """Method of rounding weights to 4 bits."""

    RTN = "rtn"
    HQQ = "hqq"
    GPTQ = "gptq"


@dataclass(frozen=True, slots=True)
class Storage:
    """Format in which one matrix is stored.

    Attributes:
        bits: Bits per weight; 32 means floating point.
        block_size: Number of inputs that share a scale; None for floating point.
    """

    bits: int
    block_size: int | None = None

    def divides(self, inputs: int) -> bool:
        """Return whether inputs divide into blocks without padding."""
        return self.block_size is not None and inputs % self.block_size == 0


FP32_STORAGE: Final = Storage(bits=32)

StorageSelector = Callable[[str, int], Storage]
"""Function that maps a matrix's name and number of inputs to its storage format."""


@dataclass(frozen=True, slots=True)
class ProfileRecipe:
    """Storage formats and quality gate of a profile.

    A format applies to matrices whose width a block size divides; see `fit_storage`.

    Attributes:
        body: Format of the matrices of the layers.
        head: Format of the head.
        embeddings: Format of the token and position embeddings.
        gate: Largest allowed ratio of the bundle's perplexity to that of fp32.
        kv_cache: Data type of the KV cache.
        method: Method of rounding weights to 4 bits.
        mixed_precision_budget: Bytes that may be added by keeping the most sensitive matrices of
            the layers in 8 bits, as a share of the layers' 4-bit bytes.
    """

    body: Storage
    head: Storage
    embeddings: Storage
    gate: float
    kv_cache: KvCache = KvCache.FP32
    method: Method = Method.RTN
    mixed_precision_budget: float = 0.0

    @property
    def quantized(self) -> bool:
        """True if weights are stored in fewer bits than fp32 has."""
        return self.body.bits < FP32_STORAGE.bits

    @property
    def needs_calibration(self) -> bool:
        """True if the export needs a text to calibrate with."""
        return (
            self.kv_cache is KvCache.INT8
            or self.method is Method.GPTQ
            or self.mixed_precision_budget > 0
        )

    def with_overrides(
        self,
        *,
        kv_cache: KvCache | None = None,
        method: Method | None = None,
        block_size: int | None = None,
        mixed_precision_budget: float | None = None,
    ) -> "ProfileRecipe":
        """Return the recipe with some of its options replaced.

        Args:
            kv_cache: Data type of the KV cache; None keeps the recipe's.
            method: Rounding method; None keeps the recipe's.
            block_size: Block size of layers and head; None keeps the recipe's.
            mixed_precision_budget: Budget for 8-bit matrices; None keeps the recipe's.

        Raises:
            InputError: The profile does not support an option, or a value is out of range.
        """
        recipe = self
        if kv_cache is not None:
            recipe = replace(recipe, kv_cache=kv_cache)
        if block_size is not None:
            recipe = _with_block_size(recipe, block_size)
        if (method or mixed_precision_budget) and self.body.bits > 4:
            raise InputError("method and kept share apply to the int4 profile only")
        if method is not None:
            recipe = replace(recipe, method=method)
        if mixed_precision_budget is not None:
            if not 0 <= mixed_precision_budget <= 1:
                raise InputError(
                    f"kept share {mixed_precision_budget} is out of range; choose one from 0 to 1"
                )
            recipe = replace(recipe, mixed_precision_budget=mixed_precision_budget)
        return recipe


def _with_block_size(recipe: ProfileRecipe, block_size: int) -> ProfileRecipe:
    if not recipe.quantized:
        raise InputError(
            f"block size {block_size}: the profile quantizes no weights; omit --block-size"
        )
    if block_size not in BLOCK_SIZES:
        allowed = ", ".join(map(str, BLOCK_SIZES))
        raise InputError(f"block size {block_size}: choose one of {allowed}")
    return replace(
        recipe,
        body=replace(recipe.body, block_size=block_size),
        head=replace(recipe.head, block_size=block_size),
    )


def fit_storage(requested: Storage, inputs: int) -> Storage:
    """Return the format closest to the requested one that a matrix allows.

    A block size that does not divide the inputs is replaced by the largest smaller one that does.
    If there is none, the matrix has 8 bits, and its last blocks are padded with zeros.

    Args:
        requested: Format to use if possible.
        inputs: Number of inputs of the matrix.
    """
    if requested.block_size is None:
        return requested
    for block_size in BLOCK_SIZES:
        if block_size <= requested.block_size and inputs % block_size == 0:
            return Storage(requested.bits, block_size)
    return Storage(max(requested.bits, 8), BLOCK_SIZES[-1])


_INT8_BLOCKS: Final = Storage(bits=8, block_size=128)
_INT4_BLOCKS: Final = Storage(bits=4, block_size=128)

RECIPES: Final = {
    # These profiles keep every weight, so a ratio above this gate means a wrong graph.
    Profile.REFERENCE: ProfileRecipe(FP32_STORAGE, FP32_STORAGE, FP32_STORAGE, gate=1.001),
    Profile.FP32: ProfileRecipe(FP32_STORAGE, FP32_STORAGE, FP32_STORAGE, gate=1.001),
    Profile.INT8: ProfileRecipe(
        _INT8_BLOCKS,
        _INT8_BLOCKS,
        _INT8_BLOCKS,
        gate=1.01,
        kv_cache=KvCache.INT8,
    ),
    Profile.INT4: ProfileRecipe(
        _INT4_BLOCKS,
        _INT4_BLOCKS,
        _INT8_BLOCKS,
        gate=1.03,
        kv_cache=KvCache.INT8,
        method=Method.GPTQ,
        mixed_precision_budget=0.1,
    ),
}
