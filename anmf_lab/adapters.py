"""What somebody's model minimises, and the factors that it found."""
from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from torch import Tensor

from .core import Data, as_data, with_room
from .loop import start
from .masks import check_whole
from .objective import Entrywise, Loss, Objective, Pair
from .polish import in_double
from .robust_descent import blunt, reweighted_descent
from .robust_losses import ResidualLoss, Samplewise, huber, reweighted_step
from .solve import first_order
from .solvers import solve_codes


@dataclass(frozen=True, eq=False)
class PenalisedHessian:
    "The Hessian of `Penalised`: that of the fit, and a diagonal"
    fit: Any                    # the operator without penalties
    l2: tuple[float, float]     # weights of half the squares

    def __call__(self, A: Tensor, B: Tensor) -> Pair:
        "The product with the direction (A, B)"
        hW, hH = self.fit(A, B)
        return hW + self.l2[0] * A, hH + self.l2[1] * B

    def blocks(self) -> Pair:
        "Diagonal blocks, (n, k, k) and (f, k, k)"
        bW, bH = self.fit.blocks()
        one = torch.eye(bW.shape[-1], dtype=bW.dtype, device=bW.device)
        return bW + self.l2[0] * one, bH + self.l2[1] * one


@dataclass(frozen=True, eq=False)
class Penalised(Objective):
    "A loss of the entries, with penalties that weigh the codes and the components differently"
    data: Data                  # the problem
    fit: Entrywise              # the loss of the same data, without penalties
    l1: tuple[float, float]     # weights of the sums of codes and of components
    l2: tuple[float, float]     # weights of half their squares
    notes: tuple[str, ...] = ()
    scale_free = False

    @property
    def loss(self):
        "Of an entry"
        return self.fit.loss

    @property
    def damping(self) -> float:   # type: ignore[override]
        return self.fit.damping

    def at(self, data):
        return replace(self, data=data, fit=self.fit.at(data))

    def value(self, W, H):
        penalties = zip((W, H), self.l1, self.l2, strict=True)
        return self.fit.value(W, H) + sum((a * T + b / 2 * T * T).sum() for T, a, b in penalties)

    def grad(self, W, H):
        (N, P), (Nt, Pt) = self.parts(W, H)
        return P - N, Pt - Nt

    def parts(self, W, H):
        (N, P), (Nt, Pt) = self.fit.parts(W, H)
        return (N, P + self.l1[0] + self.l2[0] * W), (Nt, Pt + self.l1[1] + self.l2[1] * H)

    def hessian(self, W, H):
        return PenalisedHessian(self.fit.hessian(W, H), self.l2)

    def push(self, W, H, dX):
        return self.fit.push(W, H, dX)

    def pull(self, W, H, U, V):
        return self.fit.pull(W, H, U, V)

    def lost(self, W, H):
        return self.fit.lost(W, H)

    def rounding(self, f):
        return self.fit.rounding(f)


def sklearn_objective(
    model,         # scikit-learn's NMF, or one with its parameters
    data: Data,    # the problem
) -> tuple[Objective, tuple[str, ...]]:   # the objective, and how its penalties were read
    "What scikit-learn's NMF minimises: its weights times the size of the other side"
    own = float(model.alpha_W)
    other = own if model.alpha_H == "same" else float(model.alpha_H)
    a, b, rho = own * data.f, other * data.n, float(model.l1_ratio)
    if (a == 0) != (b == 0):
        raise ValueError("alpha_W and alpha_H must both be 0 or both be positive: a penalty on one "
                         "factor alone costs nothing, since the other can take its scale.")
    fit = Entrywise(data, model.beta_loss)
    if a == 0:
        return fit, ()
    note = (f"scikit-learn's own penalties: alpha_W * n_features = {a:.4g}, "
            f"alpha_H * n_samples = {b:.4g}, l1_ratio = {rho:g}")
    if a != b and 0 < rho < 1:
        return Penalised(data, fit, (rho * a, rho * b), ((1 - rho) * a, (1 - rho) * b)), (note,)
    weight = (a * b) ** .5      # components up, codes down: one weight serves both
    return replace(fit, l1=rho * weight, l2=(1 - rho) * weight), (note,)


def objective_of(
    model,              # a model with `objective(X)`, scikit-learn's NMF, or anything else with `loss`
    X,                  # (n, f) data
    *,
    loss=None,          # overrides what the model says
    **given,            # `mask`, `weights`
) -> tuple[Objective, tuple[str, ...]]:   # in float64, and what a reader must know
    "What a model minimises on `X`"
    obj: Objective
    notes: tuple[str, ...] = ()
    if loss is not None or model is None:
        kind = "frobenius" if loss is None else loss
        obj = Entrywise(as_data(X, **given), kind)   # type: ignore[arg-type]
    elif hasattr(model, "objective"):
        obj = model.objective(X, **given)
    elif hasattr(model, "beta_loss") and hasattr(model, "alpha_W"):
        obj, notes = sklearn_objective(model, as_data(X, **given))
    else:
        raise ValueError(f"{type(model).__name__} does not say what it minimises: give it a method "
                         "objective(X) that returns an Objective, for instance "
                         "al.Objective(X, loss='kullback-leibler'), or pass loss=.")
    check_whole(obj.data, "this function")
    if isinstance(obj, Entrywise): with_room(in_double(obj.data), obj.loss.exponent)   # or an error
    return obj.at(in_double(obj.data)), (*obj.notes, *notes)


