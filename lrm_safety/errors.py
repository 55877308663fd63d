"""What a user, the data, a model or the cluster did wrong, said in one line.

Every class takes one clear line that names the configuration key or the file, and how to mend it. The command line
prints that line alone; anything that is not one of these classes is a defect of ours and keeps its traceback.
"""


class LrmSafetyError(Exception):
    """Base of every error that a user can read and act on; `str(error)` is the one line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class ConfigError(LrmSafetyError):
    """A configuration key is missing, unknown, out of range, or contradicts another key."""


class DataError(LrmSafetyError):
    """A data set, a row of it, or a saved state about it is absent, torn, changed or of another shape than expected."""


class ModelError(LrmSafetyError):
    """A checkpoint, tokenizer or chat template is absent or does not fit the model family or role it was given."""


class ClusterError(LrmSafetyError):
    """The cluster lacks what was asked for: GPUs, CPUs, nodes, memory, or a service did not answer in time."""


class RewardError(LrmSafetyError):
    """A reward could not be computed: a reward model, server or function failed or returned something unusable."""


class InvariantError(LrmSafetyError):
    """A guarantee that training rests on was found broken at run time, such as weights that differ after a sync."""


class WorkerError(LrmSafetyError):
    """A worker process died or raised; the line names the worker and carries its first cause."""


class JudgeError(LrmSafetyError):
    """A judge of safety cannot work: its endpoint stays down, or its model is not one that judges."""
