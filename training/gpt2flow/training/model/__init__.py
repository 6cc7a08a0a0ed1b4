"""GPT-2 model, training loop, evaluation and hyper-parameter search."""
