"""The mistakes a user can make: each prints as a sentence, never as a traceback."""


class UserError(Exception):
    """A fault that the user can mend; main prints it alone and exits with `exit_status`."""

    exit_status = 1


class ConfigError(UserError, ValueError):
    """Everything that is wrong with a configuration, all at once.

    Args:
        problems: one finished sentence per fault: what was given, what is allowed, the closest match.
    """

    exit_status = 2

    def __init__(self, *problems: str) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class DataError(UserError):
    """A data set that cannot be read as asked: the sentence names the path, what is wrong, and what to type next."""


class TrainingError(UserError):
    """A run that cannot go on (a loss that is not a number, a checkpoint that does not fit)."""
