"""What `lrm-safety submit` refuses before it asks the cluster, and what it leaves to the job; real jobs are in test_ray_job.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lrm_safety.commands import jobs as commands
from lrm_safety.errors import ClusterError, ConfigError
from lrm_safety.launching import plan_job


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train", "experiment=miniature", "trainer.warmth=1"], "unknown key trainer.warmth"),
        (["train", "-m", "experiment=miniature", "seed=1,2", "trainer.lr=-1"], "trainer.lr=-1: must be at least 0"),
        (["train", "-m", "experiment=miniature", "model=glob(no*)"], "fits none of"),
        (["evaluate", "model=nothing", "evaluation=miniature"], "no file conf/model/nothing.yaml"),
        (["train", "experiment=miniature", "run.directory=outputs/mine"], "run.directory=outputs/mine: is relative"),
        (["train", "experiment=a b", "--cfg", "job"], "without submit: `lrm-safety train 'experiment=a b' --cfg job`"),
        (["evaluate", "-c=job"], "submit: -c only shows something"),
        (["sft", "--info"], "submit: --info only shows something"),
        (["train", "--hydra-help"], "submit: --hydra-help only shows something"),
        (["train", "--help"], "submit: --help only shows something"),
        (
            ["train", "experiment=miniature", "--no-wait"],
            "before the command: `lrm-safety submit --no-wait ... -- train ...`",
        ),
        (["train", "--name=mine"], "submit: --name is an option of submit, which stands before the command"),
        (["export", "mine", "--env", "A=1"], "submit: --env is an option of submit, which stands before the command"),
    ],
)
def test_what_a_job_would_refuse_is_refused_before_it_is_sent(
    repository_root: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], told: str
) -> None:
    monkeypatch.chdir(repository_root)
    monkeypatch.setattr(commands, "connect", lambda address: pytest.fail("asked the cluster"))
    with pytest.raises(ConfigError, match=re.escape(told)):
        commands.submit(["--", *words])


@pytest.mark.parametrize(
    "words",
    [
        ["train", "experiment=miniature", "data.path=${oc.env:ONLY_ON_THE_NODES}"],
        ["train", "experiment=miniature", "run.directory=${oc.env:ONLY_ON_THE_NODES}/mine"],
        ["train", "experiment=miniature", "model.family=only_on_the_nodes:FAMILY"],
        ["train", "experiment=miniature", "run.name=mine"],  # below LRM_SAFETY_RUNS, which the nodes may have
        ["train", "--config-dir", "/only/on/the/nodes", "experiment=mine"],
        ["train", "hydra.searchpath=[file:///only/on/the/nodes]", "experiment=mine"],
        ["train", "experiment=miniature", "algorithm.baseline=installed_on_the_nodes"],
        ["export", "/runs/mine"],
        ["jobs", "stop", "--no-wait", "mine"],
        ["help"],
    ],
)
def test_what_only_the_nodes_know_is_left_to_them(
    repository_root: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    def reached(address: str | None) -> None:
        raise ClusterError("was asked")

    monkeypatch.chdir(repository_root)
    monkeypatch.setattr(commands, "connect", reached)
    with pytest.raises(ClusterError, match="was asked"):
        commands.submit(["--", *words])


@pytest.mark.parametrize(
    ("here", "options"),
    [
        ("/only/on/the/nodes", []),
        (None, ["--env", "LRM_SAFETY_CONF=/only/on/the/nodes"]),
        ("conf", ["--env", "LRM_SAFETY_CONF=/"]),
    ],
)
def test_what_other_folders_of_configuration_hold_is_left_to_the_job(
    repository_root: Path, monkeypatch: pytest.MonkeyPatch, here: str | None, options: list[str]
) -> None:
    def reached(address: str | None) -> None:
        raise ClusterError("was asked")

    monkeypatch.chdir(repository_root)
    monkeypatch.setattr(commands, "connect", reached)
    if here is not None:
        monkeypatch.setenv("LRM_SAFETY_CONF", here)
    with pytest.raises(ClusterError, match="was asked"):
        commands.submit([*options, "--", "train", "experiment=mine"])


def test_the_users_groups_that_are_here_are_read_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LRM_SAFETY_CONF", "mine")
    job = plan_job("train", [], {"LRM_SAFETY_CONF": "mine"}, tmp_path)
    with pytest.raises(ConfigError, match=r"no file conf/experiment/absent\.yaml"):
        commands._refuse_early("train", ["experiment=absent"], job)


def test_other_code_that_is_sent_judges_its_own_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lrm_safety").mkdir()
    monkeypatch.chdir(tmp_path)
    commands._refuse_early("train", ["its.own.key=1"], plan_job("train", [], {}, tmp_path))
    (tmp_path / "lrm_safety").rmdir()
    with pytest.raises(ConfigError, match=r"unknown key its"):
        commands._refuse_early("train", ["experiment=miniature", "its.own.key=1"], plan_job("train", [], {}, tmp_path))
