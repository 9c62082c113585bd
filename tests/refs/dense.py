"""Feature errors and factorizations without the library: dense, float64, NumPy and SciPy only.

Every model by the gradient of what it minimises, written out; solved on a given set of free entries by
`scipy.optimize.least_squares`; the feature error differenced. Slow, for matrices of a hundred entries.
"""
import numpy as np
from scipy.optimize import least_squares


def balanced(W, H):
    "Each component with codes and components of the same length"
    s = np.sqrt(np.linalg.norm(H, axis=1) / np.linalg.norm(W, axis=0))
    return W * s, H / s[:, None]


def feature_error(W, H, W_ref, H_ref):
    "Relative distance of balanced factors, in the same order"
    C, R = (np.vstack([W, H.T]) for W, H in (balanced(W, H), balanced(W_ref, H_ref)))
    return np.linalg.norm(C - R) / np.linalg.norm(R)


# --- slopes of losses in the reconstruction Y, (n, f)

def over(X, Y): return np.divide(X, Y, out=np.zeros_like(X), where=X != 0)   # 0 / 0 = 0
def beta(X, Y, b): return Y - X if b == 2 else Y**(b - 1) * (1 - over(X, Y))
def negative_binomial(X, Y, r): return (X + r) / (Y + r) - over(X, Y)
def huber(X, Y, c): return np.clip(Y - X, -c, c)
def cauchy(X, Y, gamma, cut): return np.where(abs(Y - X) < cut, (Y - X) / (1 + ((Y - X) / gamma)**2), 0.)
def correntropy(X, Y, sigma): return (Y - X) * np.exp(-(Y - X)**2 / (2 * sigma**2))


def by_sample(X, Y, M, weight):
    "A loss of the squared residual of a sample, by its weight"
    s = (M * (Y - X)**2).sum(1, keepdims=True)
    return weight(s) * (Y - X)


def squares_priced(X, Y, lam):
    "The adversary pays lam for a squared unit; he may not go below 0"
    return 2 * (Y - X - np.maximum(-X, (X - Y) / (lam - 1)))


def squares_budget(X, Y, M, eps, axis):
    "The adversary has eps of (weighted) squares in all (None), in each row (1) or in each column (0)"
    D, held = X - Y, np.zeros(X.shape, bool)
    while True:       # those who would go below 0 stop there, and leave the rest to the others
        left = eps - (M * X**2 * held).sum(axis, keepdims=True)
        s = np.sqrt((M * D**2 * ~held).sum(axis, keepdims=True) / left)
        new = held | (D < -s * X)
        if (new == held).all(): return 2 * (Y - X - np.where(held, -X, D / s))
        held = new


def divergence_priced(X, Y, lam, b):
    "The adversary pays lam for a unit of the same divergence, KL (b = 1) or Itakura-Saito (0)"
    if b == 1: return 1 - over(X, Y)**(lam / (lam - 1))
    return (Y - (lam - 1) / (lam / X - 1 / Y)) / Y**2


# --- objectives: (W, H, X) -> gradients

def entrywise(slope, M=1., l1=0., l2=0., a=None):
    "A loss of entries with weights M; penalties on both factors, or (l1, l2) on W and `a` on H"
    p, q = a or (l1, l2)
    def grad(W, H, X):
        G = M * slope(X, W @ H)
        return G @ H.T + l1 + l2 * W, W.T @ G + p + q * H
    return grad


def game_value(W, H, X, shift, alpha, own, lam, scale, M):
    "What the learner pays after the attacker's best reply, at the fixed scale"
    n, k = W.shape
    r = np.sqrt((W * W).sum(0) / (n / k)) if scale == "codes" else 1 / np.sqrt((H * H).sum(1))
    W, H = W / r, H * r[:, None]
    G = np.einsum("nf,nk,nl->fkl", M, W, W) + lam * np.eye(k)
    A = np.linalg.solve(G, (lam * H + W.T @ (M * (X + shift))).T[:, :, None])[:, :, 0].T
    return alpha * (M * (X - W @ A)**2).sum() + own * (M * (X - W @ H)**2).sum()


def game(shift, alpha, own, lam, scale, M):
    "Its gradient by complex steps"
    def grad(W, H, X):
        out = np.zeros_like(W), np.zeros_like(H)
        for T, g in zip((W, H), out, strict=True):
            for at in np.ndindex(T.shape):
                E = np.zeros(T.shape, complex)
                E[at] = 1e-100j
                w, h = (W + E, H) if T is W else (W, H + E)
                g[at] = game_value(w, h, X, shift, alpha, own, lam, scale, M).imag / 1e-100
        return out
    return grad


# --- solve, and difference

def solve(grad, X, W, H, free, scale_free):
    "Factors whose gradient vanishes on the free entries; in balance where the scale is free"
    cut = int(free[0].sum())
    def factors(x):
        A, B = np.zeros_like(W), np.zeros_like(H)
        A[free[0]], B[free[1]] = x[:cut], x[cut:]
        return A, B
    def equations(x):
        A, B = factors(x)
        gA, gB = grad(A, B, X)
        balance = (A * A).sum(0) - (B * B).sum(1) if scale_free else []
        return np.concatenate([gA[free[0]], gB[free[1]], balance])
    x = np.concatenate([W[free[0]], H[free[1]]])
    end = least_squares(equations, x, jac="2-point", method="lm", xtol=1e-14, ftol=1e-14, gtol=1e-14)
    return factors(end.x)


def optimality(grad, X, W, H, allowed):
    "Largest violation of the optimality conditions on the allowed entries, relative"
    out = 0.
    for g, T, ok in zip(grad(W, H, X), (W, H), allowed, strict=True):
        out = max(out, abs(g[ok & (T > 0)]).max(), -g[ok].min(initial=0.))
    return out / max(abs(g).max() for g in grad(1.1 * W, H, X))


def slope_along(grad, X, W, H, free, scale_free, reference, D, h=2e-5):
    "Derivative of the feature error along D: four-point differences of solved factorizations"
    fe = lambda t: feature_error(*solve(grad, X + t * h * D, W, H, free, scale_free), *reference)
    return (8 * (fe(1) - fe(-1)) - (fe(2) - fe(-2))) / (12 * h)
