"""Every command that keeps records, killed thirty times; two at once in one folder; a full disk; a folder that may only be read.

    python benchmarks/study_kills.py [--only "reproduce lafa"] [--out results/reliability]

A command runs in a fork of this process, as `anmf-lab` runs it, on the smallest plan that still has several findings; images
and spectra are drawn. Kills come after a random amount of the child's own processor time, and ten more the moment that a file
is seen half written. After each kill everything in the folder must be readable and no finding may be gone; when a run ends
by itself, the folder must hold the same files as after a run that nobody killed, byte by byte but for times and the order in a
record, and the killing goes on in an empty one. Full and read-only are real: a small tmpfs, which needs root, on Linux.
"""
from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

import anmf_lab.data as data
from anmf_lab import commands, leaderboard, reproduce  # noqa: F401  (loaded once, before the forks)
from anmf_lab.auditing import Audit
from anmf_lab.cli import main
from anmf_lab.records import Flag, Record, read_record, save_record

SWEEPS = {   # name -> command line; OUT is the folder, TABLE a small csv
    "reproduce anmf": "reproduce anmf --quick --datasets yale --tables 2 --seeds 2 --out OUT",
    "reproduce anmf, figures": "reproduce anmf --figures --out OUT",
    "reproduce anmf, rectangles": "reproduce anmf --rectangles --out OUT",
    "reproduce atnmf": "reproduce atnmf --quick --only table moffett madonna --starts 1 --out OUT",
    "reproduce lafa": "reproduce lafa --quick --only wtsi --methods adjoint --eps .01 --steps 2 --seeds 1 --out OUT",
    "arena": "arena --quick --models nmf --attacks series --starts 1 --noise 1 --seeds 2 --out OUT",
    "audit": "audit TABLE --rank 2 --starts 3 -q --out OUT/report.html --json OUT/all.json --resume OUT/kept.json",
}
KILLS, IN_WRITE, TWICE = 30, 10, 2
TIMES = {"cpu_seconds", "seconds", "ascent_seconds", "command", "versions"}
PAGE = 4096


# --- small data in the place of large

def images(name, classes, side=8, each=6):
    "A data set of that name: noisy copies of random images"
    def make():
        rng = np.random.default_rng([0, *name.encode()])
        X = np.repeat(rng.random((classes, side * side)), each, 0)
        X = np.round(255 * np.clip(X + .15 * rng.standard_normal(X.shape), 0, 1))
        return dict(data=X, target=np.repeat(np.arange(classes), each))
    return data.Dataset(name, f"{name}, drawn", classes * each, side * side, classes=classes, kind="image",
                        papers=data.REGISTRY[name].papers, image_shape=(side, side), make=make)


def scene(name, n, f):
    "A mixture of three spectra"
    def make():
        rng = np.random.default_rng([1, *name.encode()])
        return dict(data=rng.dirichlet(np.ones(3), n) @ rng.random((3, f)))
    return replace(data.REGISTRY[name], n=n, f=f, image_shape=None, make=make, files=(), content=None, fetch=None)


def make_small():
    for name, classes in dict(yale=3, orl=4, coil20=3, mnist150=3).items(): data.REGISTRY[name] = images(name, classes)
    for name, size in dict(moffett=(40, 20), madonna=(40, 20), wtsi=(16, 12)).items(): data.REGISTRY[name] = scene(name, *size)


# --- one run

def begin(sweep, out, log):
    "The process id of a fork that runs the command"
    words = [w.replace("OUT", str(out)).replace("TABLE", str(log.with_name("table.csv"))) for w in SWEEPS[sweep].split()]
    sys.stdout.flush()
    pid = os.fork()
    if pid: return pid
    code = 70
    try:
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.argv = ["anmf-lab", *words]
        code = main(words)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def end(pid):
    "Exit status, or minus the signal that ended it"
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def spent(pid):
    "Processor seconds of a process"
    return time.clock_gettime((~pid << 3) | 2)


def half_written(out):
    return any(name.endswith(".part") for _, _, names in os.walk(out) for name in names)


def killed(pid, when, pause=.001, fine=(0,)):
    "Kill -9 when `when(pid)` says so; False: it had ended before, and well"
    while not when(pid):
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT): break
        if pause: time.sleep(pause)
    else: os.kill(pid, signal.SIGKILL)
    code = end(pid)
    assert code in (*fine, -signal.SIGKILL), f"exit {code}"
    return code == -signal.SIGKILL


