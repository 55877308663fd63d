"""Speed and memory of lrm_safety, each figure a ratio to a plain loop that does the same work: `python -m benchmarks`."""
