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


class FolderLostError(DataError):
    """The run's folder, or its file of metrics, was removed while the run wrote into it; what was lost has been written again."""


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
    """A judge or grader cannot work: an endpoint stays down, a model is not one that judges, a user's function raises."""


def first_line(error: BaseException) -> str:
    """The first line of another library's message, or the error's name where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
