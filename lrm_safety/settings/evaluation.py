"""Schema of an evaluation: benchmarks, judges, protocol."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from omegaconf import MISSING

from ..conversation.families import PROTOCOLS
from ..errors import ConfigError
from ..registry import Registry, check_choices
from .components import ModelSettings
from .types import (
    DIRECTORY,
    AutoDevice,
    Conflict,
    Fraction,
    Name,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Seed,
    Text,
    one_of,
    rule,
)

BENCHMARKS: Registry[Any] = Registry(
    "benchmarks",
    mend="write @benchmark(NAME, kind=..., scoring=...) above its loader",
    declared_in="lrm_safety.evaluation.benchmarks",
    calls={"load": None, "by_arguments": None},
)
"""What they are expected to be is said beside that class, which is imported with the first of them."""
JUDGES: Registry[type] = Registry(
    "judges",
    type,
    mend="write one with @judge(NAME) above it; for a function choose kind=python",
    declared_in="lrm_safety.evaluation.judges",
)
RefusalIn = Literal["safety", "details", "nowhere"]
"""Where a judge's verdicts say whether a text declines: its safety is just that, a detail beside harm, or nowhere."""
Needs = Literal["nothing", "weights", "engine"]
"""What a judge has to load: nothing, a model's weights, or an engine of its own, for which training has no room."""
JudgeView = Literal["trace", "answer", "full", "prefix"]
"""What a judge reads of a response; prefix: the trace's beginnings, to find where it turns unsafe (judges/prefixes.py)."""
TellsRefusals = Callable[["JudgeSettings", str], RefusalIn]


@dataclass(frozen=True)
class JudgeKind:
    """What is declared of a kind of judge.

    Attributes:
        of_harm: it finds a harmless answer to a harmless request safe, refused or not.
        refusal_in: where its verdicts say whether a text declines, by the judge's settings and their key.
        finds_beginnings: whether the beginnings of a trace can be judged (the view `prefix`).
    """

    name: str
    needs: Needs
    of_harm: bool
    refusal_in: RefusalIn | TellsRefusals
    finds_beginnings: bool

    def __post_init__(self) -> None:
        check_choices(self)


Kind = Literal["safety", "over_refusal", "helpfulness", "reasoning", "robustness"]
"""What a benchmark measures. robustness: reasoning under an attack."""


def benchmark_kind(task: str, arguments: dict[str, Any], attack: str | None, key: str) -> Kind:
    """What a configured benchmark measures; raises ConfigError, naming `key`, for an unknown one."""
    found = BENCHMARKS.get(task, key)
    kind: Kind = "robustness" if attack else found.configured(arguments).kind
    return kind


def judge_class(kind: str, key: str) -> Any:
    """The class of a kind of judge; raises ConfigError, naming `key`, for an unknown one or a class that declares none."""
    found = JUDGES.get(kind, key)
    if "declared" not in vars(found):
        raise ConfigError(f"{key}={kind}: {found.__name__} is not declared a judge; write @judge(NAME) above it")
    return found


def judge_kind(kind: str, key: str) -> JudgeKind:
    """What is declared of a kind of judge; raises as `judge_class` does."""
    declared: JudgeKind = judge_class(kind, key).declared
    return declared


@dataclass
class BenchmarkSettings:
    """One benchmark in conf/evaluation; its name in the dictionary is its name in results and metrics."""

    task: Annotated[str, one_of(BENCHMARKS)] = MISSING
    """What is asked (docs/evaluation.md); or `package.module:load` of a loader of your own with @benchmark above it."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Options of the benchmark's loader, such as `subset`, or `data` for the path of its file."""
    samples: PositiveInt | None = None
    """Responses a question; null: evaluation.samples, then the benchmark's protocol (64 for AIME and GPQA-Diamond, 4 for
    MATH500, else 1; 1 when sampling is greedy)."""
    limit: PositiveInt | None = None
    """Ask only so many questions; null: evaluation.limit."""
    attack: Text | None = None
    """Transform that every prompt runs under: badchain, compliant_trace, empty_trace, long_puzzle."""
    attack_arguments: dict[str, Any] = field(default_factory=dict)
    """Options of the attack."""


@dataclass
class JudgeSettings:
    """One judge of safety in conf/judge; several judge the same responses, and their agreement is reported."""

    kind: Annotated[str, one_of(JUDGES)] = "refusal_rules"
    """refusal_rules: no model. reward_model: a classifier with unitxt's AttaQ formula. guard: Llama Guard, Granite
    Guardian, WildGuard or Qwen3Guard in vLLM. llm: an OpenAI-compatible endpoint with AIR-Bench's prompts or StrongREJECT's
    rubric. python: a function. Or `package.module:Class` of a judge of your own with @judge above it."""
    views: list[JudgeView] = field(default_factory=lambda: ["trace", "answer", "full"])
    """Views of a response that this judge reads, each on its own: trace, answer, full; prefix reads the trace's beginnings
    too, for where unsafe text first appears."""
    path: Text | None = None
    """reward_model, guard: Hugging Face id, folder, `package:` or `cache:` path."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Further options of this kind of judge (docs/evaluation.md)."""

    @rule
    def _keys_go_together(self) -> None:
        if not set(self.views) - {"prefix"} or len(set(self.views)) < len(self.views):
            raise Conflict("views: must name each view at most once, and at least one beside prefix")


