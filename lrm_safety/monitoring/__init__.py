"""Metrics, their registry and their views: file, console, TensorBoard, W&B."""
