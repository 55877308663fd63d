"""Graders of reasoning: mathematics and multiple choice."""
