"""Quantization of weights and KV cache: rounding, calibration, mixed precision."""
