"""The one exception a user is meant to see."""


class UserError(Exception):
    """The user's mistake (config, data, environment): one line that says what is wrong and the mend.

    `python -m pretrain` prints it as `error: ...` without a traceback and exits with code 2.
    """
