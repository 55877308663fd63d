"""Every configured command is Hydra's: its flags, folders of the user's, sweeps and launchers, over one composition."""

from __future__ import annotations

import logging
import os
import pickle
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, run_job
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from lrm_safety.cli import main
from lrm_safety.commands.launch import Task, launch
from lrm_safety.errors import ConfigError
from lrm_safety.run_folder import RunFolder
from lrm_safety.settings.compose import ROOTS, TRAIN, Root, sweep
from lrm_safety.usage import COMMANDS, Later

CONFIGURED = {name: command for name, command in COMMANDS.items() if command.root is not None}
ADDED = {
    "train": [
        "+reward.models.mine.kind=python",
        "+reward.models.mine.function=a.b:c",
        "+evaluation.judges.j.kind=python",
        "+evaluation.judges.j.arguments.function=a.b:c",
    ],
    "evaluate": [
        "+evaluation.benchmarks.mine.task=custom",
        "+evaluation.benchmarks.mine.arguments.path=here",
        "+evaluation.judges.mine.kind=python",
        "+evaluation.judges.mine.arguments.function=a.b:c",
    ],
    "audit-reward": ["+reward.models.mine.kind=python", "+reward.models.mine.function=a.b:c"],
    "analyze reflection": ["+analysis.models.mine.path=here"],
}
"""Members of dictionaries as the command line adds them."""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    before = logging.getLogger().handlers[:], logging.getLogger().level
    yield
    logging.getLogger().handlers[:], logging.getLogger().level = before


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """What `--cfg job` prints."""
    status = main([*arguments, "--cfg", "job"])
    captured = capsys.readouterr()
    assert status == 0 and not captured.err, captured.err
    return yaml.safe_load(captured.out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a refused command prints."""
    assert main(list(arguments)) == 1
    captured = capsys.readouterr()
    assert not captured.out and captured.err.count("\n") == 1
    return captured.err.removeprefix("error: ").rstrip()


class Recorder:
    """Stands in for a command's run."""

    def __init__(self) -> None:
        self.settings: list[Any] = []
        self.folders: list[str] = []

    def __call__(self, settings: Any, resolved: dict[str, Any], folder: RunFolder) -> None:
        self.settings.append(settings)
        self.folders.append(str(folder.path))
        assert resolved["run"]["directory"] == settings.run.directory == str(folder.path)


@pytest.mark.parametrize("name", ADDED)
def test_a_member_is_added_on_the_command_line_of_every_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = ROOTS[str(COMMANDS[name].root)]
    printed = shown(capsys, *name.split(), *root.choices, *ADDED[name])
    for override in ADDED[name]:
        key, value = override.removeprefix("+").split("=")
        node = printed
        for part in key.split("."):
            node = node[part]
        assert node == value


def test_what_was_checked_is_what_runs() -> None:
    record = Recorder()
    added = [*ADDED["train"], "+reward.models.mine.weight=0.25", "reward.models.miniature.weight=0.75"]
    assert launch(TRAIN, record, [*TRAIN.choices, *added]) == 0
    (settings,) = record.settings
    assert settings.reward.models["mine"].function == "a.b:c" and settings.reward.models["mine"].weight == 0.25
    assert settings == TRAIN.compose([*TRAIN.choices, *added])[0]
    record = Recorder()
    assert launch(TRAIN, record, ["-m", *TRAIN.choices, *ADDED["train"], "+reward.models.mine.weight=0.25,0.5"]) == 0
    assert [one.reward.models["mine"].weight for one in record.settings] == [0.25, 0.5]
    assert [Path(one).name for one in record.folders] == [f"+reward.models.mine.weight-{w}" for w in (0.25, 0.5)]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of groups of the user's own."""
    folder = tmp_path / "my_conf"
    for file, text in {
        "data/mine.yaml": "name: mine\npath: mine.jsonl\n",
        "experiment/of_mine.yaml": "# @package _global_\ndefaults: [miniature, override /data: mine]\nseed: 5\n",
        "evaluation/mine.yaml": "benchmarks: {mine: {task: custom, arguments: {path: p.jsonl, grader: 'g:grade'}}}\n",
        "judge/mine.yaml": "# @package evaluation.judges\nmine: {kind: python, arguments: {function: 'no_such:f'}}\n",
        "study/mine.yaml": "# @package _global_\ndefaults: [miniature]\nseeds: [9]\n",
    }.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text)
    return folder


