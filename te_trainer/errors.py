"""The two ways in which a run stops on purpose. Each message is one sentence for the person who started it."""


class InputError(ValueError):
    """What the user gave cannot be used. The message names the file, row or key, and the mend; exit status 2."""


class DivergedError(RuntimeError):
    """A loss or a score is NaN or infinite. The message names the step or the pair; exit status 1."""
