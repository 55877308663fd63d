"""The files of a checkpoint that a trainer rank answers for: what is gone must not look whole."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from lrm_safety.errors import ClusterError
from lrm_safety.workers.policy import described

FILES = [
    f"{folder}{name.format(rank)}"
    for rank in (0, 1)
    for folder, name in (
        ("", "generators_rank0000{}.pt"),
        ("zero3/", "zero_pp_rank_{}_mp_rank_00_model_states.pt"),
        ("zero3/", "zero_pp_rank_{}_mp_rank_00_optim_states.pt"),
    )
]
"""As DeepSpeed and we call them."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "zero3").mkdir()
    for name in [*FILES, "zero_to_fp32.py"]:
        (tmp_path / name).write_text(name)
    return tmp_path


def test_each_rank_answers_for_its_own(folder: Path) -> None:
    first, second = described(folder, 0), described(folder, 1)
    assert set(first) == {*FILES[:3], "zero_to_fp32.py"} and set(second) == set(FILES[3:])
    assert second[FILES[4]] == {"bytes": len(FILES[4]), "sha256": hashlib.sha256(FILES[4].encode()).hexdigest()}


@pytest.mark.parametrize("gone", FILES)
def test_a_file_that_is_gone_is_told(folder: Path, gone: str) -> None:
    """As when the run's folder is removed while a checkpoint is written."""
    (folder / gone).unlink()
    rank = FILES.index(gone) // 3
    with pytest.raises(ClusterError, match=rf"what trainer rank {rank} wrote there is gone \(.*run\.directory removed"):
        described(folder, rank)
    assert described(folder, 1 - rank)


def test_a_file_that_goes_while_it_is_read_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", str(folder / FILES[1]))

    monkeypatch.setattr("lrm_safety.workers.policy.describe_files", gone)
    with pytest.raises(ClusterError, match=r"is gone \(zero_pp_rank_0_mp_rank_00_model_states\.pt\)"):
        described(folder, 0)


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="what trainer rank 0 wrote there is gone"):
        described(tmp_path / "absent", 0)
