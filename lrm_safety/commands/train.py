"""`lrm-safety train`, `lrm-safety sft`: one run from a checked configuration to its export."""

from __future__ import annotations

from functools import partial

from ..controller import Controller
from ..evaluation.in_loop import InLoopEvaluation
from ..interruption import Interruption
from ..lab.planning.plan import cautions
from ..monitoring.recorder import Recorder, evidence_of
from ..preparation import PreparedRun, prepare
from ..run_folder import RunFolder
from ..settings import Settings, SftSettings
from ..sft import SftTrainer
from ..sft_preparation import prepare_sft
from ..workers.groups import Groups, PolicyOnly
from ..workers.specs import PolicySpec
from .attempts import run_to_export


def train(settings: Settings, resolved: dict[str, object], folder: RunFolder) -> None:
    """Reinforcement learning: see `run_to_export`."""
    run = prepare(settings, folder.path.absolute())  # workers may have another working folder
    evaluation = InLoopEvaluation(run.settings, run.family, run.tokenizer, run.parser, run.sampling, run.num_embeddings)

    def controller(run: PreparedRun, groups: Groups, recorder: Recorder, interruption: Interruption) -> Controller:
        for line in groups.rollout.describe():
            recorder.note(line)
        return Controller(run, groups, recorder, interruption, evaluation)

    run_to_export(
        run,
        settings,
        resolved,
        folder,
        groups_of=partial(Groups, run.settings),
        trainer_of=controller,
        evidence=evidence_of(settings.reward, settings.evaluation),
        cautions=cautions(run.settings),
    )


def fine_tune(settings: SftSettings, resolved: dict[str, object], folder: RunFolder) -> None:
    """Supervised fine-tuning: see `run_to_export`."""
    run = prepare_sft(settings, folder.path.absolute())
    run_to_export(
        run,
        settings,
        resolved,
        folder,
        groups_of=partial(PolicyOnly, PolicySpec.of(run.settings)),
        trainer_of=SftTrainer,
    )