# --- what is in a folder

def files(out): return sorted(str(p.relative_to(out)) for p in Path(out).rglob("*") if p.is_file())


def hidden(out): return [name for name in files(out) if Path(name).name.startswith(".")]


def read(path):
    "What a file measured; an error if it is torn"
    if "ranks" in json.loads(path.read_text()): return Audit.from_json(path).ranks
    return read_record(path).measured


def leaves(value, at=()):
    "Every value, by where it is"
    if isinstance(value, dict): pairs = value.items()
    elif isinstance(value, list): pairs = enumerate(value)
    else: return {at: value}
    return {place: v for k, x in pairs if k not in TIMES for place, v in leaves(x, (*at, k)).items()}


def findings(out):
    "Every finding in a folder: none may go, none may change"
    found = {}
    for name in files(out):
        assert ".broken" not in name, f"{name} was torn"
        if name.endswith(".json"): found |= {(name, *place): v for place, v in leaves(read(out / name)).items()}
    return found


def kept(before, now):
    return all(now.get(place, now) == v for place, v in before.items())


def whole(out):
    "All of a folder, to be compared: findings, and the bytes of what is no record"
    rest = {name: (out / name).read_bytes() for name in files(out) if not name.endswith((".json", ".html"))}
    return findings(out), rest, files(out)


# --- the trials

def ends_well(sweep, out, log, wanted):
    "Let it end; the folder must be that of a run that nobody killed"
    code = end(begin(sweep, out, log))
    assert code == 0, log.read_text()
    assert whole(out) == wanted, f"{sweep}: {set(files(out)) ^ set(wanted[2])} or other numbers"


def kill_often(sweep, out, log, wanted, cost, rng, aimed):
    "Kills at random moments, or the moment a file is half written"
    kills = rounds = torn = 0
    shutil.rmtree(out, ignore_errors=True)
    before = {}
    while kills < (IN_WRITE if aimed else KILLS):
        moment = rng.uniform(0, cost)
        when = (lambda pid: half_written(out)) if aimed else (lambda pid, m=moment: spent(pid) >= m)
        hit = killed(begin(sweep, out, log), when, 0 if aimed else .001)
        now, kills, torn = findings(out), kills + hit, torn + (hit and half_written(out))
        assert kept(before, now), "a finding is gone"
        before = now
        if not hit or aimed and kills % 5 == 0:
            ends_well(sweep, out, log, wanted)
            shutil.rmtree(out)
            before, rounds = {}, rounds + 1
    ends_well(sweep, out, log, wanted)
    return dict(kills=kills, half_written_files_left=torn, runs_that_ended=rounds + 1)


def two_at_once(sweep, out, log, wanted, cost, rng):
    "Both to the end; and one of them killed"
    refused = 0
    for i in range(2 * TWICE):
        shutil.rmtree(out, ignore_errors=True)
        logs = [log.with_name(f"{j}.log") for j in (0, 1)]
        pids = [begin(sweep, out, x) for x in logs]
        if i % 2:
            moment = rng.uniform(0, cost)
            killed(pids.pop(0), lambda pid, m=moment: spent(pid) >= m, fine=(0, 1))     # 1: it left the work to the other
            logs.pop(0)
        for pid, said in zip(pids, logs, strict=True):
            code = end(pid)
            assert code == 0 or "another process" in said.read_text() and str(out) in said.read_text(), said.read_text()
            refused += code != 0
        ends_well(sweep, out, log, wanted)
    return dict(pairs=2 * TWICE, one_of_them_killed=TWICE, runs_that_left_work_to_the_other_and_said_so=refused)


@contextmanager
def small_disk(size):
    "A file system of its own"
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
        try: yield Path(folder)
        finally: subprocess.run(["umount", "-l", folder], check=True)


def named(log, out):
    "The file that the last line names"
    said = log.read_text().strip().splitlines()[-1]
    assert str(out) in said and "could not be written" in said, said
    return said.split("could not be written")[0].split()[-1].removeprefix(str(out) + os.sep)


