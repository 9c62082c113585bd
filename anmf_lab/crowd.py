"""Many ascents at once on the central path; derived, checked and shown on the page of the ascent."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .align import feature_error
from .divergence import power
from .objective import Entrywise, Objective, Pair
from .stacked import LARGEST, Interior, Newton, Stack, balanced, inside, interior_step
from .threat import Threat

MOST = 64   # members of a crowd


def _order(inner: Tensor) -> Tensor:   # (r, k): which component goes with each of the reference
    "The best order for inner products (r, of the reference, of the member)"
    found = [linear_sum_assignment(-c)[1] for c in inner.detach().cpu().numpy()]
    return torch.from_numpy(np.stack(found)).to(inner.device)


def feature_errors(
    W: Tensor,         # codes, (r, n, k), no component of zeros
    H: Tensor,         # components, (r, k, f)
    reference: Pair,   # (W, H) to compare with, (n, k) and (k, f)
) -> tuple[Tensor, Tensor, Tensor]:   # (r,) feature errors, gradients by W and by H
    "Feature error of every member and its gradient, eq. (fe-stack)"
    W, H = (T.detach().clone().requires_grad_() for T in (W, H))
    R, Q = (T[0] for T in balanced(*(T[None] for T in reference)))
    with torch.enable_grad():
        a, b = balanced(W, H)
        inner = (R.mT @ a) + (b @ Q.mT).mT
        best = inner.gather(2, _order(inner)[:, :, None]).sum((1, 2))
        size = R.square().sum() + Q.square().sum()
        square = 1 + (a.square().sum((1, 2)) + b.square().sum((1, 2)) - 2 * best) / size
        fe = square.clamp(min=1e-24).sqrt()
        gW, gH = torch.autograd.grad(fe.sum(), (W, H))
    return fe.detach(), gW, gH


def path_gradient(
    stack: Stack,   # the problems, with the data of every member
    at: Interior,   # points of the central path
    gW: Tensor,     # gradient by the codes, (r, n, k)
    gH: Tensor,     # gradient by the components, (r, k, f)
) -> Tensor:        # (r, n, f)
    "Derivative by the data of a function of the factors, eq. (path-gradient)"
    U, V = Newton(stack, at)(gW, gH)
    W, H = at.W, at.H
    return stack.weighted((U @ H + W @ V) * power(W @ H, stack.beta - 2))


def budget_at(
    t: float,          # part of the climb that is over, 0 to 1
    eps: float,        # budget in the end
    over: float = 2.,  # in its multiples: budget in the beginning
) -> float:
    "The budget that shrinks"
    fallen = min(max((t - .2) / .5, 0.), 1.)
    return eps * (over + (1 - over) * fallen)


def _moved(threat: Threat, Z: Tensor, way: Tensor, far: float, eps: float) -> Tensor:
    "Every member's data, a step along its way, within the budget"
    return torch.stack([threat.project(z + far * threat.steepest(w, z), eps)
                        for z, w in zip(Z, way, strict=True)])


def _follow(stack: Stack, at: Interior) -> Interior:
    "One interior step on new data; mu falls by a fifth"
    return interior_step(stack, replace(at, last=torch.zeros_like(at.last)))


def climb(
    stack: Stack,        # the problem on clean data, (1, n, f); float64
    threat: Threat,      # feasible set
    eps: float,          # budget
    reference: Pair,     # solution of the clean data, where all members begin
    Z: Tensor,           # data that they begin with, (r, n, f)
    gain: Callable,      # (W, H) of all members -> (values, gradients by W and by H)
    *,
    steps: int = 36,     # gradients
    over: float = 2.,    # budget in the beginning, in its multiples
    mu: float = 1e-2,    # where on the path
) -> tuple[Tensor, Tensor, Tensor]:   # data within the budget, and factors near their solutions
    "All members climb at once, while the budget shrinks"
    turn, way = Z.shape[1] > Z.shape[2], torch.zeros_like(Z)

    def problems(Z: Tensor) -> Stack:
        return replace(stack, X=Z).T if turn else replace(stack, X=Z)

    def flip(W: Tensor, H: Tensor) -> Pair:
        return (H.mT, W.mT) if turn else (W, H)
    start = flip(*(T.expand(len(Z), *T.shape) for T in reference))
    at = inside(problems(Z), *start, mu)
    for _ in range(3):
        at = _follow(problems(Z), at)
    for i in range(steps):
        t, (_, gW, gH) = i / max(steps - 1, 1), gain(*flip(at.W, at.H))
        G = path_gradient(problems(Z), at, *flip(gW, gH))
        G = (G.mT if turn else G).nan_to_num(0., 0., 0.)   # a member without a gradient drifts on
        way = .75 * way + torch.stack([threat.steepest(g, z) for g, z in zip(G, Z, strict=True)])
        Z = _moved(threat, Z, way, .5 * .1**t * threat.radius(eps), budget_at(t, eps, over))
        at = _follow(problems(Z), at)
    W, H = flip(at.W, at.H)
    return Z, W.contiguous(), H.contiguous()


def places(
    Z: Tensor,        # data of the members, (r, n, f)
    W: Tensor,        # their codes, (r, n, k)
    H: Tensor,        # their components, (r, k, f)
    gain: Callable,   # as for `climb`
    apart: float = .03,   # feature error between two places
) -> list[tuple]:     # (data, codes, components)
    "One member of each place where some have ended, the most damage first; none that left the numbers"
    values, kept = gain(W, H)[0], list[tuple]()
    for i in values.argsort(descending=True).tolist():
        if bool(values[i].isfinite()) and all(feature_error(W[i], H[i], *end[1:]) > apart for end in kept):
            kept.append((Z[i], W[i], H[i]))
    return kept


def stack_of(
    obj: Objective,   # what is minimised on the clean data
) -> Stack | None:
    "The problem as a stack of one, if it is one that a stack can solve"
    if type(obj) is not Entrywise or obj.beta is None or not 1 <= obj.beta <= 2 or obj.data.is_sparse:
        return None   # a subclass may hold more than the loss, as orthogonal codes do
    M = obj.data.mask
    return Stack(obj.data.X[None], obj.beta, obj.l1, obj.l2, None if M is None else M[None])


def stack_near(
    obj: Objective,   # what is minimised on the clean data
) -> Stack | None:
    "Its stack; where it has none, that of the same data under the nearest β, or under squared error"
    own, M = stack_of(obj), obj.data.mask
    if own is not None or obj.data.is_sparse:
        return own
    beta = getattr(obj, "beta", None)
    nearest = 2. if beta is None else min(max(float(beta), 1.), 2.)
    return Stack(obj.data.X[None], nearest, 0., 0., None if M is None else M[None])


def members(
    n: int,          # samples
    f: int,          # features
    k: int,          # rank
    work: float,     # operations, in units of 1e9, that may be spent
    steps: int = 36, # gradients of each member
) -> int:            # 0: too few to be worth it
    "How many members a crowd of this shape may have"
    small, large = k * min(n, f), max(n, f)
    each = steps * (1e6 + 4. * large * k * small**2) / 1e9
    count = min(int(work / each), MOST)
    return count if count >= 4 and small <= LARGEST else 0
