"""Operators for onnxruntime, compiled from C: attention, and products with packed weights."""

from gpt2flow.native.library import Operators, available_kernels, load_operators

__all__ = ["Operators", "available_kernels", "load_operators"]
