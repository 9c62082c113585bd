"""The arena's records and its leaderboard: cards, jobs, the board, and `anmf-lab arena`."""
from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from scipy.stats import t as t_dist

from .arena import ATTACKS, FIELDS, MODELS, Contender, Field, run_bout
from .core import check_number
from .data import fingerprint
from .goals import SAME, TIE
from .plans import WORDS, Job, Outcome, run_job
from .records import Flag, Record, read_record
from .starts import STRENGTHS


def read_folder(folder: str | Path) -> list[Record]:
    "The records of the arena in a folder"
    return [read_record(p) for p in sorted(Path(folder).glob("*.json"))]


@dataclass(frozen=True)
class Card:
    "What one record is made of"
    data: str
    model: str
    attack: str
    norm: str = "l2"
    eps: tuple = ()
    seeds: int = 5
    strength: str = "standard"
    n_starts: int = 8
    n_noise: int = 5
    contender: Contender | None = field(default=None, repr=False)   # own ones travel with the card
    run: Callable | None = field(default=None, repr=False)
    place: Field | None = field(default=None, repr=False)

    @property
    def name(self) -> str: return "_".join((self.data, self.model, self.attack, self.norm))
    @property
    def asked(self) -> dict:
        "All that determines a row, but its seed"
        kept = ("data", "model", "attack", "norm", "eps", "strength", "n_starts", "n_noise")
        return {k: getattr(self, k) for k in kept}


def flags_of(card: Card, rows: list[dict]) -> tuple[Flag, ...]:
    "What a reader of a record must know"
    done, said = {r["seed"] for r in rows}, []
    if len(done) < card.seeds: said.append(Flag("unfinished", f"{len(done)} of {card.seeds} seeds"))
    if card.seeds < 3: said.append(Flag("few_seeds", f"{card.seeds} seeds do not show a spread"))
    if card.n_starts < 8: said.append(Flag("few_solutions", f"verified from {card.n_starts} starts"))
    for code, (words, bad) in BAD.items():
        n = sum(map(bad, rows))
        if n: said.append(Flag(code, f"{n} of {len(rows)} {words}"))
    return tuple(said)


BAD: dict[str, tuple[str, Callable]] = {   # code -> words, and whether a row is so
    "tie": ("rest on a tie", lambda r: r["margin"] is not None and r["margin"] < TIE),
    "unsolved": ("are not solved", lambda r: r["residual"] is None or not r["residual"] <= 1e-6),
    "seeds_disagree": ("have clean seeds that disagree", lambda r: r["floor"] > SAME),
    "noise_as_strong": ("are reached by noise", lambda r: r["noise_max"] >= r["feature_error"]),
    "overclaimed": ("are less than claimed",
                    lambda r: (r["claimed"] or 0) > r["feature_error"] + .05),
}


def job_of(card: Card, home=None, command: str = "") -> Job:
    "The card as a job of a plan"
    place = card.place or FIELDS[card.data]
    contender, attack = card.contender or MODELS[card.model], card.run or ATTACKS[card.attack]

    def drawn(seed):
        X = np.asarray(place.load(seed, home), float)
        return X / X.max()

    def loaded():
        X = drawn(0)
        about = dict(name=card.data, title=place.title, sha256=fingerprint(X), shape=list(X.shape))
        return about, drawn

    def enough(old: Record) -> bool:
        return old.asked == asked and len({r["seed"] for r in old.measured}) >= card.seeds

    def run(draw, old):
        rows = list(old.measured) if old else []
        for seed in range(card.seeds):
            if any(r["seed"] == seed for r in rows): continue
            rows += run_bout(contender, attack, draw(seed), place.rank, norm=card.norm, eps=card.eps,
                             seed=seed, strength=card.strength, n_starts=card.n_starts,
                             n_noise=card.n_noise)
            own = contender.make(place.rank).get_params(deep=False)
            yield dict(parameters=own | dict(plain=contender.plain), measured=rows,
                       seeds=sorted({r["seed"] for r in rows}), flags=flags_of(card, rows),
                       claimed=[r["claimed"] for r in rows])

    asked = json_of(card.asked)
    return Job(name=card.name, what=f"{contender.title}, attacked by {card.attack}, on {place.title}",
               asked=asked, load=loaded, run=run, enough=enough, part=card.data, command=command)


def json_of(d: dict) -> dict:
    "As a record on file gives it back"
    return {k: list(v) if isinstance(v, tuple) else v for k, v in d.items()}


def run_cards(
    cards: Iterable[Card],
    out: str | Path,           # folder of the records
    *,
    home=None,                 # folder with the data sets
    n_jobs: int = 1,           # processes
    say: Callable = print,     # gets a line a record
) -> Outcome:
    "Make what is missing of the records"
    jobs, outcome = [job_of(c, home, command_of(c)) for c in cards], Outcome()
    quiet = lambda line: None
    todo = (delayed(run_job)(job, Path(out), quiet) for job in jobs)
    fates = Parallel(n_jobs=n_jobs, return_as="generator")(todo)
    for job, (fate, why) in zip(jobs, fates, strict=True):
        getattr(outcome, fate)[job.name] = why
        say(f"{WORDS[fate]}: {why or job.name}")
    return outcome


