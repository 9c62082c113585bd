"""What an attack found, and what must be said about it: flags, a row a budget, a picture, a file and back"""
from __future__ import annotations

import base64
import html
import json
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np

from .align import align, feature_error
from .determined import LocalVerdict
from .goals import SAME, TIE, Verdict, Victim
from .implicit import Adjoint, Condition
from .objective import Pair
from .polish import kkt_residual
from .records import Flag, npz, plain, small_png, write_whole

if TYPE_CHECKING:
    from .ascent import Effort, Point
    from .lafa import LaFA


def _read(path: Path, wanted: set) -> dict:
    "One of the two files of `to_json`; an error names it"
    try:
        if path.suffix == ".npz":
            with open(path, "rb") as file, np.load(file) as f: found = dict(f)
        else: found = json.loads(path.read_text(encoding="utf-8"))
        lacks = sorted(wanted - found.keys())
    except (ValueError, EOFError, AttributeError, BadZipFile) as e:
        raise ValueError(f"{path} is not the result of an attack: {e}") from e
    if lacks: raise ValueError(f"{path} is not the result of an attack: it lacks {', '.join(lacks)}.")
    return found


@dataclass(frozen=True, eq=False)
class Found:
    "The perturbation for one budget and how it was found"
    point: Point
    claimed: float | None       # what the ascent believed
    start: str                  # the kind of start that won
    seconds: float              # CPU of the ascents and the choice among them
    effort: Effort
    rivals: list[Pair] = field(default_factory=list)


def victim_flags(victim: Victim, own: Pair, reference: Pair) -> list[Flag]:
    "How far the model, as it is, is from a solution, and from the reference"
    alive = bool((own[0].norm(dim=0) * own[1].norm(dim=1) > 0).all())
    if own[0].shape[1] != victim.problem.k or not alive:
        return []
    obj, said = victim.problem.objective, []
    end = victim.problem.warm(obj.data.X, *own, tol=1e-8, max_iter=200).factors
    far, other = feature_error(*own, *end), feature_error(*end, *reference)
    if far > SAME:
        why = f"FE {far:.3f} from the optimum it was heading for (KKT residual {kkt_residual(obj, *own):.1e})"
        said.append(Flag("victim_unsolved", f"{victim.name} stops early: {why}"))
    if other > SAME:
        why = f"sits in another minimum than the reference: FE {other:.3f}"
        said.append(Flag("victim_elsewhere", f"{victim.name} {why}"))
    return said


def _lost(where: str, n: int, how: LaFA) -> Flag:
    text = f"{n} of {how.n_seeds} fresh starts ran away from the data and were left out"
    return Flag("seeds_lost", f"{where}: {text}")


FREE = "the clean data do not determine the components"


def clean_flags(how: LaFA, victim: Victim, adj: Adjoint, local: LocalVerdict,
                floor: Verdict) -> list[Flag]:
    "What the clean problem already says"
    said = [Flag("note", n) for n in victim.notes]
    if adj.kkt > 1e-6:
        said.append(Flag("unsolved", f"the reference is not solved: KKT residual {adj.kkt:.1e}"))
    if local.verdict == "one-sided":
        what = "one-sided, the reference ends a set of solutions; derivatives hold one way"
        said.append(Flag("not_determined", f"{FREE}: {what}"))
    elif local.verdict != "determined":
        what = f"undecided, {local.reason}"
        if local.count:
            where = [int(j) for j in np.flatnonzero(local.share > 1e-3)]
            what = f"{local.count} null directions beyond scale, in components {where}"
        way = "where there is no gradient, that of a regularised problem was used"
        said.append(Flag("not_determined", f"{FREE}: {what}; {way}"))
    if floor.n_lost:
        said.append(_lost("on the clean data", floor.n_lost, how))
    if floor.feature_error > SAME:
        far = f"floor {floor.feature_error:.3f}"
        said.append(Flag("seeds_disagree", f"fresh seeds disagree on the clean data: {far}"))
    if how.n_seeds < 8:
        few = f"verified with {how.n_seeds} seeds only"
        said.append(Flag("few_solutions", f"{few}: at least 8 are needed for a claim"))
    return said


