"""What an evaluation measures: a model of ours behind engines, or one behind an endpoint. The rest of an evaluation is the same."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from ..conversation.families import FAMILIES, get_family
from ..conversation.response import ResponseParser
from ..errors import ConfigError
from ..modeling.adapter import find_adapter, merge_adapter
from ..modeling.configuration import check_causal_lm, load_tokenizer
from ..modeling.folder import model_fingerprint
from ..models_cache import ensure_cached
from ..monitoring.progress import waiting
from ..results import EvaluatedAdapter, Model
from ..rollouts import SamplingParameters
from ..settings import EvaluateSettings, ModelSettings
from ..settings.paths import CACHE_PREFIX, resolve
from .engine import Engine, EngineGroup, context_tokens, engine_spec, resolve_device
from .plan import PlannedBenchmark, Planner, check_template_thinks, choose_protocol, sampling_parameters
from .remote import RemoteEngine, RemoteResponse, TextParser, TextPlanner
from .responses import Engines, Generated, identity_of

MERGED = ".merged"


def subject_of(settings: EvaluateSettings) -> Subject:
    """The model of a checked configuration. Raises ConfigError, DataError or ModelError in one line."""
    return LocalModel(settings) if settings.model.endpoint.url is None else RemoteModel(settings)


class LocalModel:
    """A folder or hub id, and perhaps an adapter on it: its own tokenizer renders prompts and reads responses.

    Attributes:
        kind: what one of its responses is, for the store.
        protocol, sampling: how it is sampled.
        planner: asks it.
        fingerprint: of the model at its path.
        identity: what its responses depend on besides their questions.
        batch_size: responses that are generated together; None: one queue.
    """

    kind = Generated

    def __init__(self, settings: EvaluateSettings) -> None:
        evaluation, model = settings.evaluation, settings.model
        if model.path.startswith(CACHE_PREFIX):
            ensure_cached(model.path.removeprefix(CACHE_PREFIX), lambda line: None)
        model = replace(model, path=resolve(model.path, "model.path"))
        self.model, self._settings = model, settings
        self.family = get_family(model.family)
        config = check_causal_lm(model)
        self.tokenizer = load_tokenizer(model)
        stop = tuple(self.family.stop_token_ids(self.tokenizer))
        rollout = settings.rollout
        self.protocol = choose_protocol(
            evaluation,
            self.family,
            SamplingParameters(rollout.temperature, rollout.top_p, rollout.top_k, rollout.max_response_tokens, stop),
        )
        self.sampling = sampling_parameters(self.protocol, stop)
        check_template_thinks(self.protocol, self.family, self.tokenizer)
        context = context_tokens(model.path, model.revision, model.trust_remote_code)
        longest = self.protocol.max_response_tokens
        room = rollout.max_prompt_tokens if context is None else context - longest
        if room < 1:
            raise ConfigError(
                f"evaluation.max_response_tokens={longest}: leaves no room for a prompt in the model's context of {context} "
                "tokens; lower it"
            )
        self.planner = Planner(
            self.family,
            self.tokenizer,
            system_prompt=model.system_prompt,
            max_prompt_tokens=room,
            limit_key=f"the model's context of {context} tokens less evaluation.max_response_tokens",
            num_embeddings=getattr(config.get_text_config(), "vocab_size", None),
        )
        self.device = resolve_device(settings.run.device)
        self.batch_size = evaluation.batch_size
        self.fingerprint = model_fingerprint(model.path, model.revision)
        self.adapter = find_adapter(model.adapter, model) if model.adapter else None
        self.identity = identity_of(
            model.name,
            self.fingerprint,
            model.dtype,
            self.device,
            self.protocol,
            evaluation.seed,
            self.batch_size,
        )
        if model.family not in FAMILIES.ours:  # what else of a family decides a response is in its prompt and protocol
            self.identity["stop_token_ids"] = list(stop)
        if self.adapter is not None:
            self.identity["adapter_fingerprint"] = self.adapter.fingerprint

    def parser(self) -> ResponseParser:
        """Reads its responses."""
        return ResponseParser(self.family, self.tokenizer)

    @contextmanager
    def engines(self, planned: Sequence[PlannedBenchmark], directory: Path, console: Console) -> Iterator[Engines]:
        """What answers the planned questions; `directory` is the evaluation's."""
        settings = self._settings
        with self._plain_model(directory / MERGED, console) as model:
            wanted = engine_spec(
                model,
                settings.rollout,
                device=self.device,
                seed=settings.evaluation.seed,
                max_prompt_tokens=max(len(ask.prompt_ids) for one in planned for ask in one.asks),
                max_response_tokens=self.protocol.max_response_tokens,
                num_engines=settings.run.num_engines,
            )
            several = settings.run.num_engines > 1
            engine = (
                EngineGroup(wanted, lambda line: console.print(line, soft_wrap=True)) if several else Engine(wanted)
            )
            try:
                yield engine
            finally:
                engine.close()

    def named(self) -> Model:
        """As results.json has it."""
        model, adapter = self.model, self.adapter
        return Model(
            name=model.name,
            path=model.path,
            family=model.family,
            dtype=model.dtype,
            fingerprint=self.fingerprint,
            adapter=None if adapter is None else EvaluatedAdapter(adapter.path, adapter.fingerprint),
        )

    @contextmanager
    def _plain_model(self, merged: Path, console: Console) -> Iterator[ModelSettings]:
        """The model that the engines load: with an adapter one that it is merged into, at `merged` until they end."""
        if self.adapter is None:
            yield self.model
            return
        try:
            with waiting(console, f"merging {self.adapter.path} into its base"):
                merge_adapter(self.model, self.adapter, merged)
            yield replace(self.model, path=str(merged), revision=None)
        finally:
            shutil.rmtree(merged, ignore_errors=True)


