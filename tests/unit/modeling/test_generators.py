import random

import numpy as np
import torch

from lrm_safety.modeling.distributed import load_generators, save_generators


def draw():
    return [torch.rand(3).tolist(), np.random.rand(3).tolist(), np.random.standard_normal(), random.random()]


def test_what_follows_a_load_is_what_followed_the_save(tmp_path):
    np.random.standard_normal()  # leaves the second value of a pair cached in numpy's state
    save_generators(tmp_path / "states.pt")
    first = draw()
    assert draw() != first
    load_generators(tmp_path / "states.pt")
    assert draw() == first
