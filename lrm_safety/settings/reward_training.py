"""Schema of `lrm-safety reward`: a reward model trained on pairs of responses."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from .fields import DIRECTORY, choice, integer, number, random_seed
from .system import TrackerSettings


@dataclass
class RewardBaseSettings:
    """The model that becomes a reward model."""

    name: str = MISSING
    """Short name; the default run.name is made of it."""
    path: str = MISSING
    """Hugging Face id, folder, `package:` or `cache:` path of a language model, or of a reward model to train further. It
    needs a chat template of its own, and an architecture with a sequence-classification head (Granite has none)."""
    revision: str | None = None
    """Commit or tag on the hub."""
    dtype: str = choice("bfloat16", "float32")
    """Compute type. Weights and AdamW's moments are float32 in training; the export has this type."""
    attention: str = choice("auto", "sdpa", "eager", "flash_attention_2")
    """Attention kernel."""
    max_tokens: int = integer(4096, low=1)
    """Longest conversation, in the model's own tokens; longer ones are counted and treated by `overlong`."""
    overlong: str = choice("drop_trace_middle", "drop_pair", "error")
    """Over max_tokens: keep prompt, both ends of the trace and the answer, as in scoring (drop_trace_middle; the pair is
    dropped where even that does not fit), drop the pair (drop_pair), or stop (error)."""


@dataclass
class PairSettings:
    """Pairs to learn from: rows of prompt, chosen, rejected."""

    name: str = "pairs"
    """Short name of the set; the default run.name is made of it."""
    path: str | None = None
    """JSON, JSONL or CSV file (`package:` paths allowed)."""
    hub_id: str | None = None
    """Data set on the Hugging Face hub, used when `path` is null."""
    revision: str | None = None
    """Commit or tag on the hub."""
    split: str = "train"
    """Split on the hub."""
    function: str | None = None
    """`package.module:function`, called with the number of rows and the seed: pairs that are made, not read."""
    num_rows: int = integer(2000, low=2)
    """function: rows to ask for."""
    prompt_field: str = "prompt"
    """Column of the prompt's text."""
    chosen_field: str = "chosen"
    """Column of the better response: the text of the assistant's turn, or {trace, answer}."""
    rejected_field: str = "rejected"
    """Column of the worse response."""
    category_field: str = "category"
    """Column that holds a category (a string, or a list of strings); rows may lack it."""
    margin_field: str | None = None
    """Column that holds by how much chosen is better, subtracted from the difference of scores; null: no margin."""
    categories: list[str] = field(default_factory=list)
    """Train on pairs of these categories only, for a model of narrower coverage; empty: all. The held-out pairs stay
    those of every category."""
    view: str = choice("full", "answer", "trace")
    """What the model reads of a response; train what `reward.models.NAME.views` will ask for."""
    limit: int | None = integer(None, low=2)
    """Use only the first rows; null uses all."""
    held_out_fraction: float = number(0.1, low=0.0, high=0.9)
    """Share of the prompts held out, chosen by seed and prompt text alone; all pairs of a prompt go to one side."""
    held_out_path: str | None = None
    """File of held-out pairs instead; pairs to train on whose prompt stands there are left out and counted."""


@dataclass
class RewardTrainerSettings:
    """Optimiser and loss. The defaults are those of OpenRLHF's train_rm, but for its 512 tokens."""

    epochs: int = integer(1, low=1)
    """Passes over the pairs, each in a seeded order of its own."""
    max_updates: int | None = integer(None, low=1)
    """Stop after so many updates; the lr schedule spans what is done. null: all passes."""
    batch_size: int = integer(128, low=1)
    """Pairs per update."""
    micro_batch_tokens: int = integer(8192, low=1)
    """Padded tokens of one forward/backward, both responses of a pair together; a longer pair goes alone."""
    lr: float = number(9e-6, low=0.0)
    """Peak learning rate."""
    lr_schedule: str = choice("cosine", "constant", "linear")
    """Shape after the warm-up."""
    min_lr_ratio: float = number(0.1, low=0.0, high=1.0)
    """Final lr / peak lr."""
    warmup_fraction: float = number(0.03, low=0.0, high=1.0)
    """Fraction of the updates over which lr rises linearly."""
    beta1: float = number(0.9, low=0.0, high=0.9999)
    """AdamW's first moment decay."""
    beta2: float = number(0.95, low=0.0, high=0.9999)
    """AdamW's second moment decay."""
    epsilon: float = number(1e-8, low=0.0)
    """AdamW's epsilon."""
    weight_decay: float = number(0.0, low=0.0)
    """AdamW's decoupled weight decay."""
    gradient_clip: float = number(1.0, low=0.0)
    """Largest global gradient norm; 0: no clipping."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass."""
    label_smoothing: float = number(0.0, low=0.0, high=0.5)
    """Chance given to a label being the wrong way round; keeps the scores of sure pairs finite."""
    evaluate_every_updates: int = integer(50)
    """Score the held-out pairs so often, and at the end; 0: at the end only."""


@dataclass
class RewardRunSettings:
    """Identity of the training."""

    name: str = "reward-${base.name}-${pairs.name}"
    """Name of the run; its folder is outputs/NAME unless `directory` says otherwise."""
    directory: str = DIRECTORY
    """Folder of config.yaml, metrics.jsonl, results.json and export/."""
    device: str = choice("auto", "cpu", "cuda")
    """One process on the CPU or on one GPU; auto: cuda where there is one. Several GPUs are not used."""


@dataclass
class RewardTrainingSettings:
    """The whole resolved configuration of `lrm-safety reward`."""

    run: RewardRunSettings = field(default_factory=RewardRunSettings)
    """Identity of the run."""
    seed: int = random_seed()
    """Seed of the new head, the order of pairs and the held-out prompts."""
    base: RewardBaseSettings = field(default_factory=RewardBaseSettings)
    """The model that is trained."""
    pairs: PairSettings = field(default_factory=PairSettings)
    """What it learns from."""
    trainer: RewardTrainerSettings = field(default_factory=RewardTrainerSettings)
    """How it learns."""
    tracking: TrackerSettings = field(default_factory=TrackerSettings)
    """Names and mode of the run in W&B."""
