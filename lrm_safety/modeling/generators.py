"""States of the random number generators of a process, saved so that a resumed run draws what the first would have."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch


def save_generators(file: Path) -> None:
    """Write the states of torch (CPU, CUDA), numpy and Python as tensors and numbers, readable with weights_only."""
    numpy_state = np.random.get_state(legacy=False)
    states = {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "numpy_key": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
        "numpy_position": int(numpy_state["state"]["pos"]),
        "numpy_gauss": (int(numpy_state["has_gauss"]), float(numpy_state["gauss"])),
        "python": random.getstate(),
    }
    torch.save(states, file)


def load_generators(file: Path) -> None:
    """Set the generators to what `save_generators` wrote."""
    states = torch.load(file, weights_only=True)
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
    key = states["numpy_key"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", key, states["numpy_position"], *states["numpy_gauss"]))
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
