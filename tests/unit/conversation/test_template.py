"""Chat templates: one date, one line for whatever fails, and text that stays text."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

import lrm_safety
from lrm_safety.conversation.families import PromptRenderer, get_family
from lrm_safety.conversation.template import ControlTokens
from lrm_safety.datasets.prompts import PromptRow, PromptSet, render_prompts
from lrm_safety.datasets.serialised import Source
from lrm_safety.errors import ConfigError, LrmSafetyError, ModelError
from lrm_safety.evaluation.judges.guard import GuardPrompts
from lrm_safety.rewards.rendering import Renderer

ASSETS = Path(lrm_safety.__file__).parent / "miniature/assets"
FAMILY = get_family("miniature")
TOKENIZER = AutoTokenizer.from_pretrained(ASSETS / "policy")
TOKENS = ["<|end|>", "<|user|>", "<|assistant|>", "<think>", "</think>"]


def loaded(folder: Path, template: str | None, named: str | None = None) -> PreTrainedTokenizerBase:
    """The miniature policy's tokenizer, from a folder with these templates."""
    shutil.copytree(ASSETS / "policy", folder)
    if named is not None:
        (folder / "additional_chat_templates").mkdir()
        (folder / f"additional_chat_templates/{named}.jinja").write_text("x")
    if template is None:
        (folder / "chat_template.jinja").unlink()
    else:
        (folder / "chat_template.jinja").write_text(template)
    return AutoTokenizer.from_pretrained(folder)


@given(st.lists(st.one_of(st.sampled_from(TOKENS), st.text("<|>/ enduthik", max_size=6)), max_size=8).map("".join))
def test_no_text_holds_a_control_token_once_broken(text: str) -> None:
    controls = ControlTokens(TOKENIZER, tags=True)
    broken, found = controls.break_up(text)
    ids = TOKENIZER(broken, add_special_tokens=False)["input_ids"]
    assert not set(ids) & set(TOKENIZER.convert_tokens_to_ids(TOKENS))
    assert broken.replace(" ", "") == text.replace(" ", "") and (broken == text) == (not found)


def test_tokens_that_overlap_are_all_broken(new_overlapping: PreTrainedTokenizerBase) -> None:
    controls = ControlTokens(new_overlapping, tags=False)
    assert controls.break_up("xabcx") == ("xa b cx", ["ab", "bc"])
    assert controls.read_as("a b c") == [] and controls.read_as("abc") != []


@pytest.fixture
def new_overlapping() -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(ASSETS / "policy")
    tokenizer.add_special_tokens({"additional_special_tokens": ["ab", "bc"]})
    return tokenizer


FAILING: dict[str, dict[str, Any]] = {
    "no default template": {"template": None, "named": "tool_use"},
    "a syntax error": {"template": "{% for m in messages %}{{ m.content }"},
    "an exception of its own": {"template": "{{ raise_exception('no such turn') }}"},
    "a function that is not there": {"template": "{{ messages[0].content | no_such_filter }}"},
    "an operation that fails": {"template": "{{ messages[0].content + 1 }}"},
    "an attribute of nothing": {"template": "{{ nothing.at.all }}"},
}


@pytest.mark.parametrize("fault", FAILING)
def test_a_template_that_fails_is_one_line_that_names_its_folder(fault: str, tmp_path: Path) -> None:
    tokenizer = loaded(tmp_path / "model", **FAILING[fault])
    rows = PromptSet((PromptRow(0, "0", "hi", (), {}),), "fingerprint", Source("a.json"))
    readers = {
        "policy": lambda: PromptRenderer(FAMILY, tokenizer),
        "prompts": lambda: render_prompts(rows, FAMILY, tokenizer, system_prompt=None, max_prompt_tokens=9),
        "reward": lambda: Renderer(tokenizer, f"reward.models.m.path={tmp_path}/model"),
        "guard": lambda: GuardPrompts(tokenizer, f"evaluation.judges.g.path={tmp_path}/model"),
    }
    for name, read in readers.items():
        with pytest.raises(LrmSafetyError, match="chat template") as refused:
            read()
        assert f"path={tmp_path}/model" in str(refused.value) and "\n" not in str(refused.value), name


def test_a_system_prompt_that_the_template_refuses_or_leaves_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^model\.system_prompt: give none .*knows user and assistant turns only"):
        PromptRenderer(FAMILY, TOKENIZER, "You are safe.")
    deaf = loaded(tmp_path / "deaf", "{{ '<|user|>' + messages[-1].content }}<|assistant|><think>\n")
    PromptRenderer(FAMILY, deaf)
    with pytest.raises(ConfigError, match=r"^model\.system_prompt: .*leaves it out"):
        PromptRenderer(FAMILY, deaf, "You are safe.")


def test_a_template_that_leaves_out_the_question(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="leaves out the question"):
        PromptRenderer(FAMILY, loaded(tmp_path / "model", "<|user|>{{ messages[0].text }}<|assistant|><think>\n"))


DATED = "{{- '<|user|>Date: ' + strftime_now('%d %b %Y') + '. ' -}}"
TOLD = "{{- '<|user|>Date: ' + date_string + '. ' -}}"


@pytest.mark.parametrize(("beginning", "warned"), [(DATED, True), (TOLD, False)])
def test_the_date_is_fixed_and_a_clock_is_reported(
    beginning: str, warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = (ASSETS / "policy/chat_template.jinja").read_text()
    tokenizer = loaded(tmp_path / "model", beginning + own)
    rows = PromptSet((PromptRow(0, "0", "hi", (), {}),), "fingerprint", Source("a.json"))
    with caplog.at_level(logging.WARNING):
        _, (ids,) = render_prompts(rows, FAMILY, tokenizer, system_prompt=None, max_prompt_tokens=99)
    assert tokenizer.decode(ids).startswith("<|user|>Date: 26 Jul 2024. <|user|>hi")
    assert ("writes today's date" in caplog.text) == warned
    reward = Renderer(tokenizer, "reward")
    assert "26 Jul 2024" in tokenizer.decode(reward.render("q", "r").ids)
