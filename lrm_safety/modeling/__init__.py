"""Models as the workers need them: loading, packing, per-token log-probs, ZeRO-3 engines, export."""