def per_component(pair: Pair, reference: Pair) -> list[float]:
    "Distance of every component from its reference, relative to its size"
    (W, H), (W_ref, H_ref) = (align(*p, *reference) for p in (pair, reference))
    moved = (W - W_ref).square().sum(0) + (H - H_ref).square().sum(1)
    return (moved / (W_ref.square().sum(0) + H_ref.square().sum(1))).sqrt().tolist()


def row_flags(r: dict, how: LaFA, weak: bool = False) -> list[Flag]:
    "What a reader of one budget's numbers must know"
    said: list[Flag] = []
    if not r["eps"]:
        return said

    def add(code: str, text: str) -> None:
        said.append(Flag(code, f"at eps={r['eps']:g}: {text}"))
    lead = f"{r['margin']:.1e}"
    if weak:
        add("weak_ascent", "the smaller budget's perturbation does more and was kept")
    if r["margin"] < TIE:
        instead = f"{r['rival_error']:.3f} instead of {r['feature_error']:.3f}"
        add("tie", f"a tie: a solution whose objective is {lead} (relative) higher says {instead}; "
                   f"{r['share']:.0%} of fresh seeds see the damage")
    if r["margin"] < how.margin:
        add("margin_missed", f"no perturbation with a lead of {how.margin:g} was found; the lead is {lead}")
    if r.get("n_lost"):
        said.append(_lost(f"at eps={r['eps']:g}", r["n_lost"], how))
    if r["residual"] > 1e-6:
        add("unsolved", f"a verifying solution is not solved, KKT residual {r['residual']:.1e}")
    if how.goal == "features" and r["random_max"] >= r["feature_error"]:
        add("noise_as_strong", "random noise does as much as the attack")
    if r.get("n_nan"):
        add("nan_gradient", f"{r['n_nan']} gradients were not finite; zero was taken, and the attack may be "
                            "weaker than it could be")
    if r["feature_error"] <= 1e-6:
        add("unmoved", "the attack did not move the features")
    if how.method != "ensemble" and how.relative and r["size"] < .98 * r["eps"]:
        add("shrunk", f"clamping left {r['size'] / r['eps']:.0%} of the budget")
    return said


def settings_of(study, began: float) -> dict:
    "How the result of a `Study` was made"
    how, law, obj, box = study.how, study.law, study.problem.objective, study.threat
    kept = ("norm", "method", "strength", "margin", "n_seeds", "n_noise", "n_usual", "branch", "relative",
            "random_state")
    goal, plan = how.goal, how.plan(box.X.numel() * study.problem.k)
    if callable(goal): goal = getattr(goal, "__name__", type(goal).__name__)
    return {k: getattr(how, k) for k in kept} | dict(
        goal=goal if isinstance(goal, str) else goal[0], steps=plan.steps, starts=plan.starts,
        victim=study.victim.name, n_components=study.problem.k, objective=type(obj).__name__,
        loss=repr(getattr(obj, "loss", None)), l1=getattr(obj, "l1", 0.), l2=getattr(obj, "l2", 0.),
        reference=how.reference if isinstance(how.reference, str) else "given",
        box=[box.low, box.high],
        verdict=study.local.verdict, excess=study.local.count, kappa=law and law.kappa,
        kappa_random=law and law.random, radius=law and law.radius,
        cpu_seconds=round(time.process_time() - began, 2))