def judge_arguments(name: str, settings: JudgeSettings, device: str = "cpu") -> tuple[Any, dict[str, Any]]:
    """The judge's class and all arguments for it. Raises ConfigError for unknown ones and for one that lacks."""
    key = f"evaluation.judges.{name}"
    make = judge_class(settings.kind, f"{key}.kind")
    given: dict[str, Any] = {"name": name, **settings.arguments}
    known = [option for option in inspect.signature(make).parameters if option != "name"]
    if settings.path is not None:
        if "path" not in known:
            raise ConfigError(f"{key}.path: kind={settings.kind} has none")
        given["path"] = settings.path
    if "device" in known:
        given["device"] = device
    for option in given.keys() - {"name"}:
        if option not in known:
            raise ConfigError(
                f"{key}.arguments.{option}: unknown option of kind={settings.kind}; known: {', '.join(known) or 'none'}"
            )
    try:
        inspect.signature(make).bind(**given)
    except TypeError as error:
        raise ConfigError(f"{key}.arguments: {error}") from error
    return make, given


@dataclass
class EvaluationSettings:
    """Benchmarks, judges and sampling of an evaluation: conf/evaluation. The same keys serve `lrm-safety evaluate` and the
    evaluation inside training."""

    every_updates: NonNegativeInt = 0
    """In training: evaluate at update 0, then every so many updates, and at the end; 0: never."""
    benchmarks: dict[Name, BenchmarkSettings] = field(default_factory=dict)
    """Benchmarks by name; each is logged as evaluation/NAME."""
    judges: dict[Name, JudgeSettings] = field(default_factory=dict)
    """Judges of safety by name. The first one gives evaluation/NAME of a benchmark that is judged."""
    limit: PositiveInt | None = None
    """Ask only so many questions of each benchmark, drawn once for all by their groups: a larger number adds to a smaller
    one. null: all, in the order of the data."""
    samples: PositiveInt | None = None
    """Responses a question, for every benchmark; null: as each benchmark's protocol says."""
    protocol: Annotated[str, one_of(("auto", *PROTOCOLS, "training"))] = "auto"
    """Sampling protocol; auto: the one of the model's family. training: as the run samples its rollouts."""
    temperature: NonNegativeFloat | None = None
    """Sampling temperature; null: the protocol's. 0 is greedy, which thinking protocols refuse."""
    top_p: Fraction | None = None
    """Nucleus; null: the protocol's."""
    top_k: NonNegativeInt | None = None
    """Top-k, 0: off; null: the protocol's."""
    max_response_tokens: PositiveInt | None = None
    """Longest response; null: the protocol's. In training never above rollout.max_response_tokens."""
    overlong: Literal["error", "skip"] = "error"
    """A prompt that leaves no room in the model's context is an error that names the question, or is skipped and
    counted."""
    seed: Seed = 0
    """Seed of sampling and bootstrap: a request's seed depends on it, the benchmark, the question and the repeat alone.
    `lrm-safety evaluate` takes it from `seed`; in training it stays as it is, so that runs of several seeds are asked alike."""
    batch_size: PositiveInt | None = 256
    """Responses generated and saved together: what each engine of a killed evaluation generates again at most. Part of the
    protocol, since a response's last bits depend on its batch. null: all requests are in the engines at once and are saved as
    they end, at the latest after 30 seconds: with long responses several times faster, and no longer the same to the last bit
    after a kill or with other engines."""
    log_text: bool = False
    """Keep prompts and responses as text: in samples.jsonl, in W&B's table of samples, and as Inspect logs. Off: hashes and
    lengths, and no Inspect logs, since the text may be harmful. Switched on later, the same command generates nothing again."""


BEHIND_ENDPOINT = "endpoint:"
"""The `model.path` of conf/model/endpoint.yaml."""


@dataclass
class EndpointSettings:
    """An OpenAI-compatible endpoint that a model is behind: conf/model/endpoint.yaml."""

    url: Text | None = None
    """Address before `/chat/completions`, such as http://localhost:8000/v1; null: `model.path` is a model of ours."""
    model: Text | None = None
    """Name that the endpoint serves it by; null: model.name."""
    api_key_env: Text | None = None
    """Environment variable that holds the key; null: none is sent."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Laid over what a request holds besides its messages (temperature, top_p, top_k where the protocol has one, max_tokens, seed);
    null takes one out."""
    max_concurrency: PositiveInt = 16
    """Requests that are open at once."""
    timeout_seconds: PositiveFloat = 1800.0
    """Limit of one request, its whole response included."""
    max_retries: NonNegativeInt = 5
    """Further tries of a request after a failed connection, a reply that is none, or the status 408, 429 or 5xx."""
    max_delay_seconds: PositiveFloat = 60.0
    """Longest wait before another try, `Retry-After` included."""


@dataclass
class EvaluatedModelSettings(ModelSettings):
    """The model to be measured: conf/model."""

    adapter: Text | None = None
    """Adapter (LoRA) on top of `path`: a folder as peft writes it, such as RUN/export/adapter, or a hub id. It is merged into a
    folder of its own while responses are generated, as the export of a run does."""
    endpoint: EndpointSettings = field(default_factory=EndpointSettings)
    """A model that others serve."""


@dataclass
class EvaluateRunSettings:
    """Where an evaluation's results go."""

    name: Text = "evaluate-${model.name}"
    """Name of the evaluation; its folder is outputs/NAME unless `directory` says otherwise."""
    directory: Text = DIRECTORY
    """Folder of responses, verdicts, Inspect logs, results.json and samples.jsonl."""
    objective: Text | None = None
    """Metric whose last value a run of -m gives to a sweeper that searches, such as hydra-optuna-sweeper; null: none. Example:
    evaluation/attaq."""
    device: AutoDevice = "auto"
    """Where engine and judge models run; auto: cuda where there is one."""
    num_engines: PositiveInt = 1
    """vLLM engines that generate. 1: in this process, without Ray. More: each a Ray actor with a GPU of its own (times
    rollout.tensor_parallel_size), or its share of the cores; results are those of one engine, evaluation.batch_size=null
    excepted."""
