"""Read a data set from the Hugging Face hub, at a commit that is known and said."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import DataError, first_line

logger = logging.getLogger(__name__)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_RESOLVE_SECONDS = 10.0


def read_hub(
    hub_id: str,
    config: str | None = None,
    *,
    split: str,
    revision: str | None,
    mend: str,
    revision_key: str,
) -> tuple[Iterable[Any], str]:
    """(rows of one split, their source: `owner/name@commit`).

    A revision that is no commit is resolved first, so that what is read has a name that stays; a warning says which
    value of `revision_key` pins it. Where the hub does not tell (offline, from its cache) the source has no commit.
    Raises DataError, ending in `mend`, when the split cannot be had.
    """
    # Imported here: it costs seconds, and local files do without it.
    from datasets import load_dataset

    commit = _commit(hub_id, revision)
    if commit is None or commit != revision:
        known = f"; {revision_key}={commit} pins what is read now" if commit else f"; set {revision_key} to a commit"
        logger.warning("%s: revision %s may change on the hub%s", hub_id, revision or "main", known)
    try:
        rows = load_dataset(hub_id, config, split=split, revision=commit or revision)
    # Offline, gated, no such set, split or revision, a broken file: every library below has its own class for it.
    except Exception as error:
        reason = first_line(error)[:200]
        raise DataError(f"{hub_id}: cannot load split {split!r} from the hub ({reason}); {mend}") from error
    return rows, f"{hub_id}@{commit}" if commit else hub_id


def _commit(hub_id: str, revision: str | None) -> str | None:
    """The commit that a revision is now, or None where nobody can say."""
    if revision is not None and _COMMIT.fullmatch(revision):
        return revision
    if Path(hub_id).exists():
        return None
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(hub_id, revision=revision, timeout=_RESOLVE_SECONDS).sha
    except Exception as error:  # loading says what is wrong, if anything is
        logger.debug("%s: its commit cannot be asked for: %s", hub_id, error)
        return None
