"""What commands leave for people and for other commands: results.json of an evaluation and of a reward model's training,
reflection.json, memorization.json and audit.json.

Each file is one of the dataclasses here, written and read by them alone: a field is the key of its name, None is null, and
what could not be measured is None. A later version may add a field with a default, which older files then lack; any other
change of shape is another `FORMAT`.
"""

from .analysis import (
    AnalysedModel,
    Forking,
    ForkingThreshold,
    KnowledgeDifference,
    Memorization,
    MemorizationCell,
    ReadingDifference,
    Reflection,
    ReflectionCell,
    ReflectionTokens,
    SupervisedData,
)
from .base import Difference, Metric, Results, as_json, known
from .evaluation import Benchmark, BenchmarkData, EvaluatedAdapter, Evaluation, JudgeCalibration, Model
from .reward import (
    Audit,
    AuditedModel,
    AuditedView,
    Check,
    CheckLevel,
    HeldOutPairs,
    LengthBias,
    Level,
    OpenerBias,
    PairsRead,
    RankAgreement,
    ReliabilityBin,
    RewardTraining,
    Separation,
)

__all__ = [
    "AnalysedModel",
    "Audit",
    "AuditedModel",
    "AuditedView",
    "Benchmark",
    "BenchmarkData",
    "Check",
    "CheckLevel",
    "Difference",
    "EvaluatedAdapter",
    "Evaluation",
    "Forking",
    "ForkingThreshold",
    "HeldOutPairs",
    "JudgeCalibration",
    "KnowledgeDifference",
    "LengthBias",
    "Level",
    "Memorization",
    "MemorizationCell",
    "Metric",
    "Model",
    "OpenerBias",
    "PairsRead",
    "RankAgreement",
    "ReadingDifference",
    "Reflection",
    "ReflectionCell",
    "ReflectionTokens",
    "ReliabilityBin",
    "Results",
    "RewardTraining",
    "Separation",
    "SupervisedData",
    "as_json",
    "known",
]
