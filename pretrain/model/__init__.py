"""transformers' models, the training objective around them, and what they cost."""
