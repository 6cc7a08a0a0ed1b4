"""The engine of one model: scheduler, KV cache, and the step that runs them."""
