"""Every model of the library, and the same problem written out in `refs.dense`: the gradient table's cases."""
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from sklearn.decomposition import NMF as SklearnNMF

import anmf_lab as al
from anmf_lab.implicit import feature_gradient, solution
from refs import dense


def table(seed=0, zeros=False, n=11, f=7, k=2):
    "Data of rank about k with zeros in both factors that determine them, and weights with holes"
    rng = np.random.default_rng(seed)
    W, H = rng.gamma(2., size=(n, k)), rng.gamma(2., size=(k, f))
    for j in range(k):
        W[j::3, j] = 0
        H[j, j::3] = 0
    X = np.maximum(W @ H + .15 * rng.standard_normal((n, f)), .01) * ((W @ H > 0) | (not zeros))
    return X, (.2 + rng.random((n, f))) * (rng.random((n, f)) > .1)


@dataclass(frozen=True)
class Case:
    "A model, what it is given besides the data, and its problem written out"
    model: object
    problem: Callable                      # (fitted model, solved, weights) -> gradient function of `refs.dense`
    weights: str | None = None             # "mask" or "weights"
    kwargs: dict = field(default_factory=dict)   # of `solution`
    scale: float = 1.                      # of the data
    zeros: bool = False                    # data with zeros, without which this loss forbids zeros of the factors
    seed: int = 0
    gauge: Callable = lambda model, X: 1.  # what brings the library's codes to the model's own scale


def plain(slope, **how): return lambda model, sol, M: dense.entrywise(slope, M, sol.objective.l1, sol.objective.l2, **how)
def beta(b): return plain(lambda X, Y: dense.beta(X, Y, b))
def scaled(slope): return lambda model, sol, M: dense.entrywise(lambda X, Y: slope(X, Y, **model.scale_), M)
def samples(weight):
    return lambda model, sol, M: dense.entrywise(lambda X, Y: dense.by_sample(X, Y, M, lambda s: weight(s, **model.scale_)), M)
def budget(axis, eps):
    return lambda model, sol, M: dense.entrywise(lambda X, Y: dense.squares_budget(X, Y, M, eps, axis), M)
def priced(slope, *args): return plain(lambda X, Y: slope(X, Y, *args))
def bilevel(model, sol, M):
    scale = model.scale or "codes"
    return dense.game(model.target_.shift, model.alpha, model.own, model.lam_, scale, M)
def sklearns_scale(model, X): return (model.alpha_H * len(X) / (model.alpha_W * X.shape[1]))**(.25 + .25 * model.l1_ratio)
def sklearns(model, sol, M):
    n, f = sol.objective.data.shape
    a, b, rho = model.alpha_W * f, (model.alpha_W if model.alpha_H == "same" else model.alpha_H) * n, model.l1_ratio
    power = 1 if model.beta_loss == "kullback-leibler" else 2
    return dense.entrywise(lambda X, Y: dense.beta(X, Y, power), 1., rho * a, (1 - rho) * a, (rho * b, (1 - rho) * b))


