"""`python -m came.verify`: prove on this machine that a sharded optimizer computes what the whole-tensor algorithm computes."""
