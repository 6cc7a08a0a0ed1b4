"""How a profile stores weights and the KV cache."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Self

from gpt2flow.export.errors import InputError

# Long blocks are read fastest; shorter ones are for widths that they do not divide.
BLOCK_SIZES: Final = (128, 64, 32, 16)


class _Choice(StrEnum):
    """Names that a user chooses from."""

    @classmethod
    def parse(cls, name: str) -> Self:
        """Return the member of a name.

        Raises:
            InputError: There is none; the message names those that there are.
        """
        try:
            return cls(name)
        except ValueError as error:
            allowed = ", ".join(cls)
            kind = cls.__doc__ or cls.__name__
            raise InputError(
                f"unknown {kind.split(':')[0]} {name!r}; choose one of: {allowed}"
            ) from error


class Profile(_Choice):
    """profile: the kind of bundle that an export writes."""

    REFERENCE = "reference"
    FP32 = "fp32"
    INT8 = "int8"
    INT4 = "int4"


class KvCache(_Choice):
    """KV cache: the numbers that keys and values are kept in."""

    FP32 = "fp32"
    INT8 = "int8"


class Method(_Choice):
    """method: how weights are rounded to 4 bits."""

    RTN = "rtn"
    HQQ = "hqq"
    GPTQ = "gptq"


@dataclass(frozen=True, slots=True)
class Storage:
    """How one matrix is stored.

    Attributes:
        bits: Of one weight; 32 stands for floating point.
        block_size: How many inputs share a scale. None, of 8 bits: all inputs of an output do.
    """

    bits: int
    block_size: int | None = None


FP32_STORAGE: Final = Storage(bits=32)
COLUMNS: Final = Storage(bits=8)


@dataclass(frozen=True, slots=True)
class ProfileRecipe:
    """What a profile means, and how much worse than fp32 it may be.

    Attributes:
        body: How the matrices of the layers are stored, where widths allow it.
        head: How the head is stored, where widths allow it.
        entries: How the embeddings are stored, where widths allow it.
        gate: Largest allowed ratio of the bundle's perplexity to that of fp32.
        narrow_rows: Largest number of rows that a product with such a matrix is fast for; for
            more, the graph has every matrix once more, in columns. None: it is fast for any.
        kv_cache: The numbers that keys and values are kept in.
        method: How 4 bits are chosen.
        kept_share: How many bytes more, for each byte of the body, may be spent on keeping the
            most sensitive of its matrices in 8 bits.
    """

    body: Storage
    head: Storage
    entries: Storage
    gate: float
    narrow_rows: int | None = None
    kv_cache: KvCache = KvCache.FP32
    method: Method = Method.RTN
    kept_share: float = 0.0

    @property
    def quantized(self) -> bool:
        """Whether weights are stored in fewer bits than they had."""
        return self.body.bits < FP32_STORAGE.bits

    @property
    def calibrated(self) -> bool:
        """Whether a text is needed to make it."""
        return self.kv_cache is KvCache.INT8 or self.method is Method.GPTQ or self.kept_share > 0

    def changed(
        self,
        *,
        kv_cache: KvCache | None = None,
        method: Method | None = None,
        block_size: int | None = None,
        kept_share: float | None = None,
        second_copy: bool = True,
    ) -> "ProfileRecipe":
        """Return the recipe with what is not None changed.

        Raises:
            InputError: The profile has no such choice, or the value is out of range.
        """
        recipe = self if second_copy else _with_one_copy(self)
        if kv_cache is not None:
            recipe = replace(recipe, kv_cache=kv_cache)
        if block_size is not None:
            recipe = _in_blocks(recipe, block_size)
        if (method or kept_share) and self.body.bits > 4:
            raise InputError("method and kept share: only the int4 profile has a choice of them")
        if method is not None:
            recipe = replace(recipe, method=method)
        if kept_share is not None:
            if not 0 <= kept_share <= 1:
                raise InputError(f"kept share {kept_share}: must be from 0 to 1")
            recipe = replace(recipe, kept_share=kept_share)
        return recipe


def _with_one_copy(recipe: ProfileRecipe) -> ProfileRecipe:
    """Return the recipe of a graph that has one kind of matrices for any number of rows."""
    if not recipe.quantized:
        raise InputError("second copy: the profile has none that could be left out")
    if recipe.body.bits == COLUMNS.bits:
        # In as many bytes, columns lose less for few rows than blocks lose for many.
        return replace(recipe, narrow_rows=None, body=COLUMNS, head=COLUMNS)
    return replace(recipe, narrow_rows=None)


def _in_blocks(recipe: ProfileRecipe, block_size: int) -> ProfileRecipe:
    if not recipe.quantized:
        raise InputError(f"block size {block_size}: the profile quantizes no weights")
    if recipe.body == COLUMNS:
        raise InputError(f"block size {block_size}: 8 bits without a second copy are in columns")
    if block_size not in BLOCK_SIZES:
        allowed = ", ".join(map(str, BLOCK_SIZES))
        raise InputError(f"block size {block_size}: choose one of {allowed}")
    return replace(
        recipe,
        body=replace(recipe.body, block_size=block_size),
        head=replace(recipe.head, block_size=block_size),
    )


def fitting(wanted: Storage, inputs: int) -> Storage:
    """Return how a matrix of that many inputs is stored where a storage is wanted.

    Where the block does not divide the inputs, a shorter one is taken; where none does, 8 bits
    in columns, which take any width.
    """
    if wanted.block_size is None:
        return wanted
    for block_size in BLOCK_SIZES:
        if block_size <= wanted.block_size and inputs % block_size == 0:
            return Storage(wanted.bits, block_size)
    return COLUMNS


_BYTES: Final = Storage(bits=8, block_size=128)
_NIBBLES: Final = Storage(bits=4, block_size=128)

RECIPES: Final = {
    # The gate of the profiles that keep every weight tells a wrong graph, not a coarse one.
    Profile.REFERENCE: ProfileRecipe(FP32_STORAGE, FP32_STORAGE, FP32_STORAGE, gate=1.001),
    Profile.FP32: ProfileRecipe(FP32_STORAGE, FP32_STORAGE, FP32_STORAGE, gate=1.001),
    Profile.INT8: ProfileRecipe(
        _BYTES, _BYTES, _BYTES, gate=1.01, narrow_rows=3, kv_cache=KvCache.INT8
    ),
    Profile.INT4: ProfileRecipe(
        _NIBBLES,
        _NIBBLES,
        _BYTES,
        gate=1.03,
        narrow_rows=5,
        kv_cache=KvCache.INT8,
        method=Method.GPTQ,
        kept_share=0.1,
    ),
}
