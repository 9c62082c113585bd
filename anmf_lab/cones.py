"""What linear inequalities leave, and curvature on a cone: the lessons are on the page of `determined`."""
from __future__ import annotations
from dataclasses import dataclass
import itertools
import numpy as np
import scipy.sparse as sp
from scipy.optimize import linprog
import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]   # parts like W, (n, k), and H, (k, f)


@dataclass(frozen=True, eq=False)
class Cone:
    "The directions c with B c >= 0"
    span: np.ndarray     # (m, d): a basis of all their differences; d is the dimension
    lines: np.ndarray    # (m, l): a basis of those that may be reversed
    ray: np.ndarray      # (m,): one in the middle of them; zero if there is none


def _null(B: np.ndarray, tol: float) -> np.ndarray:
    "Orthonormal basis of the null space, (m, .)"
    if not len(B): return np.eye(B.shape[1])
    if len(B) > B.shape[1]: B = np.asarray(np.linalg.qr(B, mode="r"))   # the same null space
    s, R = np.linalg.svd(B, full_matrices=True)[1:]
    return R[int((s > tol).sum()):].T


def cone(
    B: np.ndarray,         # (r, m)
    tol: float = 1e-6,     # a number up to this is zero; rows and directions of size one
) -> Cone:
    "What the inequalities B c >= 0 leave, by one linear program, eq. (lp)"
    r, m = B.shape
    if not r: return Cone(np.eye(m), np.eye(m), np.zeros(m))
    cost = np.r_[np.zeros(m), -np.ones(r)]
    bounds = [(-1, 1)] * m + [(0, 1e-3)] * r
    rows = sp.hstack([-B, sp.eye_array(r)]).tocsr()
    for precision in (1e-9, 1e-8, 1e-7):    # the finest that the solver can do
        how = dict(primal_feasibility_tolerance=precision, dual_feasibility_tolerance=precision)
        lp = linprog(cost, A_ub=rows, b_ub=np.zeros(r), bounds=bounds, method="highs", options=how)
        if lp.x is not None: break
    else: raise RuntimeError(f"the linear program of the free zeros failed: {lp.message}")
    ray, grows = lp.x[:m], lp.x[m:] > tol
    lines = _null(B, tol)
    if not grows.any(): return Cone(lines, lines, np.zeros(m))
    return Cone(_null(B[~grows], tol), lines, ray)


def copositive(
    S: np.ndarray,         # (r, r), symmetric
    tol: float = 1e-7,     # of eigenvalues, S of size one
) -> str:                  # "strict", "zero" or "no"
    "Is c' S c positive for all c >= 0 but 0 (strict), never negative (zero), or not even that (no)? Kaplan"
    worst = "strict"
    for size in range(1, len(S) + 1):
        for rows in map(list, itertools.combinations(range(len(S)), size)):
            w, V = np.linalg.eigh(S[np.ix_(rows, rows)])
            for value, v in zip(w, V.T, strict=True):
                if value > tol: break
                if not (np.all(v > tol) or np.all(v < -tol)): continue
                if value < -tol: return "no"
                worst = "zero"
    return worst


def units(W: Tensor, H: Tensor) -> Pair:
    "Root mean square of every component, (1, k) and (k, 1)"
    return W.square().mean(0, keepdim=True).sqrt(), H.square().mean(1, keepdim=True).sqrt()


def relative(W: Tensor, H: Tensor, pairs: list[Pair]) -> np.ndarray: # (entries, m), orthonormal
    "Directions with every entry relative to its component"
    unit = units(W, H)
    flat = [torch.cat([(A / unit[0]).reshape(-1), (B / unit[1]).T.reshape(-1)]) for A, B in pairs]
    return np.linalg.qr(torch.stack(flat, 1).cpu().numpy())[0]


def opened(
    W: Tensor,           # solved codes, (n, k)
    H: Tensor,           # solved components, (k, f)
    up: Pair,            # boolean: the entries that may grow only
    pairs: list[Pair],   # directions
) -> tuple[Cone, np.ndarray]:
    "Directions in the span of `pairs` in which no free zero falls, and the basis that they are in"
    none = np.zeros((0, 0))
    if not pairs: return Cone(none, none, none[0:0, 0:0].ravel()), np.zeros((W.numel() + H.numel(), 0))
    U = relative(W, H, pairs)
    at = torch.cat([up[0].reshape(-1), up[1].T.reshape(-1)]).cpu().numpy()
    return cone(U[at] * len(U) ** .5), U
