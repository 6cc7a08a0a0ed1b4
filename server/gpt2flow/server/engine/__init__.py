"""Engine of one model: continuous batching on a KV cache."""
