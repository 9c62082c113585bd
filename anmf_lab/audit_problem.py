"""What an audit asks of one matrix, and its solutions; shown on the page of the findings."""
from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from functools import cached_property
import time

import numpy as np
import torch

from .core import Data, rng_of
from .crowd import stack_of
from .implicit import Solved, solution
from .loop import Status
from .objective import Objective
from .resampling import stackable
from .solve import Solution, factorize
from .stacked import LARGEST, random_starts, solve_stack
from .tables import Table


@dataclass(eq=False)
class Problem:
    "What is asked, and what was solved so far"
    table: Table                     # the data with their names
    objective: Objective             # what is minimised, in float64
    loss: str                        # its name
    noise: str                       # "poisson", "gaussian", "multinomial" or "weights"
    unit: float                      # the data were divided by it
    seed: int
    n_seeds: int
    given: tuple | None = None       # somebody's (W, H)
    reference: Table | None = None   # known profiles
    single: bool = False             # do the data hold seven digits only?
    deadline: float = np.inf         # of `time.monotonic`
    states: dict = field(default_factory=dict)   # rank -> `State`
    bars: dict = field(default_factory=dict)     # rank -> `Uncertainty`

    @property
    def data(self) -> Data: return self.objective.data
    @property
    def beta(self) -> float | None: return getattr(self.objective, "beta", None)
    def stackable(self, k: int) -> bool:
        "Does it pay to solve many problems of this size together?"
        return stackable(self.objective, k)
    def repeatable(self, k: int) -> bool:
        "Can it be solved some fifty times, together or one by one?"
        good = self.beta is not None and 1 <= self.beta <= 2 and not self.data.is_sparse
        return good and k * min(self.data.shape) <= LARGEST
    def rng(self, *key: int): return rng_of(np.random.default_rng([self.seed, *key]))
    def left(self) -> float: return self.deadline - time.monotonic()

    @cached_property
    def whole_numbers(self) -> bool: return bool((self.data.X == self.data.X.round()).all())
    def factors(self, k: int) -> dict:
        "The solution of rank k as arguments of the tools"
        s = state_of(self, k)
        return dict(W=s.W, H=s.H, loss=self.beta, weights=self.data.mask)
    def solved(self, k: int) -> Solved:
        "The same for tools that would solve again"
        s = state_of(self, k)
        return Solved(self.objective, s.W, s.H, s.kkt, 0.)

    @cached_property
    def whole(self) -> float:
        "The objective of a constant"
        d = self.data
        level = torch.full((d.n, 1), d.level, dtype=d.dtype)
        return float(self.objective.value(level, torch.ones(1, d.f, dtype=d.dtype)))
    def near(self, a: float, b: float) -> bool:
        "Are two objectives one, up to what a solver leaves open?"
        return abs(a - b) <= 1e-6 * max(abs(a), abs(b)) + 1e-10 * self.whole


@dataclass(frozen=True, eq=False)
class State:
    "The best factorization of one rank, and the others"
    W: torch.Tensor          # (n, k), in the data's unit: component sums of H are one
    H: torch.Tensor          # (k, f), largest share first
    loss: float
    kkt: float
    runs: list[Solution]     # every start that was solved, best first
    starts: int              # how many were tried
    moved: float | None = None   # from what was handed in; None: nothing was


def stacked_starts(p: Problem, k: int) -> list[Solution]:
    "Many starts of a small problem, solved together"
    stack = stack_of(p.objective)
    assert stack is not None
    end = solve_stack(stack, *random_starts(stack, k, p.rng(k), p.n_seeds), tol=1e-9)
    runs = zip(end.W, end.H, end.losses.tolist(), end.residuals.tolist(), strict=True)
    return [Solution(*run) for run in runs]


def free_at_once(n: int, f: int) -> None:
    "Arrays of n x f numbers (residuals are dense) go back to the system when freed; in a process of our own"
    size = n * f                                              # in bytes: an eighth of an array
    if size < 2**17: return
    try: ctypes.CDLL(None).mallopt(-3, min(size, 2**25))      # M_MMAP_THRESHOLD, fixed for this process
    except (AttributeError, OSError, TypeError): pass         # another system: nothing to set


SOLVED = 1e-6  # KKT residual up to which a start counts
STEPS = 2000   # most updates and Newton steps of one start of a large problem
AHEAD = 3000   # updates of sparse counts before Newton's method, one of whose steps costs thirty there
WORK = 3e9     # stored entries times rank times steps of all its starts: some minutes


def single_starts(p: Problem, k: int) -> list[Solution]:
    "Starts of a large problem, one by one: two, or as many as `WORK` and the time allow"
    obj, runs, spent = p.objective, list[Solution](), 0.
    size = k * (p.data.X.values().numel() if p.data.is_sparse else p.data.X.numel())
    begin, most = time.monotonic(), .25 * p.left()
    late = None if most == np.inf else lambda *_: p.left() <= 0
    how: dict = dict(max_iter=STEPS, tol=1e-9, polish_tol="auto", callback=late)
    if p.data.is_sparse and p.beta != 2: how |= dict(max_iter=AHEAD, polish_tol=1e-9)
    for i in range(p.n_seeds):
        run = factorize(obj, k, rng=p.rng(k, i), **how)
        if run.status is Status.interrupted: raise KeyboardInterrupt
        runs.append(Solution(run.state[0], run.state[1], run.loss, float(run.residuals[-1])))
        spent, share = spent + size * run.n_iter, (1 + i) / (2 + i)   # the next one costs a mean one
        if p.left() <= 0: break
        if i and (spent > WORK * share or time.monotonic() - begin > most * share): break
    return runs


def state_of(p: Problem, k: int) -> State:
    "Solve a rank once"
    if k in p.states: return p.states[k]
    found = stacked_starts(p, k) if p.stackable(k) else single_starts(p, k)
    runs, moved = sorted(found, key=lambda run: run.loss), None
    done = [run for run in runs if run.residual <= SOLVED] or runs[:1]
    positive = lambda run: int((run.W > 0).sum() + (run.H > 0).sum())
    best = max((run for run in done if p.near(run.loss, done[0].loss)), key=positive)
    W, H, loss, kkt = best.W, best.H, best.loss, best.residual
    if p.given is not None and p.given[1].shape[0] == k:
        W, H = p.given
        own = solution(None, p.data.X, W=W, H=H, loss=p.beta, weights=p.data.mask)
        W, H, kkt, moved = own.W, own.H, own.kkt, own.moved
        loss = float(p.objective.value(W, H))
    size = H.sum(1)
    if bool((size <= 0).any()): raise ValueError(f"at rank {k} a component is zero: lower the rank.")
    W, H = W * size, H / size[:, None]
    order = torch.argsort(-W.sum(0))
    p.states[k] = State(W[:, order], H[order], loss, kkt, done, len(runs), moved)
    return p.states[k]
