"""Schema of `lrm-safety reward`: a reward model trained on pairs of responses."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from omegaconf import MISSING
from pydantic import Field

from ..algorithm.options import ScheduleKind
from .components import Attention, Dtype, View
from .system import TrackerSettings
from .types import (
    DIRECTORY,
    AutoDevice,
    Conflict,
    Decay,
    Float,
    Fraction,
    Int,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    Seed,
    Text,
    Whole,
    one_is_given,
    rule,
)


@dataclass
class RewardBaseSettings:
    """The model that becomes a reward model."""

    name: Text = MISSING
    """Short name; the default run.name is made of it."""
    path: Text = MISSING
    """Hugging Face id, folder, `package:` or `cache:` path of a language model, or of a reward model to train further. It
    needs a chat template of its own, and an architecture with a sequence-classification head (Granite has none)."""
    revision: Text | None = None
    """Commit or tag on the hub."""
    dtype: Dtype = "bfloat16"
    """Compute type. Weights and AdamW's moments are float32 in training; the export has this type."""
    attention: Attention = "auto"
    """Attention kernel."""
    max_tokens: PositiveInt = 4096
    """Longest conversation, in the model's own tokens; longer ones are counted and treated by `overlong`."""
    overlong: Literal["drop_trace_middle", "drop_pair", "error"] = "drop_trace_middle"
    """Over max_tokens: keep prompt, both ends of the trace and the answer, as in scoring (drop_trace_middle; the pair is
    dropped where even that does not fit), drop the pair (drop_pair), or stop (error)."""


@dataclass
class PairSettings:
    """Pairs to learn from: rows of prompt, chosen, rejected."""

    name: Text = "pairs"
    """Short name of the set; the default run.name is made of it."""
    path: Text | None = None
    """JSON, JSONL or CSV file (`package:` paths allowed)."""
    hub_id: Text | None = None
    """Data set on the Hugging Face hub, used when `path` is null."""
    revision: Text | None = None
    """Commit or tag on the hub."""
    split: Text = "train"
    """Split on the hub."""
    function: Text | None = None
    """`package.module:function`, called with the number of rows and the seed: pairs that are made, not read."""
    num_rows: Annotated[Int, Field(ge=2)] = 2000
    """function: rows to ask for."""
    prompt_field: Text = "prompt"
    """Column of the prompt's text."""
    chosen_field: Text = "chosen"
    """Column of the better response: the text of the assistant's turn, or {trace, answer}."""
    rejected_field: Text = "rejected"
    """Column of the worse response."""
    category_field: Text = "category"
    """Column that holds a category (a string, or a list of strings); rows may lack it."""
    margin_field: Text | None = None
    """Column that holds by how much chosen is better, subtracted from the difference of scores; null: no margin."""
    categories: list[Text] = field(default_factory=list)
    """Train on pairs of these categories only, for a model of narrower coverage; empty: all. The held-out pairs stay
    those of every category."""
    view: View = "full"
    """What the model reads of a response; train what `reward.models.NAME.views` will ask for."""
    limit: Annotated[Int, Field(ge=2)] | None = None
    """Use only the first rows; null uses all."""
    held_out_fraction: Annotated[Float, Field(ge=0, le=0.9)] = 0.1
    """Share of the prompts held out, chosen by seed and prompt text alone; all pairs of a prompt go to one side."""
    held_out_path: Text | None = None
    """File of held-out pairs instead; pairs to train on whose prompt stands there are left out and counted."""

    @rule
    def _keys_go_together(self) -> None:
        one_is_given(self, ["pairs.path", "pairs.hub_id", "pairs.function"])
        if not self.held_out_path and self.held_out_fraction == 0:
            raise Conflict("held_out_fraction=0: without held-out pairs nothing is measured; use 0.1 or held_out_path")


@dataclass
class RewardTrainerSettings:
    """Optimiser and loss. The defaults are those of OpenRLHF's train_rm, but for its 512 tokens."""

    epochs: PositiveInt = 1
    """Passes over the pairs, each in a seeded order of its own."""
    max_updates: PositiveInt | None = None
    """Stop after so many updates; the lr schedule spans what is done. null: all passes."""
    batch_size: PositiveInt = 128
    """Pairs per update."""
    micro_batch_tokens: PositiveInt = 8192
    """Padded tokens of one forward/backward, both responses of a pair together; a longer pair goes alone."""
    lr: NonNegativeFloat = 9e-6
    """Peak learning rate."""
    lr_schedule: ScheduleKind = "cosine"
    """Shape after the warm-up."""
    min_lr_ratio: Fraction = 0.1
    """Final lr / peak lr."""
    warmup_fraction: Fraction = 0.03
    """Fraction of the updates over which lr rises linearly."""
    beta1: Decay = 0.9
    """AdamW's first moment decay."""
    beta2: Decay = 0.95
    """AdamW's second moment decay."""
    epsilon: NonNegativeFloat = 1e-8
    """AdamW's epsilon."""
    weight_decay: NonNegativeFloat = 0.0
    """AdamW's decoupled weight decay."""
    gradient_clip: NonNegativeFloat = 1.0
    """Largest global gradient norm; 0: no clipping."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass."""
    label_smoothing: Annotated[Float, Field(ge=0, lt=0.5)] = 0.0
    """Chance given to a label being the wrong way round; keeps the scores of sure pairs finite."""
    evaluate_every_updates: NonNegativeInt = 50
    """Score the held-out pairs so often, and at the end; 0: at the end only."""


@dataclass
class RewardRunSettings:
    """Identity of the training."""

    name: Text = "reward-${base.name}-${pairs.name}"
    """Name of the run; its folder is outputs/NAME unless `directory` says otherwise."""
    directory: Text = DIRECTORY
    """Folder of config.yaml, metrics.jsonl, results.json and export/."""
    device: AutoDevice = "auto"
    """One process on the CPU or on one GPU; auto: cuda where there is one. Several GPUs are not used."""


@dataclass
class RewardTrainingSettings(Whole):
    """The whole resolved configuration of `lrm-safety reward`."""

    run: RewardRunSettings = field(default_factory=RewardRunSettings)
    """Identity of the run."""
    seed: Seed = 0
    """Seed of the new head, the order of pairs and the held-out prompts."""
    base: RewardBaseSettings = field(default_factory=RewardBaseSettings)
    """The model that is trained."""
    pairs: PairSettings = field(default_factory=PairSettings)
    """What it learns from."""
    trainer: RewardTrainerSettings = field(default_factory=RewardTrainerSettings)
    """How it learns."""
    tracking: TrackerSettings = field(default_factory=TrackerSettings)
    """Names and mode of the run in W&B."""