def command_of(card: Card) -> str:
    "The command that makes a record alone"
    given = dict(data=card.data, models=card.model, attacks=card.attack, norms=card.norm, eps=card.eps,
                 seeds=card.seeds, strength=card.strength, starts=card.n_starts, noise=card.n_noise)
    words = ["anmf-lab", "arena"]
    for name, value in given.items():
        words += [f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))]
    return shlex.join(words)


def rows_of(records: Iterable[Record]):
    "One row for each record, seed and budget, as a pandas data frame"
    import pandas as pd
    keys = ("data", "model", "attack", "norm")
    rows = []
    for r in records:
        shared = {k: r.asked[k] for k in keys} | dict(plain=r.parameters["plain"])
        rows += [shared | m for m in r.measured]
    return pd.DataFrame(rows)


def interval(d: np.ndarray) -> tuple[float, float]:
    "95 % Student interval of a mean; infinite below three numbers"
    if len(d) < 3: return -np.inf, np.inf
    half = t_dist.ppf(.975, len(d) - 1) * d.std(ddof=1) / len(d) ** .5
    return float(d.mean() - half), float(d.mean() + half)


def word_for(low: float, high: float) -> str:
    "What an interval of a difference in feature error says"
    if not np.isfinite(low): return "too few seeds"
    if abs(low + high) / 2 < SAME: return "no difference shown"   # solutions so near count as one
    return "harder" if high < 0 else "easier" if low > 0 else "no difference shown"


def worst(rows, attacks: set):
    "The strongest of these attacks on every seed"
    kept = rows[rows.attack.isin(attacks)]
    return kept.sort_values("feature_error", ascending=False, kind="stable").groupby("seed").first()


FROM_PLAIN = {"transfer", "adapted"}   # attacks that begin with the one on plain NMF
BACK = {"returned"}                    # the attack on AT-NMF, handed to plain NMF


def against(g, plain) -> dict:
    "A model's rows beside those of its plain model: what both have met, seed by seed"
    met = set(g.attack) & {*plain.attack, *FROM_PLAIN}
    own_too = {"ours"} if met & FROM_PLAIN else set()   # what is handed over is plain NMF's own
    if g.model.iloc[0].startswith("atnmf"): own_too |= BACK
    mine, other = worst(g, met or set(g.attack)), worst(plain, met | own_too)
    both = mine.index.intersection(other.index)
    own = g.model.iloc[0] == g.plain.iloc[0]
    d = np.array([]) if own else (mine.feature_error[both] - other.feature_error[both]).to_numpy()
    low, high = interval(d)
    means = ("feature_error", "own", "share", "expected", "relative_error")
    return {k: mine[k].mean() for k in means} | dict(
        spread=mine.feature_error.std(), noise=mine.noise.median(), floor=mine.floor.median(),
        difference=d.mean() if len(d) else np.nan, low=low, high=high, seeds=len(mine),
        verdict="" if own else word_for(low, high), attack=mine.attack.mode()[0],
        plain_error=other.relative_error.mean())


def board(records: Iterable[Record]):
    "The leaderboard: one row for each data set, norm, budget and model, the hardest to move first"
    import pandas as pd
    rows, key = rows_of(records), ["data", "norm", "eps"]
    if not len(rows):
        raise ValueError("there are no records: run the arena first, anmf-lab arena --quick.")
    out = []
    for place, here in rows.groupby(key):
        for model, g in here.groupby("model"):
            plain = here[here.model == g.plain.iloc[0]]
            out.append(dict(zip(key, place, strict=True)) | dict(model=model) | against(g, plain))
    table = pd.DataFrame(out).sort_values([*key, "feature_error"], kind="stable")
    return table.reset_index(drop=True)


PAPERS = ("atnmf", "anmf")   # how the names of the papers' defences begin
LISTS = ("harder", "easier", "no difference shown")


def line_of(r) -> str:
    "One comparison of the board in words; what it costs, where it is harder"
    title = MODELS[r.model].title if r.model in MODELS else r.model
    if r.verdict != "harder": return f"{title}, at ε {r.eps:g} ({r.difference:+.3f})"
    between = f"95 % {r.low:+.3f} to {r.high:+.3f}"
    return (f"{title}, at ε {r.eps:g} (feature error {r.difference:+.3f}, {between}; "
            f"relative error of the fit {r.relative_error:.3f}, plain {r.plain_error:.3f})")


