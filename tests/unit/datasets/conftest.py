"""The conversation tests' tokenizers, which carry each family's real chat template."""

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[1] / "conversation" / "conftest.py"


@pytest.fixture(scope="session")
def tokenizer_of():
    spec = importlib.util.spec_from_file_location("conversation_tokenizers", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    built = {}

    def get(family):
        if family not in built:
            built[family] = module.build_tokenizer(family)
        return built[family]

    return get
