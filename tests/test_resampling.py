"""Resampling: the right draws, every replicate solved, the same for the same seed, and the rank table."""
import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

import anmf_lab as al
from anmf_lab import ranks, resampling
from anmf_lab.core import as_data
from anmf_lab.objective import Loss
from anmf_lab.redraws import Resampler, cosines, generators, in_order, matched, profiles, silhouettes

KL = "kullback-leibler"


@pytest.fixture(scope="module")
def counts():
    "Planted counts, three components with zeros, determined"
    rng = np.random.default_rng(3)
    W, H = (rng.gamma(2., 1., s) * (rng.random(s) > .35) for s in ((30, 3), (3, 16)))
    W[W.sum(1) == 0, 0] = 1.
    Y = W @ H / (W @ H).sum(1, keepdims=True) * 800
    return rng.poisson(Y).astype(float), profiles(H)


def check(s, r=6, n=30, k=3, f=16):
    "Shapes, optimality, what must hold for any data"
    assert s.components.shape == s.average.shape == s.stderr.shape == (k, f)
    assert s.replicates.shape == (r, k, f)
    assert s.codes.shape == (r, n, k)
    assert (s.residuals <= 1e-6).all()
    np.testing.assert_allclose(s.shares.sum(1), 1)
    np.testing.assert_allclose(s.sem * r ** .5, s.stderr)
    low, high = s.interval()
    assert (low <= s.replicates.mean(0) + 1e-12).all() and (s.replicates.mean(0) <= high + 1e-12).all()
    assert s.minimum <= s.mean <= 1 and (s.cosine <= 1 + 1e-12).all()


@pytest.mark.parametrize("start", ["random", "reference"])
@pytest.mark.parametrize("resample", ["multinomial", "parametric", "rows", "seeds"])
def test_every_kind_is_solved(counts, resample, start):
    X, truth = counts
    if (resample, start) == ("seeds", "reference"):
        with pytest.raises(ValueError, match="changes only the start"):
            al.stability(X, 3, resample=resample, start=start)
        return
    s = al.stability(X, 3, resample=resample, start=start, n_resamples=6)
    check(s)
    assert cosines(s.components, truth).max(0).min() > .98
    assert s.below(.9) == 0 and s.accepted
    if resample != "rows":      # codes of the same samples: they add up to the data
        np.testing.assert_allclose(s.codes.sum((1, 2)), X.sum(), rtol=.05)


@pytest.mark.parametrize("loss", ["frobenius", 1.5])
def test_other_losses(counts, loss):
    check(al.stability(counts[0], 3, loss=loss, resample="parametric", n_resamples=6))


def test_the_ways_to_call(counts):
    X, _ = counts
    model = al.NMF(3, loss=KL, init="random", n_init=4, polish=True, random_state=0).fit(X)
    by_model = al.stability(model, X, n_resamples=4)
    factors = dict(W=model.transform(X), H=model.components_, loss=KL)
    by_factors = al.stability(None, X, n_resamples=4, **factors)
    np.testing.assert_allclose(by_model.replicates, by_factors.replicates, atol=1e-6)
    by_name = al.stability(X, n_components=3, n_resamples=4)
    assert np.sort(cosines(by_name.components, by_model.components).max(0)).min() > .9999
    with pytest.raises(ValueError, match="belongs to the model"):
        al.stability(model, X, 3)


def test_the_same_seed_gives_the_same_replicates_however_many(counts):
    X, _ = counts
    few, more = (al.stability(X, 3, n_resamples=r, start="reference") for r in (3, 30))
    np.testing.assert_allclose(few.replicates, more.replicates[:3], atol=1e-5)
    other = al.stability(X, 3, n_resamples=3, start="reference", random_state=1)
    assert abs(few.replicates - other.replicates).max() > 1e-3
    with joblib.parallel_backend("threading"):
        shared = al.stability(X, 3, n_resamples=30, start="reference", n_jobs=2)
    np.testing.assert_allclose(shared.replicates, more.replicates, atol=1e-12)