@dataclass
class AttackResult:
    "Damage for each budget beside its controls; `plot()`, `to_frame()`, `to_json()`"
    settings: dict                     # how it was made
    records: list[dict]                # one per budget
    flags: list[Flag]                  # what a reader must know
    clean: np.ndarray                  # X
    adversarial: dict                  # eps -> attacked data
    reference: tuple                   # (W, H) of the clean data
    factors: dict                      # eps -> (W, H) of the attacked data, in the reference's order
    local: LocalVerdict | None = field(default=None, repr=False)
    condition: Condition | None = field(default=None, repr=False)

    def has(self, code: str) -> bool:
        "Is there a flag with this code?"
        return any(f.code == code for f in self.flags)

    def to_frame(self):
        "A pandas data frame, one row a budget"
        import pandas as pd
        return pd.DataFrame(self.records)

    def to_json(self, path=None) -> str:
        "Settings, records and flags; with a path also written there, with the arrays in an .npz beside it"
        whole = dict(settings=self.settings, records=self.records)
        whole["flags"] = [asdict(f) for f in self.flags]
        text = json.dumps(plain(whole), indent=1, allow_nan=False)
        if path is None:
            return text
        arrays = dict(clean=self.clean, W=self.reference[0], H=self.reference[1])
        for eps, Z in self.adversarial.items():
            W, H = self.factors[eps]
            arrays |= {f"Z {eps!r}": Z, f"W {eps!r}": W, f"H {eps!r}": H}
        arrays = {k: np.asarray(A) for k, A in arrays.items()}
        write_whole(Path(path).with_suffix(".npz"), npz(**arrays))
        write_whole(path, (text + "\n").encode())
        return text

    @classmethod
    def from_json(cls, path) -> AttackResult:
        "What `to_json(path)` wrote"
        d = _read(Path(path), {"settings", "records", "flags"})
        A = _read(Path(path).with_suffix(".npz"), {"clean", "W", "H"})
        rows, flags = d["records"], [Flag(**f) for f in d["flags"]]
        none = dict(margin=math.inf, eps_to_flip=math.inf, rival_error=math.nan)   # JSON has no infinity
        for r in rows:
            r |= {k: v for k, v in none.items() if k in r and r[k] is None}
        eps = [r["eps"] for r in rows]
        Zs, pairs = {e: A[f"Z {e!r}"] for e in eps}, {e: (A[f"W {e!r}"], A[f"H {e!r}"]) for e in eps}
        return cls(d["settings"], rows, flags, A["clean"], Zs, (A["W"], A["H"]), pairs)

    def _column(self, key: str) -> list[float]:
        return [math.nan if r.get(key) is None else r[key] for r in self.records]

    def plot(self, ax=None):
        "Feature error against the budget, with what fresh seeds see, random noise and the floor"
        import matplotlib.pyplot as plt
        ax = ax or plt.subplots(figsize=(5, 2.8))[1]
        eps, get = self._column("eps"), self._column
        ax.plot(eps, get("feature_error"), "o-", label="worst found, at the lowest objective")
        ax.fill_between(eps, get("min"), get("max"), alpha=.15, lw=0, label="all fresh seeds")
        name = self.settings["victim"]
        if not np.isnan(get("usual")).all():
            ax.plot(eps, get("usual"), "s--", ms=4, label=f"{name}, best of its seeds")
        ax.plot(eps, get("random"), "^-", color="gray", ms=4, label="random noise")
        ax.plot(eps, get("floor"), ":", color="k", label="floor: nothing attacked")
        ax.set(xlabel=f"budget ({self.settings['norm']})", ylabel="feature error", ylim=(0, None))
        ax.legend(frameon=False, fontsize=8)
        return ax

    def __repr__(self) -> str:
        rows = [f"  eps {r['eps']:g}: {r['feature_error']:.3f}, seen by {r['share']:.0%} of seeds; "
                f"noise {r['random']:.3f}, floor {r['floor']:.3f}" for r in self.records]
        codes = ", ".join(dict.fromkeys(f.code for f in self.flags)) or "none"
        first = f"AttackResult({self.settings['victim']}, {self.settings['norm']}): worst found"
        return "\n".join([first, *rows, f"  flags: {codes}"])

    def _repr_html_(self) -> str:
        import matplotlib.pyplot as plt
        names = ("eps", "feature_error", "margin", "share", "expected", "usual", "random", "floor")
        keys = [k for k in names if k in self.records[0]]
        head = "".join(f"<th>{k}</th>" for k in keys)
        cells = [["–" if r[k] is None else f"{r[k]:.3g}" for k in keys] for r in self.records]
        rows = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in cells)
        fig, ax = plt.subplots(figsize=(5, 2.8))
        self.plot(ax)
        png = base64.b64encode(small_png(fig, tight=True)).decode()
        said = "".join(f"<li>{html.escape(f.text)}</li>" for f in self.flags)
        return (f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table><ul>{said}</ul>"
                f"<img alt='feature error against the budget' src='data:image/png;base64,{png}'>")
