"""Weights and cache in few bits: rounding methods, calibration, mixed precision."""