def full_disk(sweep, log, wanted, size):
    "No room, room for a third, room for two thirds; then enough"
    messages = []
    with small_disk(4 * size + 64 * PAGE) as disk:
        out = disk / "out"
        for part in (0, 1 / 3, 2 / 3):
            shutil.rmtree(out, ignore_errors=True)
            free = shutil.disk_usage(disk).free
            (disk / "ballast").write_bytes(bytes(free - int(part * size) // PAGE * PAGE))
            code = end(begin(sweep, out, log))
            before = findings(out) if out.exists() else {}
            assert code in (0, 1), log.read_text()
            if code: messages.append(f"{named(log, out)}: {log.read_text().strip().rsplit(': ', 1)[-1]}")
            assert not out.exists() or not half_written(out), "half a file is left"
            (disk / "ballast").unlink()
            ends_well(sweep, out, log, wanted)
            assert kept(before, findings(out))
    return dict(runs=3, refused=len(messages), messages=messages)


def read_only(sweep, log, wanted, size):
    "An empty folder, and one where everything is there"
    with small_disk(4 * size + 64 * PAGE) as disk:
        out, mode = disk / "out", lambda m: subprocess.run(["mount", "-o", f"remount,{m}", str(disk)], check=True)
        out.mkdir()
        mode("ro")
        code = end(begin(sweep, out, log))
        assert code == 1 and not files(out), log.read_text()
        message = f"{named(log, out)}: {log.read_text().strip().rsplit(': ', 1)[-1]}"
        mode("rw")
        ends_well(sweep, out, log, wanted)
        mode("ro")
        code = end(begin(sweep, out, log))
        assert whole(out) == wanted
        again = "nothing to do" if code == 0 else f"{named(log, out)}: {log.read_text().strip().rsplit(': ', 1)[-1]}"
    return dict(empty=message, complete=again)


def study(sweep, home, seed, done):
    "All trials of one command that are not `done`, one after the other"
    out, log, rng = home / "out", home / "said.log", random.Random(f"{seed} {sweep}")
    pid = begin(sweep, out, log)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    cost, code = spent(pid), end(pid)
    assert code == 0, log.read_text()
    wanted, size = whole(out), sum(-(-(out / f).stat().st_size // PAGE) * PAGE for f in files(out))
    assert not hidden(out), hidden(out)
    own = dict(sweep=sweep, log=log, wanted=wanted)
    trials = dict(random_moments=lambda: kill_often(out=out, cost=cost, rng=rng, aimed=False, **own),
                  while_writing=lambda: kill_often(out=out, cost=cost, rng=rng, aimed=True, **own),
                  two_at_once=lambda: two_at_once(out=out, cost=cost, rng=rng, **own),
                  full_disk=lambda: full_disk(size=size, **own), read_only=lambda: read_only(size=size, **own))
    found = dict(command="anmf-lab " + SWEEPS[sweep], files=len(wanted[2]), findings=len(wanted[0])) | done
    for name, trial in trials.items():
        if name not in done:
            found = found | {name: trial()}
            yield found


def to_come(done):
    "What is missing, as a flag"
    rest = [sweep for sweep in SWEEPS if "read_only" not in done.get(sweep, {})]
    return (Flag("unfinished", f"to come: {', '.join(rest)}"),) if rest else ()


def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--only", nargs="+", choices=tuple(SWEEPS), default=tuple(SWEEPS))
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path, default=Path("results/reliability"))
    return p.parse_args()


def run():
    args = arguments()
    make_small()
    os.environ["ANMF_LAB_DATA"] = os.devnull
    path = args.out / "kills.json"
    done = json.loads(path.read_text())["measured"] if path.exists() else {}
    for sweep in args.only:
        with tempfile.TemporaryDirectory() as home:
            rng = np.random.default_rng(0)
            counts = rng.poisson(20 * rng.gamma(.5, size=(8, 2)) @ rng.gamma(.5, size=(2, 6)))
            np.savetxt(Path(home) / "table.csv", counts, delimiter=",", fmt="%d")
            for found in study(sweep, Path(home), args.seed, done.get(sweep, {})):
                done[sweep] = found
                print(sweep, list(found)[-1], f"{time.process_time() + sum(os.times()[2:4]):.0f} CPU s", flush=True)
                save_record(Record(
                    name="kills", what="Commands that keep records: killed, two at once, on a full disk, in a read-only folder",
                    data=dict(name="drawn, small"), asked=dict(kills=KILLS, while_writing=IN_WRITE, pairs=2 * TWICE), seeds=args.seed,
                    parameters=dict(full="tmpfs, mounted", read_only="tmpfs, mounted read-only", moment="child's processor time, uniform"),
                    claimed=None, measured={k: done[k] for k in SWEEPS if k in done}, flags=to_come(done),
                    command="python benchmarks/study_kills.py"), args.out)


if __name__ == "__main__":
    run()
