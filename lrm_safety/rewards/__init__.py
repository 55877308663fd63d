"""Rewards: what is scored, by which models, and how their scores become one number for each response."""

from .check import check_reward
from .conversation import VIEWS, Conversation, View
from .mixture import PrefixScores, RewardMixture, Scores, build_scorer
from .scorer import ScoreArray, Scorer, checked_scores

__all__ = [
    "VIEWS",
    "Conversation",
    "PrefixScores",
    "RewardMixture",
    "ScoreArray",
    "Scorer",
    "Scores",
    "View",
    "build_scorer",
    "check_reward",
    "checked_scores",
]
