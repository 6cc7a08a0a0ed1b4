"""Sources of a checkpoint: directories, models on a hub, LoRA adapters."""
