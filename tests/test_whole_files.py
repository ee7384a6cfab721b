"""Folders and groups of files that are replaced completely or not at all."""

from pathlib import Path

import pytest

from common.errors import UserError
from common.folders import check_folder
from common.whole_files import whole_folder, whole_group

NAMES = ("table.csv", "sheet.png", "summary.json")


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_folder_appears_complete(tmp_path: Path) -> None:
    """Also in place of an empty one, and readable by others."""
    target = tmp_path / "new/set"
    for _ in range(2):
        with whole_folder(target) as made:
            (made / "file").write_text("content")
            assert not target.exists() or not contents(target)
        assert contents(target) == {"file": "content"} and target.stat().st_mode & 0o777 == 0o755
        assert list(target.parent.iterdir()) == [target]
        (target / "file").unlink()


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_failed_block_leaves_no_folder(tmp_path: Path, failure: type[BaseException]) -> None:
    with pytest.raises(failure), whole_folder(tmp_path / "set") as made:
        (made / "file").touch()
        raise failure
    assert not list(tmp_path.iterdir())


def test_the_first_folder_stays(tmp_path: Path) -> None:
    """The second writer gets an OSError, and leaves nothing."""
    with pytest.raises(OSError), whole_folder(tmp_path / "set"):
        with whole_folder(tmp_path / "set") as first:
            (first / "file").write_text("first")
    assert [path.name for path in tmp_path.iterdir()] == ["set"] and contents(tmp_path / "set") == {"file": "first"}


def test_the_current_folder_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell in a folder that was replaced would be in a deleted one."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError), whole_folder(Path(".")):
        pass
    assert not list(tmp_path.iterdir())


def test_a_group_replaces_the_old_one(tmp_path: Path) -> None:
    for name in (*NAMES, "own.txt"):
        (tmp_path / name).write_text("old")
    with whole_group(tmp_path, NAMES) as made:
        for name in ("table.csv", "summary.json"):
            (made / name).write_text("new")
        assert (tmp_path / "summary.json").read_text() == "old"
    assert contents(tmp_path) == {"table.csv": "new", "summary.json": "new", "own.txt": "old"}


def test_a_failed_group_changes_nothing(tmp_path: Path) -> None:
    """A folder made for it is removed, one with files stays as it was."""
    (tmp_path / "old").mkdir()
    (tmp_path / "old/summary.json").write_text("old")
    for folder in ("old", "new"):
        with pytest.raises(KeyboardInterrupt), whole_group(tmp_path / folder, NAMES) as made:
            (made / "summary.json").write_text("new")
            raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert contents(tmp_path / "old") == {"summary.json": "old"}


def test_an_interrupted_replacement_leaves_no_summary(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text("old")
    with pytest.raises(OSError), whole_group(tmp_path, NAMES) as made:
        for name in NAMES:
            (made / name).write_text("new")
        (tmp_path / "sheet.png").mkdir()  # neither removed nor replaced by a file
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sheet.png"]


def test_check_folder(tmp_path: Path) -> None:
    """A folder need not exist, and is not made; a file and a link to nothing are rejected."""
    check_folder(tmp_path / "a/b", "-o a/b:", "name another")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nothing")
    for name in ("file", "file/below", "link"):
        with pytest.raises(UserError, match=r"^-o x: cannot be written \(.+\); name another$"):
            check_folder(tmp_path / name, "-o x:", "name another")
