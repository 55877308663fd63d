"""Checkpoints: whole folders or none.

A checkpoint is written into a folder beside its final place and renamed once every byte is on disk, so a crash at any
moment leaves the previous checkpoint whole. Its manifest names every file with its size and sha256, as the process that
wrote it saw them; a folder that does not match its manifest is torn and never resumed from. Only after a new checkpoint is
in place are older ones removed.

    ROOT/update-000123/manifest.json   update, best metric, resolved configuration, data fingerprint, files, its own sha256
    ROOT/update-000123/state.json      the controller's state
    ROOT/update-000123/...             whatever the workers saved
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import shutil
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from .errors import ClusterError, ConfigError, ModelError
from .files import changed_file, describe_files, differences, digest_of, read_json
from .settings.system import Group

Files = Mapping[str, Mapping[str, int | str]]
"""Bytes and sha256 by name below the checkpoint's folder."""

_logger = logging.getLogger(__name__)
_MANIFEST, _STATE = "manifest.json", "state.json"
_TORN = "the checkpoint is torn: resume from another one"
GENERATORS = "generators_rank"
"""How the name of the file begins that every trainer rank writes of its random number generators."""
_PARTIAL, _REPLACED, _DELETED = ".partial-", ".replaced-", ".deleted-"

NOT_IDENTITY = frozenset(
    {
        "run",
        "checkpoint",
        "tracking",
        "evaluation",
        "schedule.stop_after_updates",
        "trainer.max_restarts",
        "trainer.max_skipped_steps",
        "trainer.restart_pause_seconds",
        "trainer.sequence_parallel_size",
        "rollout.bucket_bytes",
        "rollout.log_level",
        "rollout.max_restarts",
        "rollout.timeout_seconds",
        "rollout.probe_every_syncs",
        "rollout.probe_tolerance",
        "cluster.name",
        "cluster.peak_tflops",
        "cluster.address",
        "cluster.local_num_cpus",
        "cluster.strategy",
        "cluster.expected_nodes",
        "cluster.network_interface",
        "cluster.policy.num_workers",
        "cluster.policy.min_workers",
        "cluster.rollout.min_workers",
        "cluster.reference.min_workers",
        "cluster.reward.min_workers",
        "cluster.placement_timeout_seconds",
        "cluster.start_timeout_seconds",
        "cluster.call_timeout_seconds",
        "cluster.silent_seconds",
        "cluster.stall_seconds",
        *(f"cluster.{group}.{key}" for group in get_args(Group) for key in ("strategy", "node_labels", "resources")),
    }
)
"""Settings that may change between a checkpoint and its resume without changing what is learned, but for the rounding of sums
where the number of trainer ranks changes."""


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint."""

    path: Path
    update: int
    state: dict[str, Any]
    """The controller's state."""
    config: dict[str, Any]
    """Resolved configuration of the run that wrote it."""
    data_fingerprint: str
    metric: float | None
    """Value of `metric_name`, or None."""
    metric_name: str | None
    files: Files
    """What was written."""

    @property
    def num_ranks(self) -> int:
        """Trainer ranks that wrote it."""
        return sum(Path(name).name.startswith(GENERATORS) for name in self.files)

    def differences(
        self, config: Mapping[str, Any], data_fingerprint: str, ignore: Set[str] = NOT_IDENTITY
    ) -> list[str]:
        """How a run that wants to resume differs from the one that wrote this: see `files.differences`."""
        old = {**self.config, "data_fingerprint": self.data_fingerprint}
        return differences(old, {**config, "data_fingerprint": data_fingerprint}, ignore)

    def refused(self, changes: Sequence[str]) -> ConfigError:
        """What a run that differs by these `changes` is refused with."""
        shown = "; ".join(changes[:8]) + (f"; and {len(changes) - 8} more" if len(changes) > 8 else "")
        goes_on = f"checkpoint.allow_changes=true goes on from update {self.update} with the new values"
        if all(one.startswith("schedule.max_updates: ") for one in changes):
            goes_on += ", and what is scheduled (trainer.lr_schedule) has followed the old end until there"
        else:
            goes_on += ", and its result is of neither configuration and comparable with no run of them"
        return ConfigError(
            f"{self.path} belongs to another configuration ({shown}); choose another run.directory (or run.name) to begin anew; "
            f"{goes_on}"
        )


