# SPDX-License-Identifier: Apache-2.0
"""What a workload leaves in its folders never turns a rollback against others: no link is followed, no right is lent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qsafp_embedded.enforce.rollback import Checkpoint, tree_hash
from qsafp_embedded.errors import StoreError

NOBODY = 65534


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    """A checkpoint of ``work/data``, which holds one file."""
    (tmp_path / "work/data").mkdir(parents=True)
    (tmp_path / "work/data/state").write_text("good")
    made = Checkpoint([tmp_path / "work/data"], tmp_path / "store")
    made.take()
    return made


def outside(tmp_path: Path) -> Path:
    """A folder that is none of the workload's business."""
    other = tmp_path / "etc"
    (other / "data").mkdir(parents=True)
    (other / "data/state").write_text("precious")
    (other / "data/more").write_text("precious")
    return other


def test_a_folder_above_that_became_a_link_is_not_followed(checkpoint: Checkpoint, tmp_path: Path) -> None:
    other = outside(tmp_path)
    before = tree_hash(other)
    (tmp_path / "work").rename(tmp_path / "elsewhere")
    (tmp_path / "work").symlink_to(other)
    with pytest.raises(StoreError, match="link"):
        checkpoint.restore()
    assert tree_hash(other) == before


@pytest.mark.parametrize("name", ["data", "data.qsafp-rollback"])
def test_a_link_in_the_place_of_the_path_is_replaced_not_followed(checkpoint: Checkpoint, tmp_path: Path, name: str) -> None:
    other = outside(tmp_path)
    before = tree_hash(other)
    (tmp_path / "work/data").rename(tmp_path / "work/old")
    (tmp_path / "work" / name).symlink_to(other / "data")
    checkpoint.restore()
    assert tree_hash(other) == before
    assert not (tmp_path / "work/data").is_symlink()
    assert (tmp_path / "work/data/state").read_text() == "good"


def test_links_inside_come_back_as_links(tmp_path: Path) -> None:
    other, data = outside(tmp_path), tmp_path / "data"
    before = tree_hash(other)
    data.mkdir()
    (data / "folder").symlink_to(other)
    (data / "file").symlink_to(other / "data/state")
    made = Checkpoint([data], tmp_path / "store")
    made.take()
    for name in ("folder", "file"):
        (data / name).unlink()
        (data / name).mkdir()
        (data / name / "state").write_text("bad")
    made.restore()
    assert (data / "folder").readlink() == other
    assert (data / "file").readlink() == other / "data/state"
    assert tree_hash(other) == before


def test_a_link_in_the_place_of_the_path_is_not_copied_into_a_checkpoint(checkpoint: Checkpoint, tmp_path: Path) -> None:
    other = outside(tmp_path)
    (tmp_path / "work/data").rename(tmp_path / "work/old")
    (tmp_path / "work/data").symlink_to(other / "data")
    with pytest.raises(StoreError, match="link"):
        checkpoint.take()
    checkpoint.restore()
    assert sorted(p.name for p in (tmp_path / "work/data").iterdir()) == ["state"]


def test_a_pipe_is_an_error_and_no_wait(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    os.mkfifo(data / "pipe")
    with pytest.raises(StoreError, match="pipe"):
        Checkpoint([data], tmp_path / "store").take()


def test_owners_and_set_id_bits_come_back_together_or_not_at_all(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    data = tmp_path / "data"
    data.mkdir()
    for path in (data / "program", data):
        path.touch()
        os.chown(path, NOBODY, NOBODY)
    (data / "program").chmod(0o6755)
    made = Checkpoint([data], tmp_path / "store")
    made.take()
    (data / "program").write_text("changed")
    made.restore()
    for path in (data, data / "program"):
        assert (path.stat().st_uid, path.stat().st_gid) == (NOBODY, NOBODY), "a copy of root's would run as root"
    assert (data / "program").stat().st_mode & 0o7777 == 0o6755
    assert (data / "program").read_text() == ""


def test_a_copy_whose_owner_is_not_ours_to_give_has_no_set_id_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    data = tmp_path / "program"
    data.touch()
    os.chown(data, NOBODY, NOBODY)
    data.chmod(0o6755)
    made = Checkpoint([data], tmp_path / "store")

    def refuse(*_args: object, **_more: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "chown", refuse)
    made.take()
    made.restore()
    assert (data.stat().st_uid, data.stat().st_mode & 0o7777) == (0, 0o755)
