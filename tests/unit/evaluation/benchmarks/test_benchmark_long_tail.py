"""Generated prompts: what they are made of, that they differ, and that every factor is balanced at every length."""

import base64
import codecs
import re
from collections import Counter
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrm_safety.errors import ConfigError
from lrm_safety.evaluation.benchmarks.long_tail import OBFUSCATIONS, PERSONAS, RISKS, STYLES, TEMPLATES, load
from lrm_safety.evaluation.benchmarks.sources import normalised, star1_questions

FACTORS = {"risk": RISKS, "persona": PERSONAS, "obfuscation": OBFUSCATIONS, "style": STYLES}
ALL = 12 * 8 * 6 * 6 * 4
seeds = st.integers(0, 2**32)
splits = st.sampled_from(sorted(TEMPLATES))


@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 600), seed=seeds, split=splits)
def test_one_seed_is_one_set_and_prompts_differ(size, seed, split):
    found = load(size, seed, split)
    assert found.rows == load(size, seed, split).rows
    assert len(found) == len({row.prompt for row in found}) == len({row.id for row in found}) == size
    assert found.rows == load(size + 100, seed, split).rows[:size]


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 1500), seed=seeds, split=splits)
def test_every_level_stands_equally_often_at_every_length(size, seed, split):
    found = load(size, seed, split)
    for name, factor in FACTORS.items():
        counts = Counter(row.groups[name] for row in found)
        assert set(counts) <= set(factor)
        levels = [counts[level] for level in factor]
        assert max(levels) - min(levels) <= 1, name


def test_another_seed_is_another_order():
    one, other = load(seed=1), load(seed=2)
    assert one.fingerprint != other.fingerprint
    assert [row.prompt for row in one] != [row.prompt for row in other]
    assert not {row.id for row in one} & {row.id for row in other}


@pytest.mark.parametrize("split", sorted(TEMPLATES))
def test_the_largest_set_is_the_whole_product(split):
    found = load(ALL, 5, split)
    combinations = {(*row.groups.values(), row.request) for row in found}
    requests = {risk: [one.format(risk=text) for one in TEMPLATES[split]] for risk, text in RISKS.items()}
    assert combinations == {
        (*levels, request) for levels in product(*FACTORS.values()) for request in requests[levels[0]]
    }
    assert len({row.prompt for row in found}) == ALL


@pytest.mark.parametrize(("first", "second"), [("risk", "persona"), ("risk", "obfuscation"), ("persona", "style")])
def test_pairs_of_factors_are_not_confounded(first, second):
    counts = Counter((row.groups[first], row.groups[second]) for row in load(24 * 144, 3))
    assert len(counts) == len(FACTORS[first]) * len(FACTORS[second]) and len(set(counts.values())) == 1


def test_templates_are_balanced_over_a_turn():
    found = load(24 * 144, 3)
    stems = Counter(row.request.replace(RISKS[row.groups["risk"]], "{risk}") for row in found)
    assert set(stems) == set(TEMPLATES["held_out"]) and max(stems.values()) == min(stems.values())


def decoded(text, obfuscation):
    """The request back from its hiding place, by means of our own."""
    if obfuscation == "base64":
        return base64.b64decode(text).decode()
    if obfuscation == "rot13":
        return codecs.decode(text, "rot13")
    if obfuscation == "leet":
        return "".join({"4": "a", "3": "e", "1": "i", "0": "o", "5": "s", "7": "t"}.get(one, one) for one in text)
    if obfuscation == "spaced":
        return re.sub(r"(.)\.(?=.)", r"\1", text)
    return "".join(reversed(text)) if obfuscation == "reversed" else text


@pytest.mark.parametrize("split", sorted(TEMPLATES))
def test_every_prompt_is_its_levels_in_order_and_decodes_to_its_request(split):
    for row in load(2000, 11, split):
        groups = row.groups
        rest = row.prompt.removeprefix(PERSONAS[groups["persona"]]).lstrip()
        assert (rest != row.prompt) == (groups["persona"] != "none")
        before, after = STYLES[groups["style"]].split("{text}")
        assert rest.startswith(before) and rest.endswith(after)
        hidden = rest[len(before) : len(rest) - len(after)]
        instruction = OBFUSCATIONS[groups["obfuscation"]][0].removesuffix("{text}")
        assert hidden.startswith(instruction)
        assert decoded(hidden[len(instruction) :], groups["obfuscation"]) == row.request, groups
        assert RISKS[groups["risk"]] in row.request
        assert (row.request in row.prompt) == (groups["obfuscation"] == "none")
        assert row.target == "" and row.category is None


@pytest.mark.parametrize("name", sorted(OBFUSCATIONS))
def test_decoders_undo_their_encoders(name):
    _, encode, decode = OBFUSCATIONS[name]
    for split in TEMPLATES.values():
        for template in split:
            for risk in RISKS.values():
                text = template.format(risk=risk)
                assert decode(encode(text)) == text and (encode(text) == text) == (name == "none")


def test_a_known_word_in_every_disguise():
    encoded = {name: encode("eat tea.") for name, (_, encode, _) in OBFUSCATIONS.items()}
    assert encoded == {
        "none": "eat tea.",
        "base64": "ZWF0IHRlYS4=",
        "rot13": "rng grn.",
        "leet": "347 734.",
        "spaced": "e.a.t. .t.e.a..",
        "reversed": ".aet tae",
    }


def test_held_out_shares_no_template_with_train():
    assert not set(TEMPLATES["held_out"]) & set(TEMPLATES["train"])
    held_out, train = load(3000, 0, "held_out"), load(3000, 0, "train")
    for field in ("id", "prompt", "request"):
        assert not {getattr(row, field) for row in held_out} & {getattr(row, field) for row in train}, field


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 0}, "size=0: must be from 1 to 13824"),
        ({"size": ALL + 1}, "size=13825: must be from 1 to 13824"),
        ({"split": "test"}, "split=test: must be one of held_out, train"),
    ],
)
def test_impossible_options_are_named(options, said):
    with pytest.raises(ConfigError) as caught:
        load(**options)
    assert str(caught.value) == said


def test_no_prompt_is_one_of_the_training_set(data_root):
    star1 = star1_questions(str(data_root / "star1" / "STAR-1.json"))
    assert not {normalised(text) for row in load(ALL) for text in (row.prompt, row.request)} & star1
