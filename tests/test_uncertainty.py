"""Error bars: calibrated, the same in any unit and order, and refused where there are none."""
import numpy as np
import pandas as pd
import pytest
import torch

import anmf_lab as al
import anmf_lab.objective
from anmf_lab.core import as_data
from anmf_lab.error_bars import light_of, reduce
from anmf_lab.polish import polish
from anmf_lab.reduced import localised
from memory import Count

KL = "kullback-leibler"


def planted(n=40, f=20, k=3, counts=3000, seed=3):
    "Factors with zeros in both, rows of H summing to one"
    rng = np.random.default_rng(seed)
    W, H = (rng.gamma(2., 1., s) * (rng.random(s) > .35) for s in ((n, k), (k, f)))
    W[W.sum(1) == 0, 0] = 1.
    W *= counts / (W @ H).sum(1, keepdims=True)
    return W * H.sum(1), H / H.sum(1, keepdims=True)


def solved(X, W, H, beta=1.):
    "The solution near (W, H)"
    W, H = (torch.from_numpy(T + 1e-4 * T.mean()) for T in (W, H))
    W, H = polish(as_data(X), W, H, beta, tol=1e-11).state
    return dict(W=W.numpy(), H=H.numpy(), loss=KL if beta == 1 else "frobenius")


@pytest.fixture(scope="module")
def genomes():
    X = np.asarray(al.load_dataset("wtsi").data, dtype=float)
    start = al.NMF(5, loss=KL, init="random", n_init=10, max_iter=200, tol=1e-3, polish=True, random_state=0).fit(X)
    return X, solved(X, start.transform(X), start.components_)


def concentrated():
    "Two components with one large share each, 2000 counts a sample"
    rng = np.random.default_rng(5)
    H = np.array([[.8, .12, .05, .03, 0, 0], [0, 0, .05, .15, .2, .6]])
    W = rng.gamma(2., 1., (40, 2)) * (rng.random((40, 2)) > .3)
    W[W.sum(1) == 0, 0] = 1.
    return W * 2000 / W.sum(1, keepdims=True), H


def coverage(truth, pick, forget=None, replicates=60):
    "Share of 95 % intervals that hold the truth, components and codes; counts that scatter twice as much as counts"
    (W, H), rng = truth, np.random.default_rng(0)
    hits, of_codes = [], []
    for _ in range(replicates):
        X = 2. * rng.poisson(W @ H / 2)
        u = al.uncertainty(None, X, dispersion=1. if forget == "phi" else None, **solved(X, W, H))
        low, high = u.interval()
        if forget == "gauge":       # the curvature without "rows sum to one"
            k, f = H.shape
            every = u._red.solve(torch.eye(f * k, dtype=torch.float64).view(f, k, -1)).view(f * k, -1)
            se = (u.dispersion * every.diagonal()).sqrt().view(f, k).T.numpy()
            low, high = u.components - 1.96 * se, u.components + 1.96 * se
        hits.append(((low <= H) & (H <= high))[pick(u)])
        firm = (u.codes > 2 * u.codes_stderr) & (u.codes_stderr > 0)
        of_codes.append((np.abs(u.codes - W) <= 1.96 * u.codes_stderr)[firm])
    return np.concatenate(hits).mean(), np.concatenate(of_codes).mean()


def firm(u): return (u.components > 2 * u.components_stderr) & (u.components_stderr > 0)
def large(u): return u.components > .5


def test_intervals_hold_the_truth():
    components, codes = coverage(planted(), firm)
    assert .92 <= components <= .98
    assert .92 <= codes <= .98
    assert .88 <= coverage(concentrated(), large)[0] <= .985


def test_coverage_needs_the_dispersion():
    assert coverage(planted(), firm, "phi", 15)[0] < .9


def test_coverage_needs_the_gauge():
    assert coverage(concentrated(), large, "gauge")[0] > .985


