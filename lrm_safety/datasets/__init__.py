"""Prompts and supervised rows: checked and fingerprinted on loading, drawn in a seeded order that resumes exactly."""
