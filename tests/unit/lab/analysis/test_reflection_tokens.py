import pytest

from lrm_safety.conversation.response import reflection_token_ids
from lrm_safety.errors import ConfigError, DataError
from lrm_safety.lab.analysis.reflection import PRESETS, find_reflection_tokens
from lrm_safety.modeling.configuration import load_tokenizer


@pytest.fixture
def tokenizer(policy_settings):
    return load_tokenizer(policy_settings)


def test_the_preset_is_what_training_logs(tokenizer):
    found = find_reflection_tokens(tokenizer, "cyclic_reflex")
    assert found.words == ("wait", "Wait", "but", "But", "Alternatively")
    assert set(found.ids.values()) == reflection_token_ids(tokenizer)
    # Every id is a whole word, and every word that has one is told.
    assert {tokenizer.decode([token]).strip() for token in found.ids.values()} == {"Wait", "But"}
    assert found.words_without_token == ("wait", "but", "Alternatively")


def test_extended_holds_more(tokenizer):
    assert set(PRESETS["extended"]) > set(PRESETS["cyclic_reflex"])
    assert {"Hmm", "However", "Yet", "Still", "Nevertheless", "Though"} <= set(PRESETS["extended"])
    assert len(set(PRESETS["extended"])) == len(PRESETS["extended"])


def test_own_words_replace_the_preset(tokenizer):
    found = find_reflection_tokens(tokenizer, "cyclic_reflex", [" Wait", "Wait"])
    assert (found.preset, found.words, list(found.ids)) == ("own", ("Wait",), ["ĠWait"])


@pytest.mark.parametrize(
    ("preset", "own", "error", "said"),
    [
        ("mine", [], ConfigError, "analysis.reflection.preset=mine"),
        ("cyclic_reflex", ["Wait", " "], ConfigError, "analysis.reflection.words"),
        ("cyclic_reflex", ["zyxwvut"], DataError, "none of zyxwvut is a single token"),
    ],
)
def test_refusals(tokenizer, preset, own, error, said):
    with pytest.raises(error, match=said):
        find_reflection_tokens(tokenizer, preset, own)
