"""Generate the planned responses in fixed batches and keep them, so that a killed evaluation goes on where it stopped.

A response's last bits depend on what else was in its batch. Batches are therefore cut from the plan alone and are
generated and saved as wholes: whatever was killed in between, every response is the one an uninterrupted evaluation gives.
"""

from __future__ import annotations

import io
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..conversation import Protocol
from ..errors import DataError
from ..files import differences, digest_of, read_json, write_atomically, write_json
from ..rollouts import GenerationRequest, Rollout, SamplingParameters
from .plan import Ask, PlannedBenchmark

_logger = logging.getLogger(__name__)

Generate = Callable[[list[GenerationRequest], SamplingParameters], Iterable[list[Rollout]]]
"""A vLLM engine or the rollout group: chunks of finished responses, every request answered once."""


@dataclass(frozen=True)
class Generated:
    """One generated response as it left the engine, the prefilled beginning not included."""

    ids: np.ndarray
    """[T] int32, T >= 1."""
    logprobs: np.ndarray
    """[T] float32, of the distribution that was sampled from."""
    finish_reason: str


def generate_batch(
    asks: Sequence[Ask], generate: Generate, sampling: SamplingParameters
) -> Iterator[tuple[int, Generated]]:
    """Responses to `asks` as they finish, with their position."""
    requests = [GenerationRequest(i, i, ask.prompt_ids, ask.seed) for i, ask in enumerate(asks)]
    for chunk in generate(requests, sampling):
        for rollout in chunk:
            yield rollout.request_id, Generated(rollout.response_ids, rollout.logprobs, rollout.finish_reason)


class ResponseStore:
    """The responses of one evaluation in FOLDER/NAME/batch-0000.npz, with FOLDER/NAME/identity.json beside them.

    A response is found by what was asked for it (prompt and seed), so that more questions or repeats under the same name add
    to what is there.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], batch_size: int) -> None:
        """`identity` says what all responses of the folder depend on besides their questions: model and protocol."""
        self._folder, self._identity, self._batch_size = folder, identity, batch_size

    def check(self, planned: Sequence[PlannedBenchmark]) -> None:
        """Raises DataError with the difference when the folder holds responses of something else: of another benchmark or
        attack under a planned name, or of another model or protocol under any name. Writes nothing."""
        wanted = {one.name: self._identity_of(one) for one in planned}
        for path in sorted(self._folder.glob("*/identity.json")):
            folder = path.parent
            held = read_json(path, mend=f"delete {folder}, or choose another run.directory")
            if folder.name not in wanted:
                held = {key: held.get(key) for key in self._identity}
            if different := differences(held, wanted.get(folder.name, self._identity)):
                raise DataError(
                    f"{folder} holds responses of another evaluation ({'; '.join(different)}); choose another run.directory"
                )

    def open(self, planned: Sequence[PlannedBenchmark]) -> None:
        """Claim the folders of all benchmarks, or of none: raises DataError as `check` does."""
        self.check(planned)
        for one in planned:
            path = self._folder / one.name / "identity.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, self._identity_of(one), sort_keys=True)

    def num_missing(self, planned: PlannedBenchmark) -> int:
        """Responses that are still to be generated: those of no batch, and those of a damaged one, with a warning each."""
        for path in self._paths(planned):
            try:
                _load(path)
            except DataError as error:
                _logger.warning("%s", error)
                path.unlink()
        return len(self._missing(planned))

    def complete(
        self,
        planned: PlannedBenchmark,
        generate: Generate,
        sampling: SamplingParameters,
        on_response: Callable[[int], object],
    ) -> None:
        """Generate and save what is missing, in batches; `on_response` is called with the tokens of each response."""
        missing, number = self._missing(planned), -1
        for start in range(0, len(missing), self._batch_size):
            asks = missing[start : start + self._batch_size]
            # The place of a batch that was damaged and deleted is free again.
            number = next(free for free in itertools.count(number + 1) if not self._path(planned, free).is_file())
            found: dict[int, Generated] = {}
            for position, generated in generate_batch(asks, generate, sampling):
                found[position] = generated
                on_response(len(generated.ids))
            self._save(self._path(planned, number), asks, [found[i] for i in range(len(asks))])

    def read(self, planned: PlannedBenchmark) -> list[Generated]:
        """All responses in the plan's order; every one must be there."""
        held = self._held(planned)
        return [held[ask_key(ask)] for ask in planned.asks]

    def _missing(self, planned: PlannedBenchmark) -> list[Ask]:
        """In the plan's order: what a kill left out is cut into the same batches as by an uninterrupted evaluation."""
        held = self._held(planned)
        return [ask for ask in planned.asks if ask_key(ask) not in held]

    def _held(self, planned: PlannedBenchmark) -> dict[str, Generated]:
        return {key: one for path in self._paths(planned) for key, one in _load(path).items()}

    def _identity_of(self, planned: PlannedBenchmark) -> dict[str, Any]:
        return self._identity | {"benchmark": planned.benchmark.name, "attack": planned.attack}

    def _paths(self, planned: PlannedBenchmark) -> list[Path]:
        return sorted((self._folder / planned.name).glob("batch-*.npz"))

    def _path(self, planned: PlannedBenchmark, number: int) -> Path:
        return self._folder / planned.name / f"batch-{number:04d}.npz"

    def _save(self, path: Path, asks: Sequence[Ask], responses: list[Generated]) -> None:
        arrays = {
            "asks": np.asarray([ask_key(ask) for ask in asks]),
            "lengths": np.asarray([len(one.ids) for one in responses], dtype=np.int64),
            "ids": np.concatenate([one.ids for one in responses]).astype(np.int32),
            "logprobs": np.concatenate([one.logprobs for one in responses]).astype(np.float32),
            "stopped": np.asarray([one.finish_reason == "stop" for one in responses]),
        }
        content = io.BytesIO()
        np.savez(content, **arrays, sha256=np.asarray(_digest_of(arrays)))
        write_atomically(path, content.getvalue())


