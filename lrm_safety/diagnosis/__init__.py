"""Failure signatures of safety alignment as rules over the figures of training and evaluation."""

from .beta import BetaAdvice, beta_advice
from .evidence import (
    Evaluated,
    Evidence,
    Finding,
    Measured,
    Measures,
    PromptEntropy,
    as_role,
    of_evaluation,
    role_of,
)
from .rules import RULES, diagnose
from .watch import Watch

__all__ = [
    "RULES",
    "BetaAdvice",
    "Evaluated",
    "Evidence",
    "Finding",
    "Measured",
    "Measures",
    "PromptEntropy",
    "Watch",
    "as_role",
    "beta_advice",
    "diagnose",
    "of_evaluation",
    "role_of",
]
