"""Records through kill -9, a second process, a full disk and a folder that may only be read."""
import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anmf_lab.plans import Job, run_plan
from anmf_lab.records import DOUBTS, Flag, Record, from_json, holding, on_file, read_record, save_record, to_json, write_whole

JOBS, ROWS = 6, 5
posix = pytest.mark.skipif(sys.platform == "win32", reason="forks and signals")


def record(name="toy", **changes):
    known = dict(name=name, what="a toy", data=dict(name="toy", sha256="00"), asked=dict(k=2), parameters={},
                 seeds=[0], claimed=None, measured=[1.])
    return Record(**known | changes)


def counting(log, pause=.002):
    "A plan whose every row writes a line to `log` when it begins"
    def run(base, old):
        rows = [] if old is None else list(old.measured)
        for row in range(len(rows), ROWS):
            with open(log, "a") as f:
                f.write(f"{base} {row}\n")
            time.sleep(pause)
            rows.append([base, row, "x" * 20_000])          # large enough to be torn
            left = ROWS - len(rows)
            yield dict(measured=rows, flags=(Flag("unfinished", f"{left} to go"),) if left else (),
                       beside={f"job{base}.png": bytes(9_000)})
    def job(i):
        return Job(name=f"job{i}", what="rows", asked=dict(rows=ROWS), run=run,
                   load=lambda: (dict(sha256=str(i)), i))
    return [job(i) for i in range(JOBS)]


def child(run):
    "A process that does `run` and ends without ceremony"
    pid = os.fork()
    if pid == 0:
        try:
            run()
            os._exit(0)
        except BaseException as e:
            os.write(2, f"{type(e).__name__}: {e}\n".encode())
            os._exit(1)
    return pid


def quiet(log, out):
    return lambda: run_plan(counting(log), out, say=lambda line: None)


def reached(out):
    "job -> rows on file; every file must be readable"
    return {p.stem: [tuple(r[:2]) for r in read_record(p).measured] for p in Path(out).glob("*.json")}


def kill_30_times(out, log):
    rng, before, kills = random.Random(0), {}, 0
    while kills < 30:
        pid = child(quiet(log, out))
        time.sleep(rng.uniform(0, .03))
        os.kill(pid, signal.SIGKILL)
        kills += os.waitpid(pid, 0)[1] == signal.SIGKILL
        now = reached(out)
        assert all(now[name][:len(rows)] == rows for name, rows in before.items()), "something was lost"
        if all(len(r) == ROWS for r in now.values()) and len(now) == JOBS:
            break
        before = now
    os.waitpid(child(quiet(log, out)), 0)
    return kills


def three_at_once(out, log):
    for pid in [child(quiet(log, out)) for _ in range(3)]:
        os.waitpid(pid, 0)


@posix
@pytest.mark.parametrize("what", ["kill_30_times", "three_at_once"])
def test_nothing_lost_nothing_twice_nothing_torn(what, tmp_path):
    "In a process of its own, which forks: a test process has threads"
    code = f"import sys, test_records as t; print(t.{what}(sys.argv[1], sys.argv[2]) or 0)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out"), str(tmp_path / "log")], text=True, capture_output=True,
                          env=os.environ | dict(PYTHONPATH=os.pathsep.join([str(Path(__file__).parent), *sys.path])))
    assert done.returncode == 0 and not done.stderr, done.stderr
    kills = int(done.stdout)
    wanted = {f"job{i}": [(i, row) for row in range(ROWS)] for i in range(JOBS)}
    assert reached(tmp_path / "out") == wanted
    began = (tmp_path / "log").read_text().splitlines()
    assert len(set(began)) == JOBS * ROWS <= len(began) <= JOBS * ROWS + kills     # a kill costs the row it hits, no other
    left = {p.name for p in (tmp_path / "out").iterdir() if p.suffix != ".lock"}      # a kill may leave a lock file, which nobody holds
    assert left == {f"job{i}.{e}" for i in range(JOBS) for e in ("json", "png")}


@posix
def test_the_lock_of_a_killed_process_is_free(tmp_path):
    path = tmp_path / "toy.json"
    code = ("import sys, time, pathlib; from anmf_lab.records import holding\n"
            "with holding(pathlib.Path(sys.argv[1])): print('mine', flush=True); time.sleep(60)")
    p = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert p.stdout.readline() == "mine\n"
    with holding(path) as ours:
        assert not ours
    p.kill()
    p.wait()
    p.stdout.close()
    assert list(tmp_path.iterdir())            # its file is still there, and stops nobody
    with holding(path) as ours:
        assert ours
    assert not list(tmp_path.iterdir())