def answer(table) -> str:
    "What the board says: is anything harder to move, at what cost, beyond the spread of seeds?"
    told = table[table.verdict.isin(LISTS)]
    if not len(told): return "No model has three seeds or more: nothing can be said yet."
    hard = told[told.verdict == "harder"]
    first = "No model on file is harder to move than its plain one by more than the spread of the seeds."
    if len(hard):
        often = (f"{m} (in {len(g)} of {sum(told.model == m)} comparisons)" for m, g in hard.groupby("model"))
        first = f"Harder to move than the plain model: {', '.join(often)}; where, below."
    parts = [f"**{first}**"]
    for (data, norm), g in told.groupby(["data", "norm"], sort=False):
        paper = g[g.model.str.startswith(PAPERS)]
        said = [f"**{data}, {norm}, at least {g.seeds.min()} seeds.**"]
        for group, who in (("Of the papers' defences", paper), ("Of the others", g.drop(paper.index))):
            if not len(who): continue
            lists = {word: "; ".join(map(line_of, who[who.verdict == word].itertuples())) or "none"
                     for word in LISTS}
            same = (who.verdict == "no difference shown").sum()
            said.append(f"{group}, harder to move than the plain model: {lists['harder']}. Easier: "
                        f"{lists['easier']}. No difference shown: {same} of {len(who)}.")
        parts.append(" ".join(said))
    return "\n\n".join(parts)


QUICK: dict[str, Any] = dict(
    data=("planted",), models=("nmf", "nmf-ridge", "atnmf-2", "anmf", "l21", "huber"),
    attacks=("ours", "series", "transfer"), seeds=1, strength="quick", starts=3, noise=2)
FULL: dict[str, Any] = dict(
    data=("planted", "genomes"), models=tuple(MODELS), attacks=tuple(ATTACKS), seeds=5,
    strength="standard", starts=8, noise=5)


def cli_arguments(parser: argparse.ArgumentParser) -> None:
    "What `anmf-lab arena` takes"
    add = parser.add_argument
    add("--quick", action="store_true", help="a look, in about two minutes")
    for name, known in (("data", FIELDS), ("models", MODELS), ("attacks", ATTACKS)):
        add(f"--{name}", nargs="+", choices=tuple(known), metavar="NAME",
            help=f"some of {', '.join(known)}")
    add("--norms", nargs="+", choices=("l2", "linf"), default=("l2",), metavar="NORM",
        help="l2, linf (default: l2)")
    add("--eps", nargs="+", type=float, metavar="E", help="other budgets than the data set's own")
    add("--seeds", type=int, metavar="N", help="draws of data, starts and attack (default: 5)")
    add("--strength", choices=tuple(STRENGTHS), help="of the attacks (default: standard)")
    add("--starts", type=int, metavar="N", help="solutions that verify (default: 8)")
    add("--noise", type=int, metavar="N", help="draws of noise (default: 5)")
    add("--jobs", type=int, default=1, metavar="N", help="processes (default: 1)")
    add("--home", metavar="DIR", help="folder with the data sets (default: $ANMF_LAB_DATA)")
    add("--out", metavar="DIR",
        help="where the records go (default: results/arena, with --quick results/arena/quick)")
    add("--board", action="store_true", help="run nothing, show what is on file")


def cards_of(args: argparse.Namespace) -> Iterator[Card]:
    "The cards of a command line, the plain models first"
    base = QUICK if args.quick else FULL
    get = lambda name: base[name] if getattr(args, name) is None else getattr(args, name)
    for name in ("seeds", "starts", "noise"):
        check_number(get(name), f"--{name}", low=1, integer=True)
    for e in args.eps or (): check_number(e, "--eps", low=0., high=1.)
    for data in get("data"):
        for model in get("models"):
            for attack in get("attacks"):
                if attack in (FROM_PLAIN if model == "nmf" else BACK): continue   # its own
                for norm in args.norms:
                    own = FIELDS[data].budgets[norm][:1 if args.quick else None]
                    eps = tuple(sorted(set(args.eps or own)))
                    how = map(get, ("seeds", "strength", "starts", "noise"))
                    yield Card(data, model, attack, norm, eps, *how)


def cli_run(args: argparse.Namespace) -> int:
    "Run `anmf-lab arena`"
    torch.set_flush_denormal(True)   # multiplicative updates reach zero through slow, denormal numbers
    torch.set_num_threads(1)         # tables are small: threads wait for each other, `--jobs` is what pays
    out = Path(args.out or Path("results", "arena", *(["quick"] if args.quick else [])))
    if not args.board:
        outcome = run_cards(cards_of(args), out, home=args.home, n_jobs=args.jobs)
        print(f"{outcome}; records in {out}")
        if not outcome.ok:
            missing = outcome.failed | outcome.in_hand or outcome.left_out
            raise ValueError("; ".join(dict.fromkeys(missing.values())))
    table = board(read_folder(out))
    shown = ["data", "norm", "eps", "model", "feature_error", "noise", "floor", "difference", "verdict",
             "attack", "relative_error"]
    print(table[shown].to_string(index=False, float_format=lambda v: f"{v:.3f}"))
    print("\n" + answer(table).replace("**", ""))
    return 0
