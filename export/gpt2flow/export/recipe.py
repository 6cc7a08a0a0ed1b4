"""How a profile stores weights."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from gpt2flow.export.errors import InputError

# Long blocks are read fastest; shorter ones are for widths that they do not divide.
_BLOCK_SIZES: Final = (128, 64, 32, 16)


class Profile(StrEnum):
    """The kinds of bundle that an export writes."""

    REFERENCE = "reference"
    FP32 = "fp32"
    INT8 = "int8"

    @classmethod
    def parse(cls, name: str) -> Self:
        """Returns the profile of a name.

        Raises:
            InputError: There is none; the message names those that there are.
        """
        try:
            return cls(name)
        except ValueError as error:
            allowed = ", ".join(cls)
            raise InputError(f"unknown profile {name!r}; choose one of: {allowed}") from error


@dataclass(frozen=True, slots=True)
class Storage:
    """How one matrix is stored: its bits, and how many inputs share a scale if it is quantized."""

    bits: int
    block_size: int | None = None


FP32_STORAGE: Final = Storage(bits=32)


@dataclass(frozen=True, slots=True)
class ProfileRecipe:
    """What a profile means for weights, and how much worse than fp32 it may be.

    Attributes:
        default: How a matrix is stored where its width allows it.
        gate: Largest allowed ratio of the bundle's perplexity to that of fp32.
    """

    default: Storage
    gate: float

    def storage(self, inputs: int) -> Storage:
        """Returns how a matrix of that many inputs is stored.

        Where the default block does not divide them, a shorter one is taken; where none does,
        the matrix stays fp32.
        """
        if self.default.block_size is None:
            return self.default
        for block_size in _BLOCK_SIZES:
            if block_size <= self.default.block_size and inputs % block_size == 0:
                return Storage(self.default.bits, block_size)
        return FP32_STORAGE


# The gate of the profiles that keep every weight tells a wrong graph, not a coarse one.
_EXACT: Final = ProfileRecipe(FP32_STORAGE, gate=1.001)

RECIPES: Final = {
    Profile.REFERENCE: _EXACT,
    Profile.FP32: _EXACT,
    Profile.INT8: ProfileRecipe(Storage(bits=8, block_size=128), gate=1.01),
}