def test_unit_does_not_matter():
    W, H = planted()
    X = np.random.default_rng(0).poisson(W @ H).astype(float)
    one = al.uncertainty(None, X, **solved(X, W, H))
    for c in (1e-6, 1e6):
        u = al.uncertainty(None, X * c, dispersion=c * one.dispersion, **solved(X * c, W * c, H))
        np.testing.assert_allclose(u.components_stderr, one.components_stderr, rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(u.codes_stderr, one.codes_stderr * c, rtol=1e-4, atol=1e-5 * c)
        assert u.light == one.light


def test_float32_and_torch():
    W, H = planted()
    X = np.random.default_rng(0).poisson(W @ H).astype(float)
    one, given = al.uncertainty(None, X, **solved(X, W, H)), solved(X, W, H)
    u = al.uncertainty(None, torch.from_numpy(X).float(), **given)
    assert u.components.dtype == u.codes_stderr.dtype == torch.float32
    torch.testing.assert_close(u.components_stderr.double(), torch.from_numpy(one.components_stderr), rtol=1e-3, atol=1e-6)


def test_missing_entries_and_weights():
    W, H = planted()
    rng = np.random.default_rng(0)
    X = (W @ H + 20 * rng.standard_normal((40, 20))).clip(0)
    holes = X.copy()
    holes[rng.random(X.shape) < .2] = np.nan
    full, less = (al.uncertainty(None, Z, noise="gaussian", **solved(Z, W, H, 2.)) for Z in (X, holes))
    assert less.light == "green"
    free = (full.components_stderr > 0) & (less.components_stderr > 0)
    assert 1 < np.median(less.components_stderr[free] / full.components_stderr[free]) < 1.5
    given = al.uncertainty(None, X, noise=np.full(X.shape, 1 / 400.), **solved(X, W, H, 2.))
    assert .8 < given.dispersion < 1.2
    np.testing.assert_allclose(given.components_stderr, full.components_stderr, rtol=.2, atol=1e-3)


def test_genomes(genomes):
    X, factors = genomes
    u = al.uncertainty(None, X, **factors)
    assert u.light == "green"
    assert u._red.regular
    low, high = u.interval()
    assert (low <= u.components).all() and (u.components <= high).all()
    assert (high[u.components == 0] > 0).any()
    wide = u.interval(.99)
    assert (wide[0] <= low).all() and (wide[1] >= high).all()
    plain = al.uncertainty(None, X, dispersion=1, **factors)
    np.testing.assert_allclose(u.components_stderr, u.dispersion**.5 * plain.components_stderr)
    multinomial = al.uncertainty(None, X, noise="multinomial", **factors)
    np.testing.assert_allclose(multinomial.components_stderr, u.components_stderr)


def test_reference_orders_and_compares(genomes):
    X, factors = genomes
    u = al.uncertainty(None, X, **factors)
    turned = np.roll(u.components, 2, axis=0)
    v = al.uncertainty(None, X, reference=turned, **factors)
    np.testing.assert_allclose(v.components, turned, rtol=1e-6)
    value, low, high = v.cosine()
    np.testing.assert_allclose(value, 1, atol=1e-9)
    assert (low <= value).all() and (value <= high + 1e-12).all()      # a cosine of 1 may round to more
    value, low, high = u.cosine(u.components[0] + .01)
    assert value.shape == (5,) and (high - low > 0).all()


def test_names_follow_the_frame(genomes):
    X, factors = genomes
    names = [f"type {i}" for i in range(96)]
    frame = pd.DataFrame(X, columns=names)
    u = al.uncertainty(None, frame, **factors)
    assert list(u.to_frame().feature[:96]) == names
    shuffled = pd.DataFrame(u.components, columns=names)[names[::-1]]
    np.testing.assert_allclose(u.cosine(shuffled)[0], 1, atol=1e-9)
    with pytest.raises(ValueError, match="lacks the feature 'type 3'"):
        u.cosine(shuffled.drop(columns="type 3"))


def test_unsolved_factors_are_solved_and_said(genomes):
    X, factors = genomes
    rough = dict(factors, H=factors["H"] * (1 + .02 * np.random.default_rng(0).random(factors["H"].shape)))
    u = al.uncertainty(None, X, **rough)
    assert u.kkt < 1e-6 and "not solved" in u.notes[0]


def test_flat_is_refused():
    rng = np.random.default_rng(0)
    W, H = rng.random((20, 3)) + .2, rng.random((3, 12)) + .2      # no zeros: a set of solutions
    X = rng.poisson(1e5 * W @ H).astype(float)
    u = al.uncertainty(None, X, **solved(X, 1e5 * W, H))
    assert u.light == "red" and np.isnan(u.components_stderr).all() and np.isnan(u.codes_stderr).all()
    for ask in (u.interval, u.cosine, u.to_frame, u.plot):
        with pytest.raises(ValueError, match="do not determine"):
            ask()


def test_bad_input(genomes):
    X, factors = genomes
    for match, change in (
        ("noise must be one of", dict(noise="cauchy")),
        ("shape of X", dict(noise=np.ones((3, 3)))),
        ("sigma of 0", dict(noise=np.full(X.shape, np.inf))),
        ("dispersion must be", dict(dispersion=-1)),
        ("reference must hold", dict(reference=np.ones((4, 96)))),
        ("reference must be finite", dict(reference=np.zeros((5, 96)))),
        ("component is zero", dict(H=factors["H"] * np.array([[1], [1], [0], [1], [1]]))),
        ("components H are needed", dict(H=None)),
        ("Negative values", dict(X=-X)),
    ):
        with pytest.raises(ValueError, match=match):
            al.uncertainty(None, **(dict(X=X) | factors | change))
    with pytest.raises(ValueError, match="cannot determine"):
        small = np.random.default_rng(0).random((3, 3)) + 1
        al.uncertainty(al.NMF(2, loss=KL, max_iter=50, tol=0).fit(small), small)
    assert any("not whole" in n for n in al.uncertainty(None, X / 7, **solved(X / 7, factors["W"] / 7, factors["H"])).notes)


def test_any_loss_that_is_summed_over_entries():
    "A negative binomial with its own noise, an adversary with a price, weights; a shared budget couples the entries"
    W, H = planted()
    rng = np.random.default_rng(0)
    X = rng.poisson(W @ H * rng.gamma(5., 1 / 5, (40, 20))).astype(float)
    loss = al.objective.NegativeBinomial(5.)
    fit = al.factorize(al.Objective(X, loss), 3, W=torch.from_numpy(W + 1.), H=torch.from_numpy(H + .001)).state
    u = al.uncertainty(None, X, "negative-binomial", W=fit[0], H=fit[1], loss=loss)
    assert u.light == "green" and .7 < u.dispersion < 1.4 and u._own == pytest.approx(1)
    w = rng.uniform(.5, 2, X.shape)
    start = dict(W=W, H=H, loss="frobenius")
    one, two = (al.uncertainty(None, X, "gaussian", weights=w * c, **start) for c in (1., 4.))
    np.testing.assert_allclose(two.components_stderr, one.components_stderr, rtol=1e-4, atol=1e-7)
    assert two.dispersion == pytest.approx(4 * one.dispersion, rel=1e-6)
    with pytest.raises(ValueError, match="couples the entries"):
        al.uncertainty(al.ATNMF(2, eps=20., random_state=0, max_iter=50, tol=0).fit(X[:12, :8]), X[:12, :8])


def test_light():
    assert [light_of(x) for x in (1e-3, 9e-4, 1e-6, 9e-7, -1., float("nan"))] == ["green", "amber", "amber", "red", "red", "red"]


def test_rivals(genomes):
    W, H = planted()
    X = np.random.default_rng(0).poisson(W @ H).astype(float)
    found = al.rivals(None, X, n_seeds=4, **solved(X, W, H))
    assert found.light == "green" and found.improved < 1e-6
    noise = np.random.default_rng(1).poisson(20., (12, 9)).astype(float)      # no structure: a flat set
    start = al.NMF(4, loss=KL, init="random", max_iter=30, tol=0, polish=True, random_state=1).fit(noise)
    found = al.rivals(start, noise, n_seeds=4)
    assert found.light == "red" and found.apart > .05 and not found.found
    found = al.rivals(None, genomes[0], n_seeds=8, refits=1, random_state=2, **genomes[1])    # two minima
    frame = found.to_frame()
    assert len(frame) and (frame.gap > 1e-3).all() and (frame.sd > 0).all() and not found.apart
    assert frame.flips.between(0, 1).all() and (frame.gap.diff().dropna() >= 0).all()
    assert found.share + frame.share.sum() == pytest.approx(1)
    for name in ("n_seeds", "refits", "same"):
        with pytest.raises(ValueError, match=f"{name} must be"):
            al.rivals(start, noise, **{name: -1})


def test_large_problems_are_sketched(genomes, monkeypatch):
    X, factors = genomes
    whole = al.uncertainty(None, X, **factors)
    monkeypatch.setattr("anmf_lab.error_bars.LARGE", 10)
    u = al.uncertainty(None, X, **factors)
    free = whole.components_stderr > 0
    assert u.eigenvalue == pytest.approx(whole.eigenvalue, rel=1e-3) and u.light == "green"
    assert np.quantile(np.abs(u.components_stderr / np.where(free, whole.components_stderr, 1) - 1)[free], .95) < .05
    assert np.isnan(u.interval()[1][~free]).all() and np.isnan(u.misfit)
    for ask in (lambda: u.codes_stderr, lambda: u.cosine(whole.components)):
        with pytest.raises(ValueError, match="too many free entries"):
            ask()
    with pytest.raises(ValueError, match="too large to ask"):
        al.uncertainty(None, X, noise="gaussian", **factors)


def test_intervals_where_nothing_is_zero():
    "A component without a zero has no upper limits to compute"
    X = np.random.default_rng(0).poisson(9., size=(20, 6)).astype(float)
    H, W = X.sum(0, keepdims=True), X.sum(1, keepdims=True) / X.sum()
    u = al.uncertainty(None, X, W=W, H=H, loss=KL)
    low, high = u.interval()
    assert (low > 0).all() and (low < u.components).all() and (u.components < high).all()


def held(f, n=60, k=3):
    "Route of the error bars of f features, the numbers that it holds at once, and n f + (n + f) k^2 with their factors"
    rng = np.random.default_rng(0)
    W, H = rng.gamma(1., 1., (n, k)), rng.gamma(1., 1., (k, f)) * (rng.random((k, f)) > .1)
    at = localised(as_data(W @ H), torch.from_numpy(W), torch.from_numpy(H), 1.)
    with Count() as count:
        red = reduce(at)
        if hasattr(red, "variances"):
            red.variances()
    return type(red).__name__, count.top / 8, 6 * n * f + 30 * (n + f) * k * k


def test_large_problems_hold_arrays_like_the_data_and_no_square_of_the_components(monkeypatch):
    "The curvature would be (k f)^2 numbers, ten times as many"
    route, numbers, allowed = held(1600)
    assert route == "Sketch" and numbers <= allowed < (3 * 1600)**2 / 10
    for large, name in ((0, "Sketch"), (10**9, "Reduced")):     # the dense route, where it is taken, is seen
        monkeypatch.setattr("anmf_lab.error_bars.LARGE", large)
        route, numbers, allowed = held(400)
        assert route == name and (numbers <= allowed) == (name == "Sketch"), numbers / allowed


def test_another_solution_as_good_that_can_move_makes_the_light_red():
    "Whole factors near which nothing moves; the same table is a mixture of two of its rows and a third component that can move"
    W, H = 100 * np.array([[3, 1, 0], [1, 1, 3], [1, 0, 1], [2, 0, 2], [3, 0, 3], [0, 2, 1.]]), np.array([[2, 2, 2, 0, 1, 0], [3, 0, 1, 3, 2, 0], [0, 0, 2, 2, 1, 1.]])
    how = dict(W=W, H=H, loss="kullback-leibler")
    assert al.identifiability(None, W @ H, n_seeds=0, **how).verdict == "determined"
    assert al.uncertainty(None, W @ H, n_seeds=0, **how).light == "green"
    for unit in (1., 1e-3):
        u = al.uncertainty(None, unit * W @ H, **how | dict(W=unit * W))
        assert u.light == "red" and np.isnan(u.components_stderr).all() and any("as good" in note for note in u.notes)
        with pytest.raises(ValueError, match="al.bands"):
            u.interval()
    with pytest.raises(ValueError, match="n_seeds"):
        al.uncertainty(None, W @ H, n_seeds=-1, **how)


def test_zeros_settle_it_only_where_seeds_agree(monkeypatch):
    "Wherever the signs of the zeros exclude another solution, no seed with the same objective has other components; and no seeds are solved"
    from anmf_lab import determined
    settled, rng = 0, np.random.default_rng(0)
    for _ in range(40):
        n, f, k = rng.integers(6, 14), rng.integers(6, 12), rng.integers(2, 4)
        W, H = (rng.gamma(2., 1., s) * (rng.random(s) > .4) for s in ((n, k), (k, f)))
        X = rng.poisson(50 * W @ H + .2).astype(float)
        obj = al.Objective(X, "kullback-leibler")
        best, *others = determined.solve_seeds(obj, int(k), 4, rng=0, tol=1e-9)
        if best.residual > 1e-8 or not determined.only_one(obj, *best.factors):
            continue
        settled, own = settled + 1, determined.solution(None, X=X, W=best.W.numpy(), H=best.H.numpy(), loss="kullback-leibler")
        equal = [o for o in others if o.loss <= best.loss + 1e-9 * X.sum()]
        assert all(determined.feature_error(o.W, o.H, best.W, best.H) < 1e-4 for o in equal)
        assert determined.local_verdict(obj, *best.factors).verdict == "determined"
    assert settled >= 8
    monkeypatch.setattr(determined, "solve_seeds", None)     # not called
    assert determined.as_good(own) == (False, ())
