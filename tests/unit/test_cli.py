"""The command line: what it says, what it returns, and how it shows a mistake."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from lrm_safety import cli, usage
from lrm_safety.errors import WorkerError
from lrm_safety.interruption import StopRequested

COMMANDS = (
    "train", "sft", "evaluate", "evaluate calibrate", "analyze reflection", "analyze memorization", "export",
    "reward", "audit-reward", "study", "submit", "jobs", "runs", "report",
    "samples", "tensorboard", "plan", "demo", "fetch", "doctor",
    "build-miniature", "docs",
)  # fmt: skip

SWEPT = ("train", "-m", "experiment=miniature", "seed=1,2")
SENT = (*SWEPT, "hydra/launcher=ray_jobs", f"run.directory={tempfile.gettempdir()}/lrm_safety-refused")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = cli.main(list(arguments))
    output = capsys.readouterr()
    return status, output.out, output.err


def in_process(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`python ARGUMENTS` in an interpreter that has imported nothing yet."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120, env={**os.environ}
    )


@pytest.mark.parametrize(("arguments", "status"), [([], 2), (["help"], 0), (["-h"], 0), (["--help"], 0)])
def test_usage_names_every_command(capsys: pytest.CaptureFixture[str], arguments: list[str], status: int) -> None:
    found, out, err = run(capsys, *arguments)
    assert found == status and not err
    for command in COMMANDS:
        assert f"\n  {command} " in out


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("command", [*COMMANDS, "analyze"])
def test_help_of_a_command_says_how_it_is_called_and_starts_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str, flag: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in ([flag], ["a=1", flag]):
        status, out, err = run(capsys, *command.split(), *arguments)
        assert status == 0 and not err
        assert (
            out.startswith(f"usage: lrm-safety {command}") and out.count("\n") >= 3 and "{" not in out.splitlines()[0]
        )
    assert not list(tmp_path.iterdir())


def test_every_command_has_a_help() -> None:
    listed = [line[2:24].strip() for line in usage.usage().splitlines() if line[:2] == "  "]
    assert listed == list(COMMANDS) == list(usage.COMMANDS)


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize(
    ("command", "root"),
    [
        ("train", "config"),
        ("sft", "sft"),
        ("evaluate", "evaluate"),
        ("analyze reflection", "analyze"),
        ("reward", "reward_training"),
        ("audit-reward", "audit_reward"),
        ("study", "study"),
    ],
)
def test_help_lists_every_group_and_option_of_the_command(
    capsys: pytest.CaptureFixture[str], repository_root: Path, command: str, root: str, flag: str
) -> None:
    status, out, err = run(capsys, *command.split(), "model=miniature", flag)
    assert status == 0 and not err
    table = out.partition("Configuration groups")[2]
    listed = {
        line.split()[0]: set(line.replace(",", "").split()[1:]) for line in table.splitlines() if line[:2] == "  "
    }
    defaults = yaml.safe_load((repository_root / "conf" / f"{root}.yaml").read_text())["defaults"]
    groups = {name for entry in defaults if isinstance(entry, dict) for name in entry if " " not in name}
    expected: dict[str, set[str]] = {}
    for file in (repository_root / "conf").glob("*/**/*.yaml"):
        group, _, option = str(file.relative_to(repository_root / "conf").with_suffix("")).partition("/")
        if group in groups and not option.startswith("shared/"):
            expected.setdefault(group, set()).add(option)
    assert listed == expected and expected
    assert "{groups}" not in out


def test_an_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "trian")
    assert status == 2 and not out
    assert err == "error: unknown command trian; did you mean train?\n"
    assert run(capsys, "xyzzy") == (2, "", "error: unknown command xyzzy; `lrm-safety --help` lists all\n")


@pytest.mark.parametrize("command", [["compare", "outputs/sweep"], ["evaluate", "compare", "a", "b"]])
def test_what_a_command_was_called_before_names_the_word_of_today(
    capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    status, out, err = run(capsys, *command)
    once = " ".join(command).partition(" outputs")[0].partition(" a")[0]
    assert (status, out, err) == (2, "", f"error: unknown command {once}; did you mean report?\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["train", "experiment=miniature", "trainer.learning_rate=1"],
            "unknown key trainer.learning_rate; did you mean",
        ),
        (["train", "experiment=miniature", "algorithm.gamma=2"], "algorithm.gamma=2: must be at most 1"),
        (["train", "-m", "experiment=miniature", "seed=1,2", "algorithm.gamma=1,3"], "algorithm.gamma=3"),
        (
            [
                "train",
                "-m",
                "experiment=miniature",
                "seed=1,2",
                "algorithm.mini_batch_size=32,8",
                "schedule.max_updates=6",
            ],
            "algorithm.mini_batch_size=8; in point 2 of 4, seed=1 algorithm.mini_batch_size=8\n",
        ),
        (
            [
                "train",
                "-m",
                "experiment=miniature",
                "seed=1,2",
                "evaluation.every_updates=1",
                "evaluation=none,miniature",
            ],
            "in point 1 of 4, seed=1 evaluation=none\n",
        ),
        (
            ["train", "-m", "experiment=miniature", "seed=1,2", "algorithm.gamma=2"],
            "algorithm.gamma=2: must be at most 1\n",  # of all points
        ),
        (["train"], "nothing chosen"),
        (["sft"], "model: nothing chosen; give model=OPTION"),
        (["sft", "experiment=miniature"], "experiment=miniature: not for `sft`; experiment=sft/NAME is for `sft`, the"),
        (["train", "experiment=sft/star1"], "experiment=sft/star1: not for `train`; experiment=sft/"),
        (["train", "experiment=sft/star1", "reward=miniature"], "not for `train`"),
        (["sft", "experiment=sft/sta1"], "no file conf/experiment/sft/sta1.yaml; did you mean star1?"),
        # one file for every model, as it was until 0.1
        (["train", "experiment=r1_distill_qwen_7b_star1"], "mean experiment=star1 model=deepseek_r1_distill_qwen_7b?"),
        (["sft", "experiment=sft/qwen3_4b_star1"], "did you mean experiment=sft/star1 model=qwen3_4b?"),
        (
            ["study", "study=qwen3_4b_star1"],
            "no file conf/study/qwen3_4b_star1.yaml; did you mean study=star1 base=qwen3_4b?",
        ),
        (["sft", "model=miniature", "sft.targets=chat"], "sft.targets=chat: must be one of family, raw"),
        (["sft", "-m", "model=miniature", "seed=1,2", "sft.batch_size=8,1"], "sft.batch_size=1: must be at least"),
        (
            [*SWEPT, "hydra/launcher=local_processes", "hydra.launcher.address=http://h:1"],
            "hydra.launcher.address: is an option of hydra/launcher=ray_jobs, and not of local_processes\n",
        ),
        (
            [*SWEPT, "hydra.launcher.retries=2"],
            "retries: is an option of hydra/launcher=local_processes and ray_jobs, and not of basic; choose one of them, with -m\n",
        ),
        (
            [*SWEPT, "hydra/launcher=local_processes", "hydra.launcher.jobs=3"],
            "hydra/launcher=local_processes has no such option, only concurrency, retries, on_interrupt\n",
        ),
        (
            [*SWEPT, "hydra/launcher=ray_jobs", "+hydra.launcher.jobs=3"],
            "hydra.launcher.jobs: the chosen hydra/launcher has no such option\n",
        ),
        (
            [*SWEPT, "hydra/launcher=joblib"],
            "no plugin of Hydra's has it (available: basic, local_processes, ray_jobs)",
        ),
        ([*SWEPT, "hydra/launcher=ray_jobs", "trainer.warmth=1,2"], "unknown key trainer.warmth"),
        (
            [*SWEPT, "hydra/launcher=local_processes", "hydra.launcher.concurrency=0"],
            "hydra.launcher.concurrency=0: must be at least 1\n",
        ),
        (
            [*SWEPT, "hydra/launcher=ray_jobs", "run.directory=outputs/mine"],
            "run.directory=outputs/mine: is relative, and a Ray job's working directory",
        ),
        (
            [*SENT, "hydra.launcher.max_upload=600"],
            "hydra.launcher.max_upload=600: must be 1 to 512 MiB",
        ),
        (
            [*SENT, "hydra.launcher.working_dir=absent"],
            "absent: no such folder\n",
        ),
        (
            [*SENT, "hydra.launcher.env=[NOT_SET_HERE]"],
            "hydra.launcher.env NOT_SET_HERE: is not set here",
        ),
        (
            [*SENT, "hydra.launcher.address=127.0.0.1:1"],
            "hydra.launcher.address must look like http://HOST:8265",
        ),
        (
            [*SENT, "hydra.launcher.address=http://127.0.0.1:1"],
            "no Ray cluster answers at http://127.0.0.1:1 (",
        ),
        (["demo", "algorithm.gamma=2"], "algorithm.gamma=2: must be at most 1"),
        (["fetch"], "fetch: give names"),
        (["fetch", "gpt5"], "fetch gpt5: nothing of this name; known: "),
        (["build-miniature"], "build-miniature: give the output folder"),
        (["docs", "--force"], "docs: knows --check only, not --force"),
        (["docs", "--chek"], "docs: unknown flag --chek; did you mean --check?"),
        (["report", "absent", "outptu=x"], "report: unknown key outptu; did you mean output?"),
        (["report", "absent", "--no-pge"], "report: unknown flag --no-pge; did you mean --no-page?"),
        (["report", "mine=absent"], "report: absent: no such folder"),
        (["runs", "absent", "outptu=x"], "runs: knows FOLDER and --json, not outptu"),
        (["runs", "--jsn"], "runs: unknown flag --jsn; did you mean --json?"),
        (["samples", "absent", "sett=xstest"], "samples: unknown key sett; did you mean set?"),
        (["export", "absent", "whch=best"], "export: unknown key whch; did you mean which?"),
        (
            ["tensorboard", "absent", "logdir=x"],
            "knows folders of runs alone, e.g. `lrm-safety tensorboard outputs`, not logdir",
        ),
        (["evaluate", "calibrate", "outptu=x"], "evaluate calibrate: unknown key outptu; did you mean output?"),
        (["plan", "--form", "outputs/x"], "plan: unknown flag --form; did you mean --from?"),
        (
            ["plan", "experiment=miniature", "plan.gpu_memry_gib=80"],
            "did you mean plan.gpu_memory_gib?",
        ),
        (["build-miniature", "output=x"], "build-miniature: knows the output folder alone, not output"),
    ],
)
def test_a_mistake_is_one_line_and_exit_1(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *arguments)
    assert status == 1 and not out
    assert err.startswith("error: ") and expected in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir()), "nothing was started"


def test_a_mistake_waits_neither_for_torch_nor_for_ray(tmp_path: Path) -> None:
    code = (
        "import sys; from lrm_safety.cli import main; status = main(['train', 'experiment=miniature', 'trainer.lr=-1']); "
        "print(status, sorted({'torch', 'ray', 'transformers', 'wandb'} & set(sys.modules)))"
    )
    done = in_process("-c", code, cwd=tmp_path)
    assert done.stdout == "1 []\n"
    assert done.stderr == "error: trainer.lr=-1: must be at least 0\n"


def test_the_module_runs_as_the_command(tmp_path: Path) -> None:
    done = in_process("-m", "lrm_safety", "trian", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: unknown command trian; did you mean train?")


def test_a_composed_configuration_is_printed_and_nothing_started(tmp_path: Path) -> None:
    done = in_process("-m", "lrm_safety", "train", "experiment=miniature", "seed=7", "--cfg", "job", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    printed = yaml.safe_load(done.stdout)
    assert printed["seed"] == 7 and printed["run"]["name"] == "miniature"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("overrides", "folders"),
    [
        (["experiment=miniature", "seed=1,2"], ["outputs/miniature/seed-1", "outputs/miniature/seed-2"]),
        (
            ["experiment=miniature,smollm2_star1"],
            ["outputs/sweep/experiment-miniature", "outputs/sweep/experiment-smollm2_star1"],
        ),
        (
            ["experiment=miniature", "model=miniature,smollm2_135m", "run.directory=here"],
            ["here/model-miniature", "here/model-smollm2_135m"],
        ),
    ],
)
def test_the_runs_of_a_sweep_have_folders_of_their_own(
    tmp_path: Path, overrides: list[str], folders: list[str]
) -> None:
    code = (
        "import sys, lrm_safety.commands.train as t; from lrm_safety.cli import main; "
        "t.train = lambda settings, resolved, folder: print('folder', folder.path); "
        f"sys.exit(main(['train', '-m', *{overrides!r}]))"
    )
    done = in_process("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    printed = [line.removeprefix("folder ") for line in done.stdout.splitlines() if line.startswith("folder ")]
    assert [str((tmp_path / one).relative_to(tmp_path)) for one in printed] == folders


def of_a_sweep() -> StopRequested:
    stop = StopRequested(signal.SIGINT)
    stop.then = "goes on with the points that are left"
    return stop


@pytest.mark.parametrize(
    ("raised", "status", "line"),
    [
        (WorkerError("policy worker 0 died"), 1, "error: policy worker 0 died"),
        (StopRequested(signal.SIGTERM), 143, "stopped by SIGTERM; the same command goes on from the last checkpoint"),
        (StopRequested(signal.SIGINT), 130, "stopped by SIGINT; the same command goes on from the last checkpoint"),
        (of_a_sweep(), 130, "stopped by SIGINT; the same command goes on with the points that are left"),
        (KeyboardInterrupt(), 130, "stopped by SIGINT: training had not begun, nothing was lost"),
    ],
)
def test_how_a_command_ends(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    raised: BaseException,
    status: int,
    line: str,
) -> None:
    def end(command: usage.Command, arguments: list[str]) -> int:
        assert command.name == "train" and arguments == ["a=1", "b=2"]
        raise raised

    monkeypatch.setattr(cli, "_start", end)
    assert run(capsys, "train", "a=1", "b=2") == (status, "", f"{line}\n")


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"]])
def test_a_reader_that_closes_the_pipe_ends_the_command_without_a_word(words: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "lrm_safety", *words]
    ended = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (141, "")


def of_ours(statement: str) -> Callable[..., int]:
    """A function that stands in a file of the package."""
    names: dict[str, Any] = {}
    exec(compile(f"def end(*_):\n    {statement}", str(Path(cli.__file__).with_name("made_up.py")), "exec"), names)
    return cast(Callable[..., int], names["end"])


def test_a_broken_socket_is_not_taken_for_a_closed_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_start", of_ours("raise BrokenPipeError"))
    with pytest.raises(BrokenPipeError):
        cli.main(["train"])


def test_functions_are_found_in_the_working_folder(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "rewards_of_this_folder.py").write_text("def zero(conversations): return [0.0] * len(conversations)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.setattr(cli, "_start", lambda *_: bool(importlib.import_module("rewards_of_this_folder")))
    assert run(capsys, "train")[0] == 1


def test_our_own_defects_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_start", of_ours("raise ZeroDivisionError"))
    with pytest.raises(ZeroDivisionError):
        cli.main(["train"])


def test_docs_are_written_and_checked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("lrm_safety.commands.docs.configuration_directory", lambda: tmp_path / "conf")
    status, _, err = run(capsys, "docs")
    assert status == 1 and "docs is absent" in err
    pages = [tmp_path / "docs" / name for name in ("metrics.md", "configuration.md")]
    pages[0].parent.mkdir()
    assert run(capsys, "docs", "--check")[0] == 1, "absent pages are not current"
    assert run(capsys, "docs") == (0, "", "")
    assert [page.read_text().splitlines()[0] for page in pages] == ["# Metrics", "# Configuration"]
    assert run(capsys, "docs", "--check") == (0, "", "")
    for page in pages:
        text = page.read_text()
        page.write_text(f"{text} ")
        status, _, err = run(capsys, "docs", "--check")
        assert status == 1 and f"{page}: is not current; run `make docs`" in err
        page.write_text(text)


def test_the_entry_point_is_the_function(repository_root: Path) -> None:
    import tomllib

    scripts = tomllib.loads((repository_root / "pyproject.toml").read_text())["project"]["scripts"]
    assert json.dumps(scripts) == '{"lrm-safety": "lrm_safety.cli:main"}'


def test_a_sweep_over_values_too_long_for_a_folder_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, error = run(capsys, "train", "-m", "experiment=miniature", f"model.system_prompt='{'x' * 300}','b'")
    assert status == 1 and error.startswith("error: model.system_prompt: a run of a multirun has a folder named after")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["outputs/a,b=1/export", "outputs/seed=1/export", "runs/{1}/export"])
def test_a_path_that_wants_quotes_shows_them(capsys: pytest.CaptureFixture[str], path: str) -> None:
    status, _, error = run(capsys, "evaluate", "model=miniature", f"model.path={path}", "evaluation=miniature")
    assert status == 1 and f"\"model.path='{path}'\"" in error, error


def test_items_of_a_list_that_want_quotes_are_shown_with_them(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, error = run(capsys, "train", "experiment=miniature", "tracking.tags=[A=1, B=2]")
    assert status == 1
    assert error == (
        "error: tracking.tags=[A=1, B=2]: cannot be read; a value with special characters wants quotes: "
        "\"tracking.tags=['A=1','B=2']\"\n"
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["train", "hydra.launcher.env=[WANDB_API_KEY=abc123]"],
            "hydra.launcher.env: cannot be read, and is not shown, ",
        ),
        (["train", "+judge.api_key=[abc123"], "+judge.api_key: cannot be read, and is not shown, "),
        (
            ["train", "experiment=miniature", "model.path=https://abc123@host/x"],
            "model.path=https://***@host/x: no such",
        ),
        (["submit", "--", "WANDB_API_KEY=abc123", "train"], "submit: WANDB_API_KEY=*** is no command of ours"),
    ],
)
def test_no_error_shows_a_secret(capsys: pytest.CaptureFixture[str], words: list[str], told: str) -> None:
    status, out, error = run(capsys, *words)
    assert status == 1 and "abc123" not in out + error
    assert error.startswith(f"error: {told}"), error


def test_the_folder_of_a_sweeps_run_can_be_given_back(capsys: pytest.CaptureFixture[str]) -> None:
    path = "outputs/sweep/algorithm.kl.coef-0.1__seed-1/export"
    status, _, error = run(capsys, "evaluate", "model=miniature", f"model.path={path}", "evaluation=miniature")
    assert status == 1 and "no such file or folder" in error, error


def test_another_family_is_refused_with_the_choices_before_anything_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, error = run(capsys, "train", "experiment=miniature", "model.family=qwen9", "--cfg", "job")
    assert status == 1 and "model.family=qwen9: must be one of" in error and "qwen3" in error


def test_runs_go_below_the_folder_that_the_environment_names(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRM_SAFETY_RUNS", "/shared/runs")
    shown = ["evaluate", "model=miniature", "evaluation=miniature", "run.name=mine", "--cfg", "job", "--resolve"]
    _, out, _ = run(capsys, *shown)
    assert yaml.safe_load(out)["run"]["directory"] == "/shared/runs/mine"


@pytest.mark.parametrize(
    "command", [["train", "experiment=miniature"], ["sft", "model=miniature", "data=miniature_supervised"]]
)
def test_a_job_does_not_write_into_its_temporary_copy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """Ray gives every job of one checkout the same folder, and takes it away with its session."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    status, _, error = run(capsys, *command, "run.name=mine")
    assert status == 1 and "run.directory=outputs/mine: is relative" in error
    # The variable alone mends nothing where the key was given.
    assert "leave run.directory out and let LRM_SAFETY_RUNS name one for all runs (`submit --env" in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command",
    [["export", "/runs/mine", "to=mine"], ["report", "/runs/mine"]],
    ids=lambda it: it[0],
)
def test_results_of_a_job_are_not_written_there_either(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    status, _, error = run(capsys, *command)
    assert status == 1 and "is relative" in error and len(error.splitlines()) == 1
    assert "LRM_SAFETY_RUNS" not in error, "which says nothing of them"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["train", "--multirn", "experiment=miniature"], "unrecognized arguments: --multirn"),
        (["train", "experiment=miniature", "--cfg", "jb"], "invalid choice: 'jb'"),
        (["train", "experiment=miniature", "--config-name", "sft"], "--config-name"),
        (
            ["train", "--experiment", "miniature"],
            "unrecognized arguments: --experiment; groups and keys are given as NAME=VALUE",
        ),
        (["train", "--multirn", "experiment=miniature"], "did you mean --multirun?"),
        (["train", "experiment=miniature", "--resolve"], "--resolve: belongs to --cfg"),
        (["study", "--config-dir", "mine"], "--config-dir: mine is no folder"),
        (["train", "experiment=miniature", "run.directory=" + 300 * "a"], "File name too long"),
        (["evaluate", "model.path=" + 300 * "a", "model=miniature", "evaluation=miniature", "run.name=x"], "too long"),
    ],
    ids=lambda it: " ".join(it)[:30] if isinstance(it, list) else "",
)
def test_a_mistaken_flag_or_name_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, error = run(capsys, *arguments)
    assert status == 1 and line in error and len(error.splitlines()) == 1 and not list(tmp_path.iterdir())


