"""`python -m pretrain.evaluate`: how well a trained model predicts a text."""
