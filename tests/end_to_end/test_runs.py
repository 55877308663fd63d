"""What finished runs leave: sweeps, W&B files, exports, the demo, a real model."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from conftest import Sweep
from running import Command, checkpoints, metric_lines
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import lrm_safety

pytestmark = pytest.mark.timeout(900)

ASSETS = Path(lrm_safety.__file__).parent / "miniature" / "assets"
