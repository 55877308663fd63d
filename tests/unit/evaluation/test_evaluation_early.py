"""Mistakes that are told before torch is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lrm_safety.errors import ConfigError, DataError
from lrm_safety.evaluation.plan import check_early
from lrm_safety.settings.compose import compose_evaluation

COMMAND = """
import sys
from lrm_safety.cli import main
status = main(sys.argv[1:])
print(status, [name for name in ("torch", "transformers", "vllm", "ray", "datasets") if name in sys.modules])
"""


def evaluation_of(*overrides: str):
    return compose_evaluation(["model=miniature", *overrides])[0].evaluation


@pytest.mark.parametrize(
    ("overrides", "error", "told"),
    [
        (
            ["evaluation=xstest", "judge=[attaq_reward]"],
            ConfigError,
            "xstest measures refusals .*judge=\\[attaq_reward,ref",
        ),
        (["evaluation=attaq", "judge=[air_bench_llm]"], ConfigError, "api_key_env=OPENAI_API_KEY: .*not set"),
        (
            ["evaluation=attaq", "judge=[llama_guard_3]", "evaluation.judges.llama_guard_3.path=my/model"],
            ConfigError,
            "judges.llama_guard_3.path=my/model: does not tell its family",
        ),
        (
            ["evaluation=attaq", "+evaluation.judges.mine={kind: python, arguments: {function: 'absent:f'}}"],
            ConfigError,
            "function=absent:f: cannot import",
        ),
        (["evaluation=attaq", "+evaluation.benchmarks.attaq.arguments.data=absent.csv"], DataError, "absent.csv"),
        (["evaluation=attaq", "+evaluation.benchmarks.attaq.arguments.sub=x"], ConfigError, "unknown option of attaq"),
    ],
)
def test_what_is_told_early(
    overrides: list[str], error: type[Exception], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "attaq"
    folder.mkdir()
    (folder / "attaq_dataset.csv").write_text("input,label\nhow,violence\n")
    (tmp_path / "xstest").mkdir()
    (tmp_path / "xstest" / "xstest_prompts.csv").write_text("prompt,type,label\nhow,homonyms,safe\n")
    monkeypatch.setenv("LRM_SAFETY_DATA", str(tmp_path))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(error, match=told) as refused:
        check_early(evaluation_of(*overrides))
    assert "\n" not in str(refused.value)


def test_a_guard_has_no_room_in_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = evaluation_of("evaluation=long_tail", "judge=[qwen3guard]")
    check_early(settings)
    with pytest.raises(ConfigError, match=r"judges\.qwen3guard\.kind=guard: needs an engine of its own"):
        check_early(settings, in_training=True)


def test_a_name_that_is_chosen_twice() -> None:
    for given in ("evaluation=[attaq,attaq]", "judge=[refusal_rules,miniature,refusal_rules]"):
        with pytest.raises(ConfigError, match=r"^(evaluation|judge): names (attaq|refusal_rules) twice"):
            evaluation_of("evaluation=attaq", given)


def test_nothing_heavy_is_imported_for_a_mistake(tmp_path: Path) -> None:
    environment = {**os.environ, "LRM_SAFETY_DATA": str(tmp_path)}
    arguments = ["evaluate", "model=miniature", "evaluation=harmbench", f"run.directory={tmp_path / 'run'}"]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.stdout.strip() == "1 []" and "harmbench_behaviors_text_all.csv" in done.stderr
