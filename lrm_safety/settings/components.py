"""Schema of what a run is made of: the policy model, the reward, the prompts."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from omegaconf import MISSING
from pydantic import Field

from ..algorithm.options import ScoreNormalisation
from ..conversation.families import FAMILIES
from ..registry import Registry, check_choices
from .types import (
    Conflict,
    Float,
    Int,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    Text,
    nothing_reads,
    one_of,
    rule,
)

Dtype = Literal["bfloat16", "float32"]
Attention = Literal["auto", "sdpa", "eager", "flash_attention_2"]
View = Literal["full", "trace", "answer"]
"""What a reward model reads of a response."""
Source = Literal["path", "function", "url"]
"""Keys of a reward model that say what it scores by."""


@dataclass
class ModelSettings:
    """The policy (and, frozen, the reference): conf/model."""

    name: Text = MISSING
    """Short name; the default run.name is made of it."""
    path: Text = MISSING
    """Hugging Face id, a folder, `package:lrm_safety/...` (shipped with the package) or `cache:NAME` (made by `lrm-
    safety fetch NAME`)."""
    revision: Text | None = None
    """Commit or tag on the hub; null takes the default branch."""
    family: Annotated[str, one_of(FAMILIES)] = MISSING
    """How the model converses: its chat template's reasoning, its tags and end tokens; or `package.module:NAME` of a `Family`
    of your own."""
    dtype: Dtype = "bfloat16"
    """Compute type of policy, reference and rollout engine. float32 is the faster one on most CPUs."""
    attention: Attention = "auto"
    """Attention kernel of the trainer; auto takes flash_attention_2 on CUDA where it is installed, otherwise sdpa."""
    packing: bool = True
    """Pack several sequences into one row of a micro-batch. Off for hybrids with Mamba layers, which are padded
    instead."""
    system_prompt: str | None = None
    """System prompt of every conversation; null sends none (R1-Distill's card asks for none)."""
    trust_remote_code: bool = False
    """Run Python code that comes with the checkpoint. Leave off unless you have read that code."""


@dataclass(frozen=True)
class RewardKind:
    """What is declared of a kind of reward.

    Attributes:
        build: `(name, settings, device) -> Scorer`, in the reward worker.
        check: `(settings, key)` raises for what cannot work, before any actor starts and without loading a model.
        content: `(settings, key)` what it scores by, by content: what a resume has to find unchanged.
        reads: which of these keys it reads; the first must be set.
        reads_prefixes: whether it scores beginnings of responses where `prefixes` does not say.
    """

    name: str
    build: Callable[[str, Any, str], Any]
    check: Callable[[Any, str], None]
    content: Callable[[Any, str], dict[str, str | None]]
    reads: tuple[Source, ...]
    reads_prefixes: bool

    def __post_init__(self) -> None:
        check_choices(self)


REWARDS: Registry[RewardKind] = Registry(
    "rewards",
    RewardKind,
    mend="write @reward(NAME) above it",
    declared_in="lrm_safety.rewards.kinds",
    calls={"build": None, "check": None, "content": None},
)


@dataclass
class RewardModelSettings:
    """One source of scores in conf/reward; several may be combined."""

    kind: Annotated[str, one_of(REWARDS)] = "classifier"
    """classifier: a sequence-classification model. python: a function by import path. http: a scoring endpoint. Or
    `package.module:name` of a kind of your own (lrm_safety/rewards/kinds.py)."""
    weight: Float = 1.0
    """Weight of this model's score in the sum of all reward models."""
    views: dict[View, Float] = field(default_factory=dict)
    """What is scored, with its weight: full (trace and answer, the paper's R(x, t+y)), answer, trace; each is scored
    separately. Empty reads full with weight 1; a weight of 0 leaves a view out."""
    path: Text | None = None
    """classifier: Hugging Face id, folder, `package:` or `cache:` path."""
    revision: Text | None = None
    """classifier: commit or tag on the hub."""
    dtype: Dtype = "bfloat16"
    """classifier: compute type."""
    attention: Attention = "auto"
    """classifier: attention kernel."""
    max_tokens: PositiveInt = 16384
    """classifier: longest conversation the model reads, in its own tokens. Longer ones are counted and treated by
    `overlong`."""
    overlong: Literal["drop_trace_middle", "score", "error"] = "drop_trace_middle"
    """classifier: over max_tokens, keep prompt, ends of the trace and the answer (drop_trace_middle), give
    `overlong_score` (score), or stop (error)."""
    overlong_score: Float = 0.0
    """classifier: the score of an over-long conversation when overlong=score, and of one whose prompt and answer alone do
    not fit under drop_trace_middle."""
    micro_batch_tokens: PositiveInt = 16384
    """classifier: tokens of one forward pass, padding included."""
    packing: bool | None = None
    """classifier: read conversations from packed rows, so that no padding is computed. Scores differ by rounding. null: on a
    GPU, and where the model can."""
    function: Text | None = None
    """python: `package.module:function`, called with a list of lrm_safety.rewards.conversation.Conversation and returning one float
    each."""
    url: Text | None = None
    """http: endpoint that takes {"conversations": [...]} and returns {"scores": [...]}."""
    api_key_env: Text | None = None
    """http: environment variable that holds the endpoint's key, sent in `api_key_header`; the key itself stands nowhere."""
    api_key_header: Text = "Authorization"
    """http: header of the key; Authorization is sent as `Bearer KEY`, any other as the key alone."""
    timeout_seconds: Annotated[Float, Field(ge=0.001)] = 60.0
    """http: time limit of one request."""
    max_retries: NonNegativeInt = 4
    """http: further tries after a failed request, with exponential back-off."""
    batch_size: PositiveInt = 32
    """http: conversations per request."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Options of a kind of your own."""
    prefixes: bool | None = None
    """With reward.granularity=segment: score the beginnings of responses, whose status is unfinished_trace. null: a
    classifier does; a python function or an endpoint does not, as it may be about finished responses alone. A model that
    does not gives its whole score to the last step."""

    @rule
    def _keys_go_together(self) -> None:
        if self.overlong_score and self.kind == "classifier" and self.overlong == "error":
            raise Conflict(
                f"overlong_score={self.overlong_score:g}: does nothing with overlong=error; use overlong=score or "
                "drop_trace_middle"
            )

    def read_views(self) -> dict[View, float]:
        """The views that are scored, with their weights."""
        return {view: weight for view, weight in self.views.items() if weight} if self.views else {"full": 1.0}

    def prefix_views(self) -> dict[View, float]:
        """Those of them that prefixes of a trace are scored in, with their weights: a prefix has no answer."""
        if not (reward_kind(self, "reward.models.*").reads_prefixes if self.prefixes is None else self.prefixes):
            return {}
        return {view: weight for view, weight in self.read_views().items() if view != "answer"}


def reward_kind(model: RewardModelSettings, key: str) -> RewardKind:
    """What is declared of the kind of a reward model; raises ConfigError, naming `key`.kind, for an unknown one."""
    return REWARDS.get(model.kind, f"{key}.kind")


@dataclass
class SegmentSettings:
    """Steps of a response, for reward.granularity=segment (docs/reward_models.md)."""

    unit: Literal["sentences", "lines"] = "sentences"
    """What the trace is cut into; the answer is one step."""
    max_steps: Annotated[Int, Field(ge=2)] = 8
    """Most steps of a response, the answer among them; neighbours are joined. A response of n steps costs n - 1 further
    texts to score."""


@dataclass
class RewardSettings:
    """Scores and their shaping, in the order: raw score, penalties, normalise, clip (docs/reinforce_plus_plus.md)."""

    models: dict[str, RewardModelSettings] = field(default_factory=dict)
    """Reward models by name; the raw score is the weighted sum of their views."""
    shared: Text | None = None
    """Runs of one cluster that say the same name here share one reward group, which the first starts and which ends after the last
    (docs/clusters.md); null: a group of the run's own."""
    granularity: Literal["response", "segment"] = "response"
    """response: the score is paid at the last token. segment: it is shared among the steps of the trace by the scores of
    its prefixes; needs algorithm.gamma=1."""
    segment: SegmentSettings = field(default_factory=SegmentSettings)
    """The steps, with granularity=segment."""
    unfinished_penalty: NonNegativeFloat = 0.0
    """Subtracted from the score of a response that hit the token limit."""
    malformed_penalty: NonNegativeFloat = 0.0
    """Subtracted when the response breaks the family's format (no closing tag, two of them, an empty answer)."""
    overlong_penalty: NonNegativeFloat = 0.0
    """Largest penalty for length; grows linearly over the last `overlong_buffer_tokens` of the response limit."""
    overlong_buffer_tokens: NonNegativeInt = 0
    """Width of the soft length penalty, in tokens; 0 switches it off."""
    normalise: ScoreNormalisation = "none"
    """Standardise the score: by running moments, by the rollout batch's, or not at all."""
    clip_low: Float | None = None
    """Lower bound of the score; null: none. Skywork scores are unbounded logits (23 is usual), so no clip by default."""
    clip_high: Float | None = None
    """Upper bound of the score; null: none."""

    @rule
    def _keys_go_together(self) -> None:
        if not self.models:
            raise Conflict("models: is empty; choose a reward, e.g. reward=skywork_v2_llama_8b")
        if self.clip_low is not None and self.clip_high is not None and self.clip_low >= self.clip_high:
            raise Conflict(f"clip_low={self.clip_low}: must be below reward.clip_high={self.clip_high}")
        if bool(self.overlong_penalty) != bool(self.overlong_buffer_tokens):
            given, lacking = ("overlong_penalty", "overlong_buffer_tokens")[:: 1 if self.overlong_penalty else -1]
            raise Conflict(
                f"{given}={getattr(self, given):g}: does nothing with reward.{lacking}=0; set both, or neither"
            )
        if self.granularity == "response":
            reason = "with reward.granularity=response; use segment"
            nothing_reads(self.segment, ["unit", "max_steps"], reason, prefix="segment.")


@dataclass
class DataSettings:
    """Training prompts: conf/data."""

    name: Text = MISSING
    """Short name of the set; the default run.name is made of it."""
    path: Text | None = None
    """JSON, JSONL or CSV file (`package:` paths allowed); null loads `hub_id`."""
    hub_id: Text | None = None
    """Data set on the Hugging Face hub, used when `path` is null."""
    revision: Text | None = None
    """Commit or tag on the hub."""
    split: Text = "train"
    """Split on the hub."""
    question_field: Text = "question"
    """Column that holds the prompt text."""
    limit: PositiveInt | None = None
    """Use only the first rows; null uses all."""
    overlong: Literal["error", "skip"] = "error"
    """A prompt over rollout.max_prompt_tokens: stop before anything starts, or leave it out and say how many were."""
