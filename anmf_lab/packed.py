"""Half of a symmetric matrix is all of it: one triangle, made, factorized and used where it lies."""
from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from scipy.linalg import lapack
from scipy.sparse.linalg import ArpackError, eigsh
from torch import Tensor


def lean(T: Tensor) -> Tensor:
    "The same matrix, in the memory of one number if it is one number"
    return T[:1, :1].clone().expand_as(T) if bool((T == T[0, 0]).all()) else T


SLACK = 1e-11   # of the largest eigenvalue: how far `top` may lie above it


def top(S: Tensor) -> float: # at most (1 + SLACK) times the eigenvalue
    "Upper bound of 0 and the largest eigenvalue of a symmetric matrix: Lanczos' guess, proved by Cholesky"
    S = (S + S.T) / 2
    if len(S) >= 50:
        how = dict(which="LA", v0=np.ones(len(S)), tol=1e-9, return_eigenvectors=False)
        try: guess = eigsh(S.numpy(), 1, **how)
        except ArpackError: guess = np.zeros(1)
        bound, rest = (1 + SLACK) * float(guess[-1]), -S
        rest.diagonal().add_(bound)
        if bound > 0 and int(torch.linalg.cholesky_ex(rest).info) == 0: return bound
    return max(float(torch.linalg.eigvalsh(S)[-1]), 0.)


def diagonal_of(n: int) -> np.ndarray: # (n,)
    "Where LAPACK's rectangular full packed form (lower, columns first) keeps the diagonal"
    j, half = np.arange(n), (n + 1) // 2
    rows, odd = n + 1 - n % 2, n % 2
    first = j + (1 - odd) + rows * j
    return np.where(j < half, first, j - half + rows * (j - half + odd))


class Whole:
    "Cholesky's factor L of I - C'C, inverted: two products answer everything"
    def __init__(self, parts: Iterable[Tensor], n: int, like: Tensor):
        M = torch.eye(n, dtype=like.dtype, device=like.device)
        for C in parts: M.addmm_(C.T, C, alpha=-1)
        L, failed = torch.linalg.cholesky_ex(M)
        self.positive = int(failed) == 0
        self.Z = M.zero_().fill_diagonal_(1).mT   # columns first: solved in place
        if self.positive: torch.linalg.solve_triangular(L, self.Z, upper=False, out=self.Z)

    def down(self, B: Tensor) -> Tensor:
        "L^-1 B"
        return self.Z @ B
    def down_at(self, first: int, B: Tensor) -> Tensor:
        "The same for B from row `first` on, and zeros elsewhere"
        return self.Z[:, first:first + len(B)] @ B
    def up(self, B: Tensor) -> Tensor:
        "L^-T B"
        return self.Z.T @ B


class Half:
    "The same for large n, in n (n + 1) / 2 numbers (Gustavson et al. 2010): nothing else of that size"
    def __init__(self, parts: Iterable[Tensor], n: int, like: Tensor):
        self.n, self.like = n, like[:0]
        self.half = torch.zeros(n * (n + 1) // 2, dtype=torch.float64)
        a = self.half.numpy()
        a[diagonal_of(n)] = 1
        for part in parts:
            C = part.cpu().numpy().T
            lapack.dsfrk(n, C.shape[1], -1., C, 1., a, uplo="L", overwrite_c=1)
        self.positive = lapack.dpftrf(n, a, uplo="L", overwrite_a=1)[1] == 0

    def _solve(self, B: Tensor, trans: str) -> Tensor:
        b = np.array(B.cpu().numpy(), order="F")
        x = lapack.dtfsm(1., self.half.numpy(), b, uplo="L", trans=trans, overwrite_b=1)
        return torch.from_numpy(x).to(self.like)

    def down(self, B: Tensor) -> Tensor:
        "L^-1 B"
        return self._solve(B, "N")
    def down_at(self, first: int, B: Tensor) -> Tensor:
        "The same for B from row `first` on, and zeros elsewhere"
        whole = B.new_zeros(self.n, B.shape[1])
        whole[first:first + len(B)] = B
        return self.down(whole)
    def up(self, B: Tensor) -> Tensor:
        "L^-T B"
        return self._solve(B, "T")
