"""What is known of GPUs by their name, and what this machine's driver says of its own, without a CUDA context."""

from __future__ import annotations

import re
import subprocess

PEAK_TFLOPS = {
    "B200": 2250.0,
    "GB200": 2500.0,
    "H200 NVL": 835.5,
    "H200": 989.0,
    "GH200": 989.0,
    "H100 NVL": 835.5,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "H800 PCIe": 756.0,
    "H800": 989.0,
    "H20": 148.0,
    "A100": 312.0,
    "A800": 312.0,
    "L40S": 362.05,
    "L40": 181.05,
    "L4": 121.0,
    "A40": 149.7,
    "A30": 165.0,
    "A10": 125.0,
    "RTX A6000": 154.8,
    "RTX 6000 Ada": 364.2,
    "RTX 4090": 165.2,
    "RTX 3090": 71.0,
}
"""TFLOP/s in bfloat16, dense, accumulated in float32, at boost clocks: NVIDIA's data sheets and architecture white papers, half of
what they state with sparsity. H20: as SGLang and verl state it. The first name that stands in the card's is taken."""


def peak_flops(card: str) -> float | None:
    """Operations a second of a card by the name that its driver has for it, e.g. `NVIDIA H100 80GB HBM3`; None: not known."""
    for name, tflops in PEAK_TFLOPS.items():
        if re.search(rf"(?<![A-Za-z0-9]){name}(?![A-Za-z0-9])", card):
            return tflops * 1e12
    return None


def ask_driver(field: str) -> list[str]:
    """What `nvidia-smi` says of every GPU of this machine; empty where there is none. CUDA itself is not asked: that would take
    some of the memory."""
    query = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.splitlines() if line.strip()]


def this_card() -> str | None:
    """The name of this machine's GPUs; None where it has none, or several kinds."""
    names = set(ask_driver("name"))
    return names.pop() if len(names) == 1 else None
