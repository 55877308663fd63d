"""Rewards: what is scored, by which models, and how their scores become one number for each response."""