def test_every_kind_of_input(counts):
    X, _ = counts
    base = al.stability(X, 3, n_resamples=4, start="reference")
    names = [f"f{j}" for j in range(16)]
    frame = al.stability(pd.DataFrame(X, columns=names), 3, n_resamples=4, start="reference")
    np.testing.assert_array_equal(frame.replicates, base.replicates)
    table = frame.to_frame()
    assert list(table.columns) == ["component", "feature", "value", "stderr", "sem", "low", "high"]
    assert list(table.feature[:16]) == names and (table.low <= table.high).all()
    np.testing.assert_array_equal(al.stability(torch.from_numpy(X), 3, n_resamples=4, start="reference").replicates,
                                  base.replicates)
    single = al.stability(X.astype(np.float32), 3, n_resamples=4, start="reference")
    np.testing.assert_allclose(single.replicates, base.replicates, atol=1e-5)


def test_missing_entries_are_not_drawn(counts):
    X = counts[0].copy()
    hole = np.random.default_rng(0).random(X.shape) < .05
    X[hole] = np.nan
    for kind in ("multinomial", "parametric", "rows"):
        check(al.stability(X, 3, resample=kind, n_resamples=6, start="reference"))
    drawn = Resampler(as_data(X), "multinomial").draw(generators(0, 1)[0])[0]
    assert (drawn.X.numpy()[hole] == 0).all()
    np.testing.assert_array_equal(drawn.X.sum(1), np.nansum(X, 1))


def test_sparse_data_go_one_by_one(counts):
    X = counts[0].copy()
    X[X < 5] = 0
    A = sp.csr_array(X)
    model = al.NMF(3, loss=KL, init="random", n_init=4, polish=True, random_state=0).fit(X)
    factors = dict(W=model.transform(X), H=model.components_, loss=KL)
    dense, sparse = (al.stability(None, T, resample="rows", start="reference", n_resamples=3, **factors) for T in (X, A))
    check(sparse, r=3)
    np.testing.assert_allclose(sparse.losses, dense.losses, rtol=1e-3)
    drawn = Resampler(as_data(A), "multinomial").draw(generators(0, 1)[0])[0].X.to_dense().numpy()
    np.testing.assert_array_equal(drawn.sum(1), X.sum(1))
    assert (drawn[X == 0] == 0).all() and (A.toarray() == X).all()


class Smooth(Loss):
    "Squared error for small residuals, absolute error for large ones"
    def value(self, X, Y):
        return 20 * (torch.sqrt(1 + ((X - Y) / 20) ** 2) - 1)


def test_a_loss_that_is_no_divergence_goes_one_by_one(counts):
    model = al.NMF(3, init="random", n_init=2, polish=True, random_state=0).fit(counts[0])
    s = al.stability(None, counts[0], resample="rows", start="reference", n_resamples=2,
                     W=model.transform(counts[0]), H=model.components_, loss=Smooth())
    check(s, r=2)


def test_ctrl_c_keeps_what_is_done(counts, monkeypatch):
    X, _ = counts
    real, calls = resampling._solved, []

    def tired(*args):
        calls.append(1)
        if len(calls) > 2:      # the reference is the first call
            raise KeyboardInterrupt
        return real(*args)
    monkeypatch.setattr(resampling, "_solved", tired)
    s = al.stability(X, 3, n_resamples=60, start="reference")
    assert s.n_resamples == 25
    assert "interrupted: 25 of 60 replicates are done" in s.notes
    calls += [1]
    with pytest.raises(KeyboardInterrupt):
        al.stability(X, 3, n_resamples=60)


def test_progress_is_quiet_unless_asked(counts, capsys):
    al.stability(counts[0], 3, n_resamples=2, start="reference")
    assert capsys.readouterr().err == ""
    al.stability(counts[0], 3, n_resamples=2, start="reference", progress=True)
    assert "resamples" in capsys.readouterr().err


def test_the_unit_does_not_matter(counts):
    X, _ = counts
    a, b = (al.stability(c * X, 3, loss="frobenius", resample="parametric", n_resamples=3, start="reference")
            for c in (1., 2.**40))
    np.testing.assert_allclose(a.replicates, b.replicates, rtol=1e-4, atol=1e-6)


def test_a_replicate_in_which_a_component_vanishes():
    P = np.zeros((4, 2, 3))
    P[:, 0] = [.2, .3, .5]
    P[:3, 1] = [.9, .1, 0]
    order = matched(P, P[0])
    assert np.isfinite(silhouettes(in_order(P, order))).all()


def test_one_component_has_nothing_to_be_confused_with(counts):
    s = al.stability(counts[0], 1, n_resamples=3)
    assert s.mean == 1 and s.shares.min() == 1


