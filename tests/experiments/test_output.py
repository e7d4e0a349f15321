"""Output folders: whole at the end, the folder that was given, nothing lost wherever a process dies."""

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trajclust_experiments.commands.output import check_out, check_writable, staged
from trajclust_jax.data import DataError

OUTPUTS = {"summary.json", "model", "a.csv", "b.csv"}


def _fill(out, text, names=("summary.json", "a.csv")):
    with staged(out, OUTPUTS) as work:
        new = work / "new"
        (new / "model").mkdir(parents=True)
        (new / "model" / "weights").write_text(text)
        for name in names:
            (new / name).write_text(text)


def _content(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def _of(text, *names):
    return dict.fromkeys(("summary.json", "model/weights", *(names or ("a.csv",))), text)


@pytest.fixture(params=["new", "empty", "earlier", "link", "dangling link", "here", "disk"])
def out(request, tmp_path, monkeypatch):
    """What may be given as --out."""
    monkeypatch.chdir(tmp_path)
    place, target = tmp_path / "out", tmp_path / "far" / "target"
    match request.param:
        case "empty":
            place.mkdir()
        case "earlier":
            _fill(place, "zero", ("summary.json", "b.csv"))
        case "link":
            target.mkdir(parents=True)
            place.symlink_to(target)
        case "dangling link":
            place.symlink_to(target)
        case "here":
            place.mkdir()
            monkeypatch.chdir(place)
            return Path(".")
        case "disk":
            (place / "lost+found").mkdir(parents=True)
    return place


def test_results_lie_in_the_folder_that_was_given(out, tmp_path):
    real, link = Path(os.path.realpath(out)), out.is_symlink()
    inode = real.stat().st_ino if real.exists() else None
    _fill(out, "one")
    _fill(out, "two", ("summary.json", "b.csv"))
    assert _content(real) == _of("two", "b.csv")
    assert out.is_symlink() == link
    assert inode in (None, real.stat().st_ino)
    left = {path.name for path in (*tmp_path.iterdir(), *real.iterdir())}
    assert left <= {"out", "far", "lost+found", "model", "summary.json", "b.csv"}


@pytest.mark.parametrize("exists", [False, True])
def test_killed_anywhere_nothing_is_lost(tmp_path, monkeypatch, exists):
    """Every rename and every removal in turn is one that a process does not live to make."""
    left = itertools.repeat(True)  # whether the process lives to make each of its calls

    def mortal(function):
        def call(*arguments, **options):
            if not next(left, False):
                raise SystemExit
            return function(*arguments, **options)

        return call

    for name in ("rename", "unlink", "rmdir"):
        monkeypatch.setattr(Path, name, mortal(getattr(Path, name)))
    monkeypatch.setattr(shutil, "rmtree", mortal(shutil.rmtree))
    one, two, killed = _of("one", "b.csv") if exists else {}, _of("two"), True
    for calls in itertools.count():
        folder = tmp_path / str(calls)
        out = folder / "out"
        if exists:
            _fill(out, "one", ("summary.json", "b.csv"))
        left = iter([True] * calls)
        with contextlib.suppress(SystemExit):
            _fill(out, "two")
            killed = False
        found = _results(out)
        if "summary.json" in found:  # what looks whole is whole
            assert found in (one, two)
        whole = found == two or any(folder.rglob("whole")) or any(folder.rglob("cleared"))
        left = itertools.repeat(True)
        for lease in folder.rglob("lease"):  # the dead process'
            lease.unlink()
        with contextlib.suppress(ZeroDivisionError), staged(out, OUTPUTS):
            raise ZeroDivisionError
        assert _results(out) == (two if whole else one)
        if not killed:
            break
    assert calls > 3


def _results(folder):
    return {name: text for name, text in _content(folder).items() if not name.startswith(".")}


def test_other_files_are_never_touched(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="holds other files"):
        _fill(tmp_path, "one")
    with pytest.raises(ZeroDivisionError), staged(tmp_path / "out", OUTPUTS):
        raise ZeroDivisionError
    (tmp_path / "out").mkdir()
    with staged(tmp_path / "out", OUTPUTS) as work:
        (work / "new").mkdir()
        (work / "new" / "summary.json").touch()
        (tmp_path / "out" / "late.txt").write_text("mine")  # while the work goes on
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"late.txt", "summary.json"}
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_what_cannot_be_written_is_told_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for path, message in (
        (tmp_path / "file", "--out .*file is a file: give a folder"),
        (tmp_path / "file" / "deeper", "cannot be written: .*file is a file"),
        (tmp_path / ("x" * 300), "cannot be written: File name too long"),
    ):
        with pytest.raises(DataError, match=message):
            check_out(path, OUTPUTS)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(DataError, match="allows no new files; give another place"):
        check_writable(tmp_path / "a" / "b", "--out a/b")


def test_home_is_resolved(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    _fill(Path("~/out"), "one")
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="mounting is for root")
def test_a_mount_point_holds_the_results(tmp_path):
    """A container's volume: it cannot be renamed, nor can files be renamed into it."""
    (tmp_path / "out").mkdir()
    script = tmp_path / "fill.py"
    script.write_text(f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_output import _content, _fill, _of
_fill(Path("out"), "one"); _fill(Path("out"), "two")
assert _content(Path("out")) == _of("two"), _content(Path("out"))
""")
    command = f"mount -t tmpfs none out && {sys.executable} fill.py"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    if "denied" in done.stderr or "not permitted" in done.stderr:
        pytest.skip("mounting is not permitted here")
    assert done.returncode == 0, done.stderr