def test_what_a_kill_has_left_is_taken_away_by_the_next_run(tmp_path):
    "Half a record, half a picture of another name, and a lock that nobody holds"
    job = Job(name="measured", what="a picture", asked={}, load=lambda: ({}, None),
              run=lambda base, old: iter([dict(measured=1, beside={"faces.png": b"whole"})]))
    rests = [tmp_path / f".{name}" for name in ("measured.json.7.part", "measured.json.lock", "faces.png.7.part")]
    for fate, left in (("written", rests), ("on file", rests[:2]), ("on file", rests[1:2])):
        for path in left: path.write_text("half")
        assert fate in str(run_plan([job], tmp_path, say=lambda line: None))
        assert sorted(p.name for p in tmp_path.iterdir()) == ["faces.png", "measured.json"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_whatever_stops_a_write_is_said_with_the_name_of_the_file(code, step, tmp_path, monkeypatch):
    old = save_record(record(), tmp_path).read_bytes()
    def full(*args): raise OSError(code, os.strerror(code))
    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match=f"toy.json could not be written: {os.strerror(code)}"):
        save_record(record(measured=[2.]), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["toy.json"] and (tmp_path / "toy.json").read_bytes() == old


@posix
def test_a_full_disk_is_named_and_leaves_what_was_there(tmp_path):
    old = save_record(record(), tmp_path).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="toy.json could not be written: File too large"):
            save_record(record(measured=list(range(1000))), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [p.name for p in tmp_path.iterdir()] == ["toy.json"] and (tmp_path / "toy.json").read_bytes() == old


READ_ONLY = """
import os, sys, pathlib
from test_records import counting, run_plan
out = pathlib.Path(sys.argv[1])
if os.getuid() == 0: os.setuid(65534)          # the superuser may write everywhere
try: run_plan(counting(os.devnull), out, say=lambda line: None)
except OSError as e: print(e)
"""


@posix
def test_a_folder_that_may_only_be_read_is_named():
    home = Path(tempfile.mkdtemp())        # not pytest's, whose folders are private to the user
    try:
        home.chmod(0o755)
        out = home / "out"
        out.mkdir(mode=0o555)
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        done = subprocess.run([sys.executable, "-c", READ_ONLY, str(out)], text=True, capture_output=True,
                              env=os.environ | dict(PYTHONPATH=path))
        assert done.stdout.strip() == f"{out / 'job0.json'} could not be written: Permission denied.", done.stderr
    finally:
        shutil.rmtree(home)


def test_what_is_on_file_in_a_read_only_folder_needs_no_lock(tmp_path):
    log = tmp_path / "log"
    run_plan(counting(log, 0), tmp_path / "out", say=lambda line: None)
    began = log.read_text()
    stamp = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    outcome = run_plan(counting(log, 0), tmp_path / "out", say=lambda line: None)
    assert list(outcome.on_file) == [f"job{i}" for i in range(JOBS)] and log.read_text() == began
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()} == stamp


@pytest.mark.parametrize("torn", ["", "{", '{"name": "job1"}', "[1, 2]", "null", '{"name": NaN'])
def test_a_torn_record_is_set_aside_and_does_not_stop_the_others(torn, tmp_path):
    (tmp_path / "job1.json").write_text(torn)
    said = []
    outcome = run_plan(counting(os.devnull, 0), tmp_path, say=said.append)
    assert len(outcome.written) == JOBS and outcome.ok
    assert (tmp_path / "job1.json.broken").read_text() == torn
    assert sum(str(tmp_path / "job1.json") in line and "job1.json.broken" in line for line in said) == 1


def test_other_data_neither_extend_nor_replace(tmp_path):
    run_plan(counting(os.devnull, 0)[:1], tmp_path, say=lambda line: None)
    old = (tmp_path / "job0.json").read_bytes()
    other = replace(counting(os.devnull, 0)[0], load=lambda: (dict(sha256="11"), 0), asked=dict(rows=ROWS + 1))
    outcome = run_plan([other], tmp_path, say=lambda line: None)
    assert "made from other data" in outcome.failed["job0"] and "job0.json" in outcome.failed["job0"] and not outcome.ok
    assert (tmp_path / "job0.json").read_bytes() == old
    with pytest.raises(ValueError, match="other data"):
        save_record(record("job0"), tmp_path)


def test_a_record_is_strict_json_and_comes_back(tmp_path):
    r = record(measured={"a": np.array([1., np.nan]), 2: np.float32(.5)}, more=dict(extra=np.int64(3)),
               flags=(Flag("short", "too short"), Flag("remark", "nothing")))
    def refuse(token): raise AssertionError(token)
    d = json.loads(to_json(r), parse_constant=refuse)
    assert d["measured"] == {"a": [1., None], "2": .5} and d["extra"] == 3 and d["unreliable"] == "too short"
    assert to_json(from_json(to_json(r))) == to_json(r)
    with pytest.raises(TypeError, match="cannot hold a Path|cannot hold a PosixPath|cannot hold a WindowsPath"):
        to_json(record(measured=Path("x")))


def test_only_a_code_decides_what_is_unreliable():
    assert record(flags=(Flag("remark", "unfinished: 3 of 7, not identifiable"),)).unreliable is None
    for code in DOUBTS:
        assert record(flags=(Flag(code, "any words"),)).unreliable == "any words"


def test_broken_records_are_all_kept(tmp_path):
    path = tmp_path / "toy.json"
    for i in range(3):
        path.write_text(f"{i}")
        assert on_file(path, lambda line: None) is None
    assert sorted(p.read_text() for p in tmp_path.iterdir()) == ["0", "1", "2"]


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def stop(*args): raise KeyboardInterrupt
    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "x.json", b"abc")
    assert not list(tmp_path.iterdir())
