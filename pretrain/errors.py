"""The exceptions that mean more than a fault."""


class UserError(Exception):
    """The user's mistake (config, data, environment): one line that says what is wrong and the mend.

    `python -m pretrain` prints it as `error: ...` without a traceback and exits with code 2.
    """


class Unfinished(UserError):
    """Work was cut off from outside (the network, the system); what is done is kept, and the same command goes on with it."""


class ElsewhereError(RuntimeError):
    """Another rank has failed, and this one ends for that reason alone: it is not shown beside the cause."""