@pytest.mark.parametrize("way", ["--config-dir", "--config-dir=", "hydra.searchpath", "LRM_SAFETY_CONF"])
def test_groups_of_a_folder_of_the_users(
    way: str, mine: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    named = {
        "--config-dir": ["--config-dir", "my_conf"],
        "--config-dir=": ["--config-dir=my_conf"],
        "hydra.searchpath": [f"hydra.searchpath=[file://{mine}]"],
    }.get(way, [])
    if not named:
        monkeypatch.setenv("LRM_SAFETY_CONF", f"{mine}{os.pathsep}{mine}")
    assert shown(capsys, "train", "experiment=miniature", "data=mine", *named)["data"]["path"] == "mine.jsonl"
    assert shown(capsys, "train", *named, "experiment=of_mine")["seed"] == 5
    evaluated = shown(capsys, "evaluate", "model=miniature", "evaluation=mine", *named)
    assert list(evaluated["evaluation"]["benchmarks"]) == ["mine"]
    assert shown(capsys, "study", "study=mine", *named)["seeds"] == [9]
    assert main(["study", "--steps", "study=mine", "overrides.rl=['experiment=of_mine']", *named]) == 0
    steps = [shlex.split(line)[1:] for line in capsys.readouterr().out.splitlines()]
    assert any("seed-9" in word for step in steps for word in step)
    (trained,) = [step[1:] for step in steps if step[0] == "train"]
    assert TRAIN.compose(trained)[0].data.path == "mine.jsonl", "as the step itself composes, in another process"
    Path("mine.jsonl").write_text('{"question": "what?"}\n')
    assert main(["fetch", "mine", *named]) == 0
    assert "data=mine: 1 rows of " in capsys.readouterr().out
    assert main(["evaluate", "calibrate", "judge=[mine]", *named]) == 1
    assert "evaluation.judges.mine.function=no_such:f: cannot import" in capsys.readouterr().err
    record = Recorder()
    assert launch(TRAIN, record, ["-m", *named, "experiment=of_mine", "data=mine,miniature"]) == 0
    assert [one.data.name for one in record.settings] == ["mine", "miniature"]
    record = Recorder()
    assert launch(TRAIN, record, ["-m", *named, "experiment=miniature", "data=glob(mi*,exclude=*_supervised)"]) == 0
    assert [one.data.name for one in record.settings] == ["mine", "miniature"]


def test_mistakes_with_own_folders_are_one_line(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = ["--config-dir", str(mine)]
    assert "did you mean mine? (available: mine, miniature" in refused(
        capsys, "train", *own, *TRAIN.choices, "data=minee"
    )
    assert refused(capsys, "train", *TRAIN.choices, "hydra.searchpath=[file:///gone]").startswith(
        "hydra.searchpath: file:///gone"
    )
    (mine / "data" / "star1.yaml").write_text("name: other\n")
    line = refused(capsys, "train", *own, *TRAIN.choices, "data=star1")
    assert "data/star1.yaml: conf/ has a file of this name" in line


@pytest.mark.parametrize(
    ("name", "overrides", "folders"),
    [
        (
            "evaluate",
            ["model=miniature,smollm2_135m", "evaluation=miniature"],
            ["outputs/sweep/model-miniature", "outputs/sweep/model-smollm2_135m"],
        ),
        (
            "evaluate",
            ["model=miniature", "evaluation=miniature", "run.name=mine", "evaluation.limit=3,4"],
            ["outputs/mine/evaluation.limit-3", "outputs/mine/evaluation.limit-4"],
        ),
        (
            "reward",
            ["recipe=miniature", "seed=1,2"],
            ["outputs/reward-miniature-miniature/seed-1", "outputs/reward-miniature-miniature/seed-2"],
        ),
        (
            "audit-reward",
            ["reward=miniature", "rows=miniature", "rows.num_prompts=4,8", "run.name=a"],
            ["outputs/a/rows.num_prompts-4", "outputs/a/rows.num_prompts-8"],
        ),
        ("analyze", ["model=miniature", "seed=0,1", "run.name=a"], ["outputs/a/seed-0", "outputs/a/seed-1"]),
        ("study", ["seeds=[1],[2]"], ["outputs/study/seeds-[1]", "outputs/study/seeds-[2]"]),
    ],
)
def test_every_command_sweeps(name: str, overrides: list[str], folders: list[str], tmp_path: Path) -> None:
    record = Recorder()
    assert launch(ROOTS[name], record, ["-m", *overrides]) == 0
    assert [str(Path(one).relative_to(tmp_path)) for one in record.folders] == folders
    if name != "study":
        assert len({one.tracking.name for one in record.settings}) == 2


def test_a_sweep_goes_on_after_a_run_that_failed(capsys: pytest.CaptureFixture[str]) -> None:
    done: list[int] = []

    def run(settings: Any, resolved: dict[str, Any], folder: RunFolder) -> int:
        done.append(settings.seed)
        if settings.seed == 1:
            raise ConfigError("data.path: is not there")
        return int(settings.seed == 3)

    assert launch(ROOTS["analyze"], run, ["-m", "model=miniature", "seed=1,2"]) == 1
    said = capsys.readouterr()
    assert done == [1, 2]
    assert not list(Path().rglob("seed-1")), "nothing is left of what was refused"
    assert said.err.splitlines()[:2] == ["error: data.path: is not there", "failed: analyze-miniature seed=1"]
    assert said.out == "run 1 of 2: analyze-miniature seed=1\nrun 2 of 2: analyze-miniature seed=2\n"
    assert launch(ROOTS["analyze"], run, ["-m", "model=miniature", "seed=2,3"]) == 1, "the status that a run returns"
    assert launch(ROOTS["analyze"], run, ["-m", "model=miniature", "seed=2,4"]) == 0


def test_a_sweep_is_checked_whole_before_its_first_run() -> None:
    record = Recorder()
    with pytest.raises(ConfigError, match=r"sft\.batch_size=0"):
        launch(ROOTS["sft"], record, ["-m", "model=miniature", "sft.batch_size=8,0"])
    with pytest.raises(ConfigError, match="does not support sweep type"):
        launch(TRAIN, record, ["-m", *TRAIN.choices, "trainer.lr=interval(1e-6,1e-5)"])
    with pytest.raises(ConfigError, match=r"trainer\.lr=-1"):
        launch(TRAIN, record, ["-m", *TRAIN.choices, "trainer.lr=interval(-1,1e-5)"])
    assert not record.folders


class MadeLauncher(Launcher):
    """A launcher as a plugin brings it: what it is given goes to other processes as bytes."""

    launched: ClassVar[list[list[str]]] = []

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        task = pickle.loads(pickle.dumps(self.task))
        loader = pickle.loads(pickle.dumps(self.context.config_loader))
        returned = []
        for number, overrides in enumerate(job_overrides):
            MadeLauncher.launched.append(list(overrides))
            config = loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = initial_job_idx + number
            returned.append(
                run_job(
                    hydra_context=self.context,
                    task_function=task,
                    config=config,
                    job_dir_key="hydra.sweep.dir",
                    job_subdir_key="hydra.sweep.subdir",
                )
            )
        return returned


def fails_with_two(settings: Any, resolved: dict[str, Any], folder: RunFolder) -> int:
    return int("mine" in settings.reward.models and settings.seed == 2)


def test_a_launcher_of_a_plugin_is_given_the_runs(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(Plugins, "is_in_toplevel_plugins_module", lambda *_: True)  # as if it were installed
    Plugins.instance().register(MadeLauncher)
    ConfigStore.instance().store(
        group="hydra/launcher", name="made", node={"_target_": f"{__name__}.MadeLauncher"}, provider="test"
    )
    request.addfinalizer(lambda: ConfigStore.instance().repo["hydra"]["launcher"].pop("made.yaml"))
    arguments = ["-m", "hydra/launcher=made", *TRAIN.choices, "+reward.models.mine.kind=python"]
    arguments.append("+reward.models.mine.function=a.b:c")
    assert launch(TRAIN, fails_with_two, [*arguments, "seed=1,2"]) == 1, "the status comes back from elsewhere"
    assert [one[-1] for one in MadeLauncher.launched] == ["seed=1", "seed=2"]
    assert launch(TRAIN, fails_with_two, [*arguments, "seed=1,3"]) == 0


@pytest.mark.parametrize("group", ["launcher", "sweeper"])
def test_a_plugin_that_is_not_installed_is_named(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "train", "-m", *TRAIN.choices, "seed=1,2", f"hydra/{group}=absent")
    assert line.startswith(f"hydra/{group}=absent: no plugin of Hydra's has it (available: basic")
    assert f"install one, such as hydra-{'submitit-launcher' if group == 'launcher' else 'optuna-sweeper'}" in line


def test_our_launchers_are_found_from_any_folder(tmp_path: Path) -> None:
    """Where the package is installed in place, as by `make setup`, Hydra's own search finds them in the checkout's folder alone."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-m", "lrm_safety", "train", "-m", *TRAIN.choices, "seed=1,2", "hydra/launcher=ray_jobs"]
    shown = [*command, "--cfg", "hydra", "-p", "hydra.launcher"]
    done = subprocess.run(shown, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and done.stdout.count("RayJobsLauncher") == 2, done.stderr


def test_a_misspelt_plugin_is_found_by_likeness(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "train", "-m", *TRAIN.choices, "seed=1,2", "hydra/launcher=ray_job")
    assert line.endswith("; did you mean ray_jobs?") and "install" not in line


@pytest.mark.parametrize("name", CONFIGURED)
def test_hydras_flags_work_in_every_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*name.split(), *ROOTS[str(COMMANDS[name].root)].choices]
    assert "${" in str(shown(capsys, *words)["run"]) and "${" not in str(shown(capsys, *words, "--resolve"))
    for flags, found in (
        (["--cfg", "hydra", "--resolve"], "_target_: hydra._internal.core_plugins.basic_sweeper"),
        (["--cfg", "all"], "\nhydra:\n"),
        (["--cfg", "job", "--package", "run"], "# @package run\n"),
        (["--info", "searchpath"], "pkg://hydra.conf"),
        (["--info", "defaults"], "_schema"),
        (["--hydra-help"], "hydra/launcher: "),
    ):
        status = main([*words, *flags])
        captured = capsys.readouterr()
        assert status == 0 and found in f"\n{captured.out}", (flags, captured)
        assert captured.out.count("pkg://hydra.conf") <= 1, "said once"
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize("name", CONFIGURED)
def test_what_a_message_names_works(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = ROOTS[str(COMMANDS[name].root)]
    line = refused(capsys, *name.split(), *root.choices, "qqqq=1")
    command = line.partition("`")[2].partition("`")[0]
    assert line.startswith("unknown key qqqq; `lrm-safety ")
    assert shown(capsys, *shlex.split(command.removeprefix("lrm-safety ").removesuffix(" --cfg job")))


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "train",
            "cluster: nothing chosen; name an experiment (experiment=miniature) or cluster=OPTION from conf/cluster",
        ),
        ("reward", "base.name: must be set, or come with a choice, such as recipe=miniature"),
        ("evaluate", "evaluation: nothing chosen; give evaluation=OPTION from conf/evaluation"),
    ],
)
def test_a_configuration_without_choices_says_what_to_choose(
    name: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(capsys, name, "--cfg", "job") == line


EXAMPLES = [(name, example) for name, command in CONFIGURED.items() for example in command.examples]


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_examples_of_the_help_compose(name: str, example: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), "--help"]) == 0
    arguments = example.partition("  ")[0]
    assert f"lrm-safety {name} {arguments}" in capsys.readouterr().out
    words = [word for word in shlex.split(arguments) if word not in ("--cfg", "job", "--resolve", "--steps", "-m")]
    for one in sweep(words) if "-m" in arguments.split() else [words]:
        shown(capsys, *name.split(), *one)


def roots() -> list[Root[Any]]:
    return list(ROOTS.values())


@pytest.mark.parametrize("root", roots(), ids=lambda root: root.command)
def test_groups_of_other_commands_are_refused(root: Root[Any]) -> None:
    for group in ("study", "recipe", "reward", "sft", "judge"):
        if f"- {group}:" in (Path(__file__).parents[3] / "conf" / f"{root.name}.yaml").read_text():
            continue
        with pytest.raises(ConfigError, match=f"^{group}: `lrm-safety {root.command}` has no group of this name"):
            root.compose([*root.choices, f"{group}=miniature"])


@pytest.mark.parametrize(
    ("name", "override", "instead"),
    [
        ("sft", "data.overlong=skip", "sft.overlong"),
        ("sft", "cluster.rollout.num_workers=2", "cluster.policy alone"),
        ("evaluate", "evaluation.every_updates=5", "of `train`"),
        ("evaluate", "rollout.bucket_bytes=1", "no weights are sent"),
        ("evaluate", "rollout.max_restarts=1", "run.num_engines above 1"),
        ("analyze", "sft.batch_size=4", "analysis.micro_batch_tokens"),
        ("audit-reward", "reward.clip_low=0", "raw scores"),
    ],
)
def test_keys_of_another_command_are_refused(name: str, override: str, instead: str) -> None:
    root = ROOTS[name]
    with pytest.raises(ConfigError) as refusal:
        root.compose([*root.choices, override])
    key = override.partition("=")[0]
    assert str(refusal.value).startswith(f"{key}: `lrm-safety {name}` does not read it; ") and instead in str(
        refusal.value
    )


def test_how_an_evaluation_samples_is_told_by_its_protocol() -> None:
    evaluate, overrides = ROOTS["evaluate"], ["model=miniature", "evaluation=attaq", "rollout.temperature=0.5"]
    with pytest.raises(ConfigError, match=r"^rollout\.temperature: .*; evaluation\.temperature says"):
        evaluate.compose(overrides)
    assert evaluate.compose([*overrides, "evaluation.protocol=training"])[0].rollout.temperature == 0.5
    engines = ["model=miniature", "evaluation=miniature", "run.num_engines=2", "rollout.max_restarts=1"]
    assert evaluate.compose(engines)[0].rollout.max_restarts == 1


def test_the_seed_is_one_key_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    for name, root in ROOTS.items():
        if name != "study":  # which has several
            assert root.compose([*root.choices, "seed=7"])[0].seed == 7
    evaluate = ROOTS["evaluate"]
    assert evaluate.compose([*evaluate.choices, "seed=7"])[0].evaluation.seed == 7
    assert evaluate.compose([*evaluate.choices, "seed=7", "evaluation.seed=3"])[0].evaluation.seed == 3


def test_plan_takes_the_words_of_train(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    added = ["+reward.models.mine.kind=python", "+reward.models.mine.function=a.b:c"]
    assert main(["plan", "--config-dir", str(mine), "experiment=of_mine", *added]) == 0
    assert "It fits" in capsys.readouterr().out


def test_what_launchers_send_elsewhere_can_be_pickled() -> None:
    task = Task(TRAIN, Later("commands.train:train"), ("train",), ())
    assert pickle.loads(pickle.dumps(task)).run == task.run


COMPLETED = {
    "lrm-safety tr": ["train"],
    "lrm-safety analyze ": ["reflection", "memorization"],
    "lrm-safety train experiment=mini": ["experiment=miniature"],
    "lrm-safety evaluate mod": ["model="],
    "lrm-safety analyze reflection model=minia": ["model=miniature"],
    "lrm-safety train experiment=miniature algorithm.kl.co": ["algorithm.kl.coef="],
    "lrm-safety export ": [],
    "lrm-safety jobs ": ["list", "status", "logs", "stop"],
    "lrm-safety jobs logs ": [],
}


def test_the_shell_completes(tmp_path: Path) -> None:
    program = tmp_path / "lrm-safety"
    program.write_text(f"#!{sys.executable}\nimport sys\nfrom lrm_safety.cli import main\nsys.exit(main())\n")
    program.chmod(0o755)
    script = ['eval "$(lrm-safety -sc install=bash)"']
    for line in COMPLETED:
        script += [
            f"COMP_LINE='{line}'; COMP_CWORD={len(line.split(' ')) - 1}; hydra_bash_completion; echo ${{COMPREPLY[@]}}"
        ]
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)], capture_output=True, text=True, timeout=120, env={**os.environ, "PATH": path}
    )
    found = dict(zip(COMPLETED, map(str.split, done.stdout.splitlines()), strict=True))
    for line, expected in COMPLETED.items():
        assert set(expected) <= set(found[line]), (line, found[line], done.stderr)


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--version"], ["train", "--version"]):
        assert main(arguments) == 0
        assert capsys.readouterr().out.startswith("lrm-safety ")
