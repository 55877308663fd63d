"""What a run will need before it is started: memory of every group, tokens, hours."""

from .assumptions import Assumptions
from .caution import cautions
from .duration import Duration, duration
from .memory import GIB, GroupMemory, memory_of, num_gpus
from .plan import Plan, plan, refuse_what_cannot_fit
from .shapes import ModelShape, kv_bytes_per_token, num_parameters, shape_of

__all__ = [
    "GIB",
    "Assumptions",
    "Duration",
    "GroupMemory",
    "ModelShape",
    "Plan",
    "cautions",
    "duration",
    "kv_bytes_per_token",
    "memory_of",
    "num_gpus",
    "num_parameters",
    "plan",
    "refuse_what_cannot_fit",
    "shape_of",
]
