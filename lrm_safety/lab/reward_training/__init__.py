"""Reward models trained on pairs of responses (Bradley-Terry)."""