class CheckpointStore:
    """The checkpoints of one run.

    Keeps the newest `keep_last` and, besides, the one with the best value of `best_metric` ("max" or "min"). The best
    one is found from the manifests, so it survives a resume. One process writes; `latest`, `best` and `open` only read
    and may be called beside it.
    """

    def __init__(self, root: Path | str, keep_last: int = 2, best_mode: str = "max", best_metric: str | None = None):
        assert keep_last >= 1 and best_mode in ("max", "min")
        self._root = Path(root)
        self._keep_last = keep_last
        self._best_mode = best_mode
        self._best_metric = best_metric
        self.committed: Path | None = None
        """The last checkpoint that this process wrote."""

    def recover(self) -> None:
        """Tidy up after a crash: remove half-written folders and put back one that was about to be replaced.

        For the writing process only, when it starts.
        """
        for folder in sorted(self._root.glob(f"{_REPLACED}*")):
            original = self._root / folder.name.removeprefix(_REPLACED)
            if original.exists():
                shutil.rmtree(folder)
            else:
                os.rename(folder, original)
        for prefix in (_PARTIAL, _DELETED):
            for folder in sorted(self._root.glob(f"{prefix}*")):
                shutil.rmtree(folder)

    def begin(self, update: int) -> Path:
        """An empty folder to save update `update` into; leftovers of an earlier attempt are removed."""
        self.recover()
        folder = self._root / f"{_PARTIAL}{_name(update)}"
        folder.mkdir(parents=True)
        return folder

    def commit(
        self,
        folder: Path,
        update: int,
        *,
        state: Mapping[str, Any],
        config: Mapping[str, Any],
        data_fingerprint: str,
        files: Files = MappingProxyType({}),
        metric: float | None = None,
    ) -> Path:
        """Make the folder given by `begin` the checkpoint of `update`, then remove those no longer kept.

        `state` and `config` must be JSON; `files` is what the workers say that they wrote into the folder. Checkpoints of
        later updates belong to a line that was left by resuming from an older one: they are removed too, once this one is
        in place. Returns the final folder.

        Raises ClusterError, with nothing committed, where the folder does not hold what the workers wrote.
        """
        assert folder == self._root / f"{_PARTIAL}{_name(update)}", "commit takes the folder that begin gave"
        for name, wrote in files.items():
            seen = (folder / name).stat().st_size if (folder / name).is_file() else None
            if seen != wrote["bytes"]:
                raise ClusterError(
                    f"checkpoint {folder}: a worker wrote {name} with {wrote['bytes']} bytes, but here it "
                    + ("is absent" if seen is None else f"has {seen}")
                    + "; run.directory must be on storage that every node sees"
                )
        usable = metric is not None and math.isfinite(metric)
        (folder / _STATE).write_text(json.dumps(state, allow_nan=False), encoding="utf-8")
        manifest = {
            "update": update,
            "metric": {"name": self._best_metric, "value": metric if usable else None},
            "data_fingerprint": data_fingerprint,
            "config": config,
            "files": {
                **files,
                **describe_files(folder, (f for f in _files(folder) if str(f.relative_to(folder)) not in files)),
            },
        }
        manifest["sha256"] = _digest_of(manifest)
        (folder / _MANIFEST).write_text(json.dumps(manifest, allow_nan=False, indent=1), encoding="utf-8")
        for file in _files(folder):
            _fsync(file)
        for directory, _, _ in os.walk(folder):
            _fsync(Path(directory))
        final = self._root / _name(update)
        replaced = self._root / f"{_REPLACED}{_name(update)}"
        if final.exists():
            os.rename(final, replaced)
        os.rename(folder, final)
        _fsync(self._root)
        if replaced.exists():
            shutil.rmtree(replaced)
        self._prune(update)
        self.committed = final
        return final

    def latest(self) -> Checkpoint | None:
        """The newest whole checkpoint, whose content has been read; damaged ones are skipped with a warning each.

        None where there is no checkpoint. Raises ModelError where there are some and none is whole: to begin anew would
        be another run.
        """
        folders = self._folders()
        for _, path in folders:
            try:
                return self.verify(self.open(path))
            except (ConfigError, ModelError) as error:
                _logger.warning("skipped: %s", error)
        if folders:
            raise ModelError(
                f"{self._root}: none of its checkpoints is whole; choose another run.name or run.directory to begin anew, "
                "or delete that folder"
            )
        return None

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that agrees with its manifest; the content of its files has not been read."""
        return next(iter(self._whole()), None)

    def best(self) -> Checkpoint | None:
        """The checkpoint with the best value of `best_metric`, the newest of equals; its content has been read."""
        whole = {checkpoint.update: checkpoint for checkpoint in self._whole()}
        while (update := best_update(self._values(list(whole.values())), self._best_mode)) is not None:
            try:
                return self.verify(whole.pop(update))
            except ModelError as error:
                _logger.warning("skipped: %s", error)
        return None

    def open(self, path: Path | str) -> Checkpoint:
        """Read one checkpoint folder and check it against its manifest, but for the contents of the files: see `verify`.

        Raises ConfigError when there is none, ModelError that names the file when one is missing or of another size, and
        where manifest, folder and state do not agree.
        """
        path = Path(path)
        if not (path / _MANIFEST).is_file():
            raise ConfigError(f"checkpoint.resume: {path} is not a checkpoint (it has no {_MANIFEST})")
        manifest = read_json(path / _MANIFEST, ModelError, _TORN)
        if not manifest.keys() >= {"update", "metric", "data_fingerprint", "config", "files"}:
            raise ConfigError(f"checkpoint.resume: {path / _MANIFEST} is not the manifest of a checkpoint")
        if "sha256" not in manifest:
            raise _torn(path, "an earlier version wrote it, which kept no digests")
        if manifest["sha256"] != _digest_of(manifest):
            raise _torn(path, f"{_MANIFEST} is not what was written")
        if _STATE not in manifest["files"]:
            raise _torn(path, f"{_MANIFEST} does not name {_STATE}")
        for name, wrote in manifest["files"].items():
            file = path / name
            if not file.is_file():
                raise _torn(path, f"{name} is missing")
            if file.stat().st_size != wrote["bytes"]:
                raise _torn(path, f"{name} has {file.stat().st_size} bytes instead of {wrote['bytes']}")
        state = read_json(path / _STATE, ModelError, _TORN)
        named = re.fullmatch(r"update-(\d{6,})", path.name)
        updates = {manifest["update"], state.get("update", manifest["update"])} | ({int(named[1])} if named else set())
        if len(updates) > 1:
            raise _torn(path, f"folder, {_MANIFEST} and {_STATE} speak of updates {sorted(updates, key=str)}")
        return Checkpoint(
            path=path,
            update=manifest["update"],
            state=state,
            config=manifest["config"],
            data_fingerprint=manifest["data_fingerprint"],
            metric=manifest["metric"]["value"],
            metric_name=manifest["metric"]["name"],
            files=manifest["files"],
        )

    @staticmethod
    def verify(checkpoint: Checkpoint) -> Checkpoint:
        """The checkpoint, once every byte of it has been read; raises ModelError that names a file with another content."""
        if changed := changed_file(checkpoint.path, checkpoint.files):
            raise _torn(checkpoint.path, changed)
        return checkpoint

    def _folders(self) -> list[tuple[int, Path]]:
        """(update, folder) of every checkpoint in place, the newest first."""
        matches = ((re.fullmatch(r"update-(\d{6,})", path.name), path) for path in self._root.glob("update-*"))
        return sorted(((int(match[1]), path) for match, path in matches if match), reverse=True)

    def _whole(self) -> list[Checkpoint]:
        """Every whole checkpoint, the newest first."""
        whole = []
        for _, path in self._folders():
            try:
                whole.append(self.open(path))
            except (ConfigError, ModelError) as error:
                _logger.warning("skipped: %s", error)
        return whole

    def _values(self, checkpoints: list[Checkpoint]) -> dict[int, float | None]:
        """The values that may be compared: those of today's best_metric."""
        return {c.update: c.metric if c.metric_name == self._best_metric else None for c in checkpoints}

    def _prune(self, newest: int) -> None:
        whole = self._whole()
        keep = kept_updates(self._values([c for c in whole if c.update <= newest]), self._keep_last, self._best_mode)
        for checkpoint in whole:
            if checkpoint.update not in keep:
                # Renamed first: half a deletion must not look like a torn checkpoint.
                deleted = self._root / f"{_DELETED}{checkpoint.path.name}"
                os.rename(checkpoint.path, deleted)
                shutil.rmtree(deleted)


def kept_updates(values: Mapping[int, float | None], keep_last: int, best_mode: str) -> set[int]:
    """Which checkpoints to keep, of updates with the value of the best metric (None: unknown)."""
    best = best_update(values, best_mode)
    return set(sorted(values)[-keep_last:]) | ({best} if best is not None else set())


def best_update(values: Mapping[int, float | None], best_mode: str) -> int | None:
    """The update with the best known value, the newest of equals; None when no value is known."""
    sign = 1.0 if best_mode == "max" else -1.0
    known = [(sign * value, update) for update, value in values.items() if value is not None]
    return max(known)[1] if known else None


def _torn(path: Path, reason: str) -> ModelError:
    return ModelError(f"checkpoint {path} is torn: {reason}; resume from another one")


def _digest_of(manifest: Mapping[str, Any]) -> str:
    """sha256 of everything else that a manifest says."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return digest_of([json.dumps(rest, sort_keys=True)])


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _fsync(path: Path) -> None:
    """Wait until a file or directory is on disk, whichever process wrote it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _name(update: int) -> str:
    return f"update-{update:06d}"
