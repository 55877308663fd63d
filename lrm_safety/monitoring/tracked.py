"""W&B's run of a command that measures or trains beside the training loop: evaluate, audit-reward, analyze, reward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LrmSafetyError
from ..settings.system import TrackerSettings

if TYPE_CHECKING:
    from .wandb_view import WandbView


@contextmanager
def tracked(
    directory: Path, name: str, tracking: TrackerSettings, job_type: str, config: Mapping[str, Any]
) -> Iterator[WandbView | None]:
    """The run while the block runs, finished at its end; None where tracking.wandb=disabled.

    The same command in the same folder goes on with the same run. An error is an alert and leaves the run failed.
    """
    if tracking.wandb == "disabled":
        yield None
        return
    from .wandb_view import WandbView

    earlier = sorted((directory / "wandb").glob("*run-*-*"))
    tracker_id = earlier[-1].name.rpartition("-")[2] if earlier else None
    view = WandbView(directory, tracking, name, job_type, config, tracker_id=tracker_id)
    try:
        yield view
    except BaseException as error:
        if isinstance(error, Exception):
            view.alert(
                f"{name} failed", str(error) if isinstance(error, LrmSafetyError) else type(error).__name__, "ERROR"
            )
        view.close(1)
        raise
    view.close(0)


def log_results(
    directory: Path,
    name: str,
    tracking: TrackerSettings,
    job_type: str,
    config: Mapping[str, Any],
    results: Mapping[str, Any],
    summary: Mapping[str, float | str | None] | None = None,
    samples: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Every figure of `results` as a summary and as a table with its interval; `summary` are further figures, `samples` rows
    of a second table."""
    with tracked(directory, name, tracking, job_type, config) as view:
        if view is None:
            return
        rows = list(figure_rows(results))
        view.summary({row["figure"]: row["value"] for row in rows} | dict(summary or {}))
        if rows:
            view.table("figures", rows)
        if samples:
            view.table("samples", samples)


def figure_rows(results: Any, path: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    """The figures (dictionaries with a `value`) of nested results, named by their path.

    Members of a list are named by their strings, such as the model's name, and by their temperature; figures in a list by
    their number.
    """
    if isinstance(results, Mapping):
        if "value" in results:
            about = {key: one for key, one in results.items() if not isinstance(one, Mapping) and key != "figure"}
            yield {"figure": "/".join(path), **about}
            return
        for key, one in results.items():
            yield from figure_rows(one, (*path, str(key)))
    elif isinstance(results, list):
        for i, one in enumerate(results):
            if isinstance(one, Mapping):
                labels = [f"{key}={v}" if key == "temperature" else v for key, v in one.items() if _labels(key, v)]
                yield from figure_rows(one, (*path, *(labels or [str(i)])))


def _labels(key: str, value: Any) -> bool:
    return isinstance(value, str) or key == "temperature"
