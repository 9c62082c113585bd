"""AT-NMF as published, literally and in the paper's letters: V (F x N) ~ W (F x K) H (K x N), D = 1 where observed.

Cai, Tan & Fevotte, Adversarially-Trained Nonnegative Matrix Factorization, IEEE SPL 28 (2021), and the settings of the
released experiment: the mask is in the numerator of the updates only, so held-out entries are fitted as zeros.
"""
import numpy as np


def start(F, N, K, rng):
    "Half-normal factors, W first"
    W = np.abs(rng.randn(F, K))
    H = np.abs(rng.randn(K, N))
    return W, H


def mm_step(U, W, H):
    "W <- W . (U H') / (W H H'), then H <- H . (W' U) / (W' W H)"
    W = W * (U @ H.T) / (W @ (H @ H.T))
    H = H * (W.T @ U) / ((W.T @ W) @ H)
    return W, H


def change(Vhat_old, Vhat_new):
    "|| (Vhat_old - Vhat_new) / Vhat_old ||_F, 0/0 counted as 0"
    with np.errstate(divide="ignore", invalid="ignore"):
        q = (Vhat_old - Vhat_new) / Vhat_old
    q[np.isnan(q)] = 0
    return np.sqrt(np.einsum("ij,ij->", q, q))


def fit(U, W, H, most, tol=1e-2):
    "At most `most` MM steps on fixed data"
    Vhat = W @ H
    for i in range(most):
        W, H = mm_step(U, W, H)
        Vhat_old, Vhat = Vhat, W @ H
        if change(Vhat_old, Vhat) < tol:
            return W, H, i + 1
    return W, H, most


def nmf(V, D, W, H, most=100_000, tol=1e-2):
    "Plain NMF in the released protocol"
    for _ in range(5):
        W, H = mm_step(D * V, W, H)
    return fit(D * V, W, H, most, tol)


def reply(V, D, W, H, lam):
    "R* = max((V - Vhat) / (lam - 1), -V) on the observed entries"
    R = np.maximum((D * V - D * (W @ H)) / (lam - 1), -V)
    return D * R


def objective(V, D, W, H, lam):
    "max_R || V + R - WH ||^2 - lam || R ||^2 for the zero-filled data D . V"
    R = reply(V, D, W, H, lam)
    return np.sum((D * V + R - W @ H) ** 2) - lam * np.sum(R**2)


def atnmf(V, D, W, H, lam, outer=100, inner=999, tol=1e-2):
    "Start-up, then reply and refit; returns W, H, the objective after every round, and the number of MM steps"
    for _ in range(5):
        W, H = mm_step(D * V, W, H)
    losses, steps = [objective(V, D, W, H, lam)], 5
    for _ in range(outer):
        Vhat_old = W @ H
        R = reply(V, D, W, H, lam)
        U = D * (V + R)
        W, H, n = fit(U, W, H, inner, tol)
        steps += n
        losses.append(objective(V, D, W, H, lam))
        if not np.isfinite(losses[-1]) or change(Vhat_old, W @ H) < tol:
            break
    return W, H, np.array(losses), steps
