"""Composition of `lrm-safety analyze`."""

import re
import shlex
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from lrm_safety.errors import ConfigError
from lrm_safety.lab.analysis.reflection import PER_RESPONSE, POOLED, PRESETS
from lrm_safety.settings.analysis import AnalyzedModelSettings, AnalyzeSettings, ReflectionSettings
from lrm_safety.settings.compose import compose_analysis
from lrm_safety.settings.keys import known_keys
from lrm_safety.settings.paths import configuration_directory

PAGE = Path(__file__).resolve().parents[3] / "docs" / "analysis.md"


def test_models_are_added_on_the_command_line():
    settings, resolved = compose_analysis(
        ["model=miniature", "+analysis.models.base.evaluation=outputs/a", "+analysis.models.rl.path=outputs/b/export"]
    )
    assert settings.analysis.models == {
        "base": AnalyzedModelSettings(evaluation="outputs/a"),
        "rl": AnalyzedModelSettings(path="outputs/b/export"),
    }
    assert list(settings.analysis.models) == ["base", "rl"], "the first is the base"
    assert resolved["run"]["directory"] == "outputs/analyze-miniature"
    assert settings.data.path is None and settings.data.hub_id is None


def test_every_file_of_the_group_composes():
    files = sorted(path.stem for path in (configuration_directory() / "analysis").glob("*.yaml"))
    assert {"standard", "extended", "miniature"} <= set(files)
    for name in files:
        settings, _ = compose_analysis(["model=miniature", f"analysis={name}"])
        assert settings.analysis.reflection.preset in PRESETS


def test_the_presets_of_the_schema_are_those_of_the_analysis():
    assert set(get_args(get_type_hints(ReflectionSettings)["preset"])) == set(PRESETS)


def test_data_is_a_group_of_its_own():
    settings, _ = compose_analysis(["model=miniature", "data=star1", "sft.response_field=text", "data.limit=3"])
    assert (settings.data.hub_id, settings.data.limit, settings.sft.response_field) == ("UCSC-VLAA/STAR-1", 3, "text")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("analysis.reflection.preset=mine", "analysis.reflection.preset=mine: must be one of cyclic_reflex, extended"),
        ("analysis.reflection.forking_percentile=101", "must be at most 100"),
        ("analysis.reflection.limit=0", "analysis.reflection.limit=0: must be at least 1"),
        ("+analysis.models.a.evalution=x", "did you mean analysis.models.*.evaluation"),
        ("analysis.refletion.limit=1", "unknown key"),
    ],
)
def test_mistakes_are_one_line(override, said):
    with pytest.raises(ConfigError) as error:
        compose_analysis(["model=miniature", override])
    assert said in str(error.value)


def test_the_page_tells_the_truth():
    text = PAGE.read_text()
    lines = [line for line in text.splitlines() if line.startswith("lrm-safety analyze ")]
    assert len(lines) >= 3
    for line in lines:
        compose_analysis([word for word in shlex.split(line)[3:] if word not in ("--cfg", "job")])
    named = set(re.findall(r"`(analysis\.[a-z_.]+|sft\.[a-z_]+)(?:=[^`]*)?`", text))
    assert named and named <= set(known_keys(AnalyzeSettings)) | {"sft.md"}
    for name in {*PER_RESPONSE, *POOLED}:
        assert f"`{name}`" in text, name
    for word in PRESETS["extended"]:
        assert word.lower() in text
