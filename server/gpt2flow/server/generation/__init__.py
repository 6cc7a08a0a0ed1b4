"""What is made of one request's logits: candidates, hypotheses or scores."""
