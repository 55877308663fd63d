"""Benchmarks: one module each, with its questions and its Inspect task."""