def test_a_folder_that_was_deleted_under_the_shell_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    status, _, error = run(capsys, "plan", "experiment=miniature")
    assert status == 1 and "does not exist any more" in error and len(error.splitlines()) == 1


@pytest.mark.parametrize("below", [False, True])
@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["build-miniature", "{place}"], "give another folder"),
        (["report", "{run}", "output={place}"], "choose another"),
        (["evaluate", "calibrate", "judge=[refusal_rules]", "output={place}/verdicts.json"], "choose another"),
        (["train", "experiment=miniature", "run.directory={place}"], "choose another"),
        (["sft", "model=miniature", "run.directory={place}"], "choose another"),
        (["evaluate", "model=miniature", "evaluation=miniature", "run.directory={place}"], "choose another"),
        (["analyze", "reflection", "model=miniature", "run.directory={place}"], "choose another"),
        (["reward", "recipe=miniature", "run.directory={place}"], "choose another"),
        (["audit-reward", "reward=miniature", "rows=miniature", "run.directory={place}"], "choose another"),
        (["study", "study=miniature", "run.directory={place}"], "choose another"),
        (["demo", "run.directory={place}"], "choose another"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_a_file_where_a_folder_is_to_be_made(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: list[str], told: str, below: bool
) -> None:
    """Or a place below it, which stands for every folder that cannot be made: to root no folder is forbidden."""
    run_folder, file = tmp_path / "run", tmp_path / "notes.txt"
    run_folder.mkdir()
    (run_folder / "metrics.jsonl").write_text('{"update": 1, "train/update": 1}\n')
    (run_folder / "config.yaml").write_text("seed: 0\nrun: {name: run}\n")
    file.write_text("mine")
    place = file / "below" if below else file
    status, _, err = run(capsys, *(part.format(place=place, run=run_folder) for part in command))
    assert status == 1 and err.count("\n") == 1, err
    assert str(place) in err and "cannot be written" in err and err.rstrip().endswith(told), err
    assert file.read_text() == "mine"


def test_a_folder_where_a_file_is_to_be_made(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, _, err = run(capsys, "evaluate", "calibrate", "judge=[refusal_rules]", f"output={tmp_path}")
    assert status == 1 and err == f"error: output={tmp_path}: is a folder; name a file in it\n"