class RemoteModel:
    """A model behind an OpenAI-compatible endpoint, which renders prompts itself. Attributes as those of `LocalModel`."""

    kind = RemoteResponse
    batch_size = None
    """What the endpoint runs together nobody knows."""

    def __init__(self, settings: EvaluateSettings) -> None:
        evaluation, model = settings.evaluation, settings.model
        endpoint, self._model = model.endpoint, model
        self.family = get_family(model.family)
        rollout = settings.rollout
        self.protocol = choose_protocol(
            evaluation,
            self.family,
            SamplingParameters(rollout.temperature, rollout.top_p, rollout.top_k, rollout.max_response_tokens, ()),
        )
        self.sampling = sampling_parameters(self.protocol, ())
        self.planner = TextPlanner()
        served = endpoint.model or model.name
        self.fingerprint = f"{served} at {endpoint.url}"
        # Without the address: the same model may be served from another one when an evaluation goes on.
        self.identity = identity_of(
            model.name, served, "", "endpoint", self.protocol, evaluation.seed, self.batch_size
        ) | {"parameters": endpoint.parameters, "system_prompt": model.system_prompt}
        self._engine = RemoteEngine(endpoint, served, model.system_prompt)

    def parser(self) -> TextParser:
        """Reads its responses."""
        return TextParser(self.family)

    @contextmanager
    def engines(self, planned: Sequence[PlannedBenchmark], directory: Path, console: Console) -> Iterator[Engines]:
        """What answers the questions."""
        try:
            yield self._engine
        finally:
            self._engine.close()
            if self._engine.num_filtered:
                console.print(
                    f"{self._engine.num_filtered} responses were ended by the endpoint's filter; they count as cut off",
                    soft_wrap=True,
                )

    def named(self) -> Model:
        """As results.json has it."""
        model = self._model
        return Model(model.name, str(model.endpoint.url), model.family, "", self.fingerprint)


Subject = LocalModel | RemoteModel