def test_leaving_out_finds_the_sample_that_carries_a_component(counts):
    X, _ = counts
    alone = np.zeros(16)
    alone[[1, 5]] = 400
    Z = np.vstack([X, alone])
    out = al.leave_one_out(Z, 4, samples=[0, 3, 30])
    assert (out.residuals <= 1e-6).all()
    assert out.moved.argmax() == 2 and out.moved[2] > 3 * out.moved[:2].max()
    assert out.to_frame()["sample"][0] == 30
    np.testing.assert_allclose(out.share, Z.sum(1)[[0, 3, 30]] / Z.sum())


def test_leaving_out_takes_any_kind_of_table(counts):
    "A list has an `index` too"
    X, _ = counts
    for Y in (torch.from_numpy(X), X.tolist()):
        assert al.leave_one_out(Y, 2, samples=[1, 3]).samples.tolist() == [1, 3]


@pytest.mark.parametrize("asked, words", [
    (dict(n_components=3, resample="bootstrap"), "resample must be one of"),
    (dict(n_components=3, start="warm"), "start must be one of"),
    (dict(n_components=3, noise="poison"), "noise must be one of"),
    (dict(n_components=3, dispersion=0), "dispersion must be a number > 0"),
    (dict(n_components=3, n_resamples=1), "n_resamples must be a whole number >= 2"),
    (dict(n_components=3, n_init=0), "n_init must be a whole number >= 1"),
    (dict(n_components=0), "n_components must be a whole number >= 1"),
    (dict(n_components=None), "n_components is needed"),
])
def test_bad_input_is_named(counts, asked, words):
    with pytest.raises(ValueError, match=words):
        al.stability(counts[0], **asked)


def test_bad_questions_to_the_result(counts):
    s = al.stability(counts[0], 3, resample="rows", n_resamples=2, start="reference")
    with pytest.raises(ValueError, match="of='codes' needs the same samples"):
        s.interval(of="codes")
    with pytest.raises(ValueError, match="level must be a number > 0"):
        s.interval(0)
    with pytest.raises(ValueError, match="has fractions"):
        al.stability(counts[0] / 7, 3)
    with pytest.raises(ValueError, match="at least two samples"):
        al.leave_one_out(counts[0][:1], 1)


# --- the rank table

def test_rank_table_tells_planted_rank(counts):
    X, _ = counts
    table = al.rank_table(X, [4, 2, 3, 3], n_starts=4, n_resamples=3, n_splits=3)
    assert [r.rank for r in table.rows] == [2, 3, 4]
    row = table.rows[1]
    assert row.verdict == "determined" and row.stability > .95 and row.lost == 0 and row.largest_error < .3
    assert 0 < row.found <= 1 and row.minima >= 1 and row.held_out < table.rows[0].held_out
    assert table.choices["noise"] == table.choices["prediction"] == 3
    frame = table.to_frame()
    assert list(frame.index) == [2, 3, 4] and {"dispersion", "verdict", "distance", "held_out"} <= set(frame.columns)
    assert "rank 3" in table.why and "Chosen by" in table.why
    assert len(table.plot().axes) == 4


def test_rank_table_takes_gaps_and_too_many_components(counts):
    X = counts[0][:6, :5].copy()
    X[0, 0] = np.nan
    table = al.rank_table(X, [1, 4], n_starts=2, n_resamples=2, n_splits=2)
    assert np.isfinite(table.rows[0].held_out)
    assert any("observations cannot determine" in n for n in table.rows[1].notes)


def test_rank_table_stops_at_ctrl_c(counts, monkeypatch):
    real = ranks.held_out

    def tired(obj, k, *args):
        if k == 3:
            raise KeyboardInterrupt
        return real(obj, k, *args)
    monkeypatch.setattr(ranks, "held_out", tired)
    table = al.rank_table(counts[0], [2, 3], n_starts=2, n_resamples=2, n_splits=2)
    assert [r.rank for r in table.rows] == [2]


@pytest.mark.parametrize("asked, words", [
    (dict(ranks=3), "ranks must be several"), (dict(ranks=[]), "ranks is empty"),
    (dict(ranks=[0]), "ranks must be a whole number >= 1"), (dict(ranks=[2], holdout=0), "holdout must be"),
    (dict(ranks=[2], n_starts=0), "n_starts must be"), (dict(ranks=[2], resample="jackknife"), "resample must be"),
])
def test_rank_table_names_bad_input(counts, asked, words):
    with pytest.raises(ValueError, match=words):
        al.rank_table(counts[0], **asked)
