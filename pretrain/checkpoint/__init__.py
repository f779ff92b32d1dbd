"""Checkpoints of a run: whole or not there, free of world size and stage, found damaged where they are, never executed."""
