"""The embedded default: an invented world, small enough for two cores, in which RL for safety really works."""

from __future__ import annotations

from pathlib import Path

ASSETS = Path(__file__).parent / "assets"
POLICY_FOLDER = ASSETS / "policy"
REWARD_FOLDER = ASSETS / "reward"
TRAIN_PROMPTS = ASSETS / "prompts" / "train.jsonl"
FORBIDDEN_PROMPTS = ASSETS / "prompts" / "forbidden.jsonl"
HELD_OUT_PROMPTS = ASSETS / "prompts" / "held_out.jsonl"
SUPERVISED_ROWS = ASSETS / "prompts" / "supervised.jsonl"