how = dict(random_state=0, tol=1e-6, max_iter=4000)
newton = dict(random_state=0, polish=True)
theirs = dict(tol=1e-10, max_iter=9000, random_state=0)
CASES = {
    "NMF": Case(al.NMF(2, **newton), beta(2)),
    "NMF, KL, holes": Case(al.NMF(2, loss="kullback-leibler", **newton), beta(1), "mask", zeros=True),
    "NMF, β = 1.5, weights": Case(al.NMF(2, loss=1.5, **newton), beta(1.5), "weights", zeros=True, seed=4),
    "NMF, l1": Case(al.NMF(2, l1=.03, **newton), beta(2)),
    "NMF, l1 and l2, weights": Case(al.NMF(2, l1=.01, l2=.05, **newton), beta(2), "weights"),
    "NMF, KL, l2": Case(al.NMF(2, loss="kullback-leibler", l2=.05, **newton), beta(1), zeros=True),
    "negative binomial, weights": Case(None, plain(lambda X, Y: dense.negative_binomial(X, Y, 4.)), "weights",
                                       dict(loss=al.NegativeBinomial(4.)), 20., zeros=True),
    "scikit-learn, l1": Case(SklearnNMF(2, alpha_W=.02, alpha_H=.01, l1_ratio=1., **theirs), sklearns, gauge=sklearns_scale),
    "scikit-learn, l2": Case(SklearnNMF(2, alpha_W=.03, alpha_H=.01, l1_ratio=0., **theirs), sklearns, gauge=sklearns_scale),
    "scikit-learn, l1 and l2, KL": Case(SklearnNMF(2, alpha_W=.02, l1_ratio=.4, beta_loss="kullback-leibler", solver="mu", **theirs),
                                        sklearns, zeros=True),
    "ATNMF, price": Case(al.ATNMF(2, lam=2., **newton), priced(dense.squares_priced, 2.)),
    "ATNMF, price, l1 and l2, weights": Case(al.ATNMF(2, lam=3., l1=.01, l2=.03, **newton), priced(dense.squares_priced, 3.), "weights"),
    "ATNMF, budget": Case(al.ATNMF(2, eps=.3, **newton), budget(None, .3)),
    "ATNMF, budget a row, weights": Case(al.ATNMF(2, eps=.02, norm="row", **newton), budget(1, .02), "weights", seed=1),
    "ATNMF, budget a column": Case(al.ATNMF(2, eps=.04, norm="column", **newton), budget(0, .04)),
    "ATNMF, KL, holes": Case(al.ATNMF(2, loss="kullback-leibler", lam=3., **newton), priced(dense.divergence_priced, 3., 1), "mask", zeros=True),
    "ATNMF, Itakura-Saito, l2": Case(al.ATNMF(2, loss="itakura-saito", lam=6., l2=.1, **newton), priced(dense.divergence_priced, 6., 0)),
    "ANMF": Case(al.ANMF(2, target="shift", strength=1., **how), bilevel),
    "ANMF, weights, scale of the components": Case(al.ANMF(2, strength=1., scale="components", **how), bilevel, "weights"),
    "Huber": Case(al.HuberNMF(2, **how), scaled(dense.huber)),
    "Huber, weights": Case(al.HuberNMF(2, **how), scaled(dense.huber), "weights", seed=3),
    "L2,1": Case(al.L21NMF(2, **how), samples(lambda s, floor: 1 / np.sqrt(s + floor**2)), seed=1),
    "L2,1, weights": Case(al.L21NMF(2, **how), samples(lambda s, floor: 1 / np.sqrt(s + floor**2)), "weights", seed=8),
    "truncated Cauchy": Case(al.CauchyNMF(2, **how), scaled(dense.cauchy), seed=5),
    "correntropy": Case(al.CorrentropyNMF(2, **how), scaled(dense.correntropy), seed=7),
    "correntropy of samples": Case(al.CorrentropyNMF(2, by="sample", **how), samples(lambda s, sigma: np.exp(-s / (2 * sigma**2)))),
    "capped norm": Case(al.CappedNMF(2, theta=.5, **how), samples(lambda s, theta, floor: np.where(s < theta**2, 1, 1e-9) / np.sqrt(s + floor**2)), seed=4),
    "orthogonal": Case(al.ONMF(2, **how), beta(2)),
}


@dataclass(frozen=True)
class Problem:
    "A case solved by the library, and its written-out gradient"
    X: np.ndarray
    W: np.ndarray
    H: np.ndarray
    free: tuple                # what may move and is not at zero
    optimality: float          # of the library's solution, by the written-out gradient
    gradient: np.ndarray       # of the feature error by the data, from the library
    certificate: object
    solved: object
    reference: tuple
    slopes: Callable

    def numeric(self, D):
        "Along D, (n, f)"
        return dense.slope_along(self.slopes, self.X, self.W, self.H, self.free, self.solved.objective.scale_free, self.reference, D)


def prepare(case, seed=None):
    "Solve a case and differentiate it"
    seed = case.seed if seed is None else seed
    X, weights = table(seed, case.zeros)
    X = case.scale * X
    given = {} if case.weights is None else {case.weights: weights > 0 if case.weights == "mask" else weights}
    M = np.ones_like(X) if not given else weights if case.weights == "weights" else (weights > 0).astype(float)
    model, factors = case.model, {}
    if model is None:
        run = al.factorize(al.Objective(X, **case.kwargs, **given), 2, rng=0, polish_tol=1e-12)
        factors = dict(zip("WH", run.state, strict=True)) | case.kwargs
    else: model = model.fit(X, **given)
    sol = solution(model, X, tol=1e-11, **given, **factors)
    W, H = (T.numpy().copy() for T in sol.factors)
    rng = np.random.default_rng(1)
    reference = tuple(T * rng.uniform(.9, 1.1, T.shape) for T in (W, H))
    _, G, cert = feature_gradient(sol.objective, *sol.factors, *reference, tol=1e-12)
    allowed = sol.objective.allowed(*sol.factors)
    allowed = [np.ones(T.shape, bool) if allowed is None else a.numpy() for T, a in zip((W, H), allowed or (0, 0), strict=True)]
    slopes = case.problem(model, sol, M)
    t = case.gauge(model, X)
    W, H = W * t, H / t
    free = tuple((T > 0) & a for T, a in zip((W, H), allowed, strict=True))
    return Problem(X, W, H, free, dense.optimality(slopes, X, W, H, allowed), G.numpy(), cert, sol, reference, slopes)
