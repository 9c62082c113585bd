"""Null directions of the curvature of a large problem: the lessons are on the page of `determined`."""
from __future__ import annotations
import torch
from scipy.linalg import svd
from torch import Tensor
from .divergence import floor_of
from .implicit import DENSE, Curvature, smallest
from .objective import Pair

LONGEST = 600      # more null vectors than this are not looked for
DEPENDENT = 1e-5   # singular values below this part of the largest are zero


def _idle(T: Tensor, free: Tensor) -> Tensor: # (m, k, f)
    "Matrices B with T B = 0 that move free entries only, a column at a time"
    k, G = T.shape[1], T.T @ T
    unit = G.diagonal().clamp(min=floor_of(T.dtype)).sqrt()
    G = G / unit / unit[:, None]
    none = T.new_zeros(0, k, free.shape[1])
    if float(torch.linalg.eigvalsh(G)[0]) > DEPENDENT**2 * k: return none
    F = free.T.to(T)                                    # (f, k)
    w, V = torch.linalg.eigh(G * F[:, :, None] * F[:, None, :] + torch.diag_embed(1 - F))
    c, i = (w <= DEPENDENT**2 * k).nonzero(as_tuple=True)
    B = T.new_zeros(len(c), k, len(F))
    B[torch.arange(len(c)), :, c] = V[c, :, i] / unit
    return B


def idle_directions(
    W: Tensor,      # codes, (n, k)
    H: Tensor,      # components, (k, f)
    free: Pair,     # which entries may move
) -> list[Pair]:    # pairs like (W, H)
    "Directions of one factor alone that change nothing, because the other is linearly dependent"
    nothing = torch.zeros_like(W), torch.zeros_like(H)
    moved = [(nothing[0], B) for B in _idle(W, free[1])]
    return moved + [(A.T, nothing[1]) for A in _idle(H.T, free[0].T)]


def _repeated(C: Curvature, V: Tensor, zero: float, rng) -> tuple[Tensor, Tensor, bool]:
    "Lanczos again and again, without the null vectors `V` and those that it has found, until it finds none"
    found, known = [], V
    while True:
        w, new, sure = smallest(C, zero, rng, known)
        null = w <= zero
        found.append((w[null], new[:, null]))
        if not bool(null.any()) or known.shape[1] > LONGEST: break
        known = torch.linalg.qr(torch.cat([known, new[:, null]], 1))[0]
    found.append((w[~null], new[:, ~null]))
    w, V = torch.cat([a for a, _ in found]), torch.cat([b for _, b in found], 1)
    return w, V, sure and not bool(null.any())


def singular(
    V: Tensor,   # (m, r)
) -> tuple[Tensor, Tensor]:
    "Left singular vectors and values, by LAPACK's slower routine where the fast one does not converge"
    try: return torch.linalg.svd(V, full_matrices=False)[:2]
    except torch.linalg.LinAlgError:
        U, s, _ = svd(V.cpu().numpy(), full_matrices=False, lapack_driver="gesvd")
        return torch.from_numpy(U).to(V), torch.from_numpy(s).to(V)


def null_vectors(
    C: Curvature,             # the Hessian
    expected: list[Pair],     # directions that may be null
    zero: float,              # an eigenvalue up to this is null
    rng,                      # start of the iteration
) -> tuple[Tensor, Tensor, bool]:  # eigenvalues, vectors, whether they are sure
    "All null eigenvalues and at least one more, the expected ones taken out beforehand"
    if not expected and len(C) <= DENSE: return smallest(C, zero, rng)
    nothing = C.scales[:, :0]
    if not expected: return _repeated(C, nothing, zero, rng)
    V = torch.stack([C.coordinates(u) for u in expected], 1)
    U, s = singular(V - C.scales @ (C.scales.T @ V))
    U = U[:, s > 1e-6 * torch.linalg.matrix_norm(V, 2)]
    if not U.shape[1]: return _repeated(C, nothing, zero, rng)
    w, Y = torch.linalg.eigh(U.T @ torch.stack([C(u) for u in U.T], 1))
    w, V = w[w <= zero], U @ Y[:, w <= zero]
    more, rest, sure = _repeated(C, V, zero, rng)
    return torch.cat([w, more]), torch.cat([V, rest], 1), sure