def ask_key(ask: Ask) -> str:
    """sha256 of what the engine is given for one response (token ids and seed), and of where its forced beginning starts."""
    parts = (np.int64(len(ask.prompt_ids)), ask.prompt_ids, np.int64(ask.seed), np.int64(len(ask.prefill_ids)))
    return digest_of(part.tobytes() for part in parts)


def _digest_of(arrays: Mapping[str, np.ndarray]) -> str:
    """sha256 of arrays by name, with their types."""
    return digest_of(f"{name} {arrays[name].dtype} ".encode() + arrays[name].tobytes() for name in sorted(arrays))


def _load(path: Path) -> dict[str, Generated]:
    """The responses of a batch by their asks; raises DataError for a damaged file."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in ("asks", "lengths", "ids", "logprobs", "stopped")}
            if str(stored["sha256"]) != _digest_of(arrays):
                raise ValueError("its sha256 is another")
        if not len(arrays["lengths"]) == len(arrays["stopped"]) == len(arrays["asks"]):
            raise ValueError(f"{len(arrays['lengths'])} responses to {len(arrays['asks'])} prompts")
        if not len(arrays["ids"]) == len(arrays["logprobs"]) == int(arrays["lengths"].sum()):
            raise ValueError("lengths and token ids differ")
        ends = np.cumsum(arrays["lengths"])[:-1]
        ids, logprobs = np.split(arrays["ids"], ends), np.split(arrays["logprobs"], ends)
        return {
            str(key): Generated(mine, its, "stop" if stopped else "length")
            for key, mine, its, stopped in zip(arrays["asks"], ids, logprobs, arrays["stopped"], strict=True)
        }
    except Exception as error:  # whatever a damaged archive makes numpy and zipfile raise
        raise DataError(f"{path}: cannot be read ({error}); it is generated again by the same command") from error


def identity_of(
    model: str, model_fingerprint: str, dtype: str, device: str, protocol: Protocol, seed: int, batch_size: int
) -> dict[str, Any]:
    """What makes two evaluations comparable response by response."""
    return {
        "model": model,
        "model_fingerprint": model_fingerprint,
        "dtype": dtype,
        "device": device,
        "protocol": asdict(protocol),
        "seed": seed,
        "batch_size": batch_size,
    }
