"""How a command ends; 0 is a job done, and any other number is a fault."""

DONE = 0
FAULT = 1
USER_ERROR = 2
"""The user's mistake, told in one line with the mend."""
STOPPED_ON_REQUEST = 85
"""A checkpoint is written; the same command goes on from it."""
INTERRUPTED = 130
"""Ctrl-C."""
DIVERGED = 1
"""Too many steps in a row were skipped."""