def factors_of(
    model,             # a model, fitted or not, or None
    obj: Objective,    # what it minimises
    X,                 # (n, f) data
    W,                 # (n, k) codes, if they are given
    H,                 # (k, f) components, if they are given
    given: dict,       # `mask`, `weights`
) -> Pair:             # in float64
    "The factors that a model found, or that were handed in"
    if H is None:
        if model is None:
            raise ValueError("components H are needed where there is no model: pass H (k, f), "
                             "and W if you have it.")
        if not hasattr(model, "components_"):
            model = clone(model).fit(X, **given)
        own = hasattr(model, "factors")
        W, H = model.factors(X, **given) if own else (model.transform(X), model.components_)
    W, H = _as_tensor(W, obj.data), _as_tensor(H, obj.data)
    if H.ndim != 2 or H.shape[1] != obj.data.f:
        raise ValueError(f"H must be (k, {obj.data.f}), one row a component in the order of the "
                         f"features of X, got {tuple(H.shape)}.")
    if W is None:
        W = solve_codes(obj.data, H, getattr(obj, "loss", 2.))
    if W.shape != (obj.data.n, len(H)):
        raise ValueError(f"W must be {(obj.data.n, len(H))}, got {tuple(W.shape)}.")
    for name, T in (("W", W), ("H", H)):
        if not bool(torch.isfinite(T).all()) or bool((T < 0).any()):
            raise ValueError(f"{name} must be finite and >= 0.")
    if bool(((W.norm(dim=0) == 0) | (H.norm(dim=1) == 0)).any()):
        raise ValueError("a component is zero: its features mean nothing. Lower n_components, "
                         "or leave it out.")
    return W, H


@dataclass(frozen=True)
class Straight(Loss):
    "Huber's loss: a square up to a residual of `c`, a straight line beyond"
    c: float

    def value(self, X, Y):
        e = (X - Y).abs()
        return torch.where(e <= self.c, e * e / 2, self.c * e - self.c**2 / 2)

    def slope(self, X, Y):
        return (Y - X).clamp(-self.c, self.c)

    def curvature(self, X, Y):
        return ((X - Y).abs() <= self.c).to(Y.dtype)


def relative_of(
    obj: Objective,       # what is minimised
) -> Entrywise | None:    # the same data under `Straight`; None: fresh starts need none
    "What to minimise first where the loss gives up on gross errors"
    rho = getattr(getattr(obj, "loss", None), "rho", None)
    if rho is None or not isinstance(obj, Entrywise):
        return None
    e = obj.data.level * 2. ** torch.arange(-40, 21, .25, dtype=torch.float64)
    weight = rho(e.square())[1]
    pull = weight * e
    if bool((pull.diff() >= -1e-9 * pull.max()).all()):
        return None
    return replace(obj, loss=Straight(float(e[weight >= weight[0] / 2].max())))


def is_robust(obj: Objective) -> bool:
    "Does it weigh residuals down: single entries', or whole samples'?"
    entries = isinstance(obj, Entrywise) and hasattr(obj.loss, "rho")
    return entries or isinstance(obj, Samplewise)


def robust_fits(
    obj: Objective,   # of a robust loss
    k: int,           # number of components
    n: int,           # number of starts
    rng,              # their generator
) -> list[Pair]:
    "Where reweighted steps lead from random starts; entries first as a fit under squared error"
    W, H = start(obj.data, k, rng=rng, n_init=n)
    if isinstance(obj, Samplewise):
        return [blunt(obj.data, p, reweighted_descent, 200).state[:2] for p in zip(W, H, strict=True)]
    W, H = first_order(Entrywise(obj.data), W, H, max_iter=200, tol=1e-8).state[:2]
    relative, losses = relative_of(obj), [ResidualLoss(obj.loss.rho)]   # type: ignore[attr-defined]
    if relative is not None:
        losses = [ResidualLoss(partial(huber, c=relative.loss.c)), *losses]   # type: ignore[attr-defined]
    out = list[Pair]()
    for state in zip(W, H, strict=True):
        for loss in losses:
            for _ in range(50):
                state = reweighted_step(obj.data, state, loss)
        out.append(state[:2])
    return out


def _as_tensor(T, data: Data):
    "In the precision of the data; None stays None"
    if T is None:
        return None
    return torch.as_tensor(T if torch.is_tensor(T) else np.array(T)).to(data.X)


def precision_of(X) -> torch.dtype:
    "float32 if that is what the caller works with, float64 otherwise"
    X = getattr(X, "X", X)
    if not torch.is_tensor(X):
        X = as_data(X).X
    return X.dtype if X.dtype == torch.float32 else torch.float64
