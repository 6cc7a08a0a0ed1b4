"""Generation and scoring: tasks that turn logits into candidates, hypotheses or scores."""
