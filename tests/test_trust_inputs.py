"""What nobody can answer is refused by name, what can be answered with a reservation carries it: every function of the trust pages."""
import warnings

import numpy as np
import pytest

import anmf_lab as al
from anmf_lab.error_bars import Uncertainty

KL = "kullback-leibler"
RNG = np.random.default_rng(0)
W = RNG.gamma(2., 1., (30, 3)) * (RNG.random((30, 3)) > .35)
H = RNG.gamma(2., 1., (3, 12)) * (RNG.random((3, 12)) > .35)
W[W.sum(1) == 0, 0] = 1.
X = RNG.poisson(50 * W @ H).astype(float)
MODEL = al.NMF(3, loss=KL, random_state=0, n_init=3).fit(X)
OWN = dict(W=MODEL.transform(X), H=MODEL.components_, loss=KL)
FEW = RNG.poisson(20, size=(3, 4)).astype(float)      # 12 counts, rank 3: 12 numbers

ASK = dict(identifiability=lambda model, X, **how: al.identifiability(model, X, n_seeds=2, **how), bands=al.bands,
           uncertainty=al.uncertainty, rivals=lambda model, X, **how: al.rivals(model, X, n_seeds=3, **how), certify=al.certify,
           leave_one_out=al.leave_one_out)
every = pytest.mark.parametrize("ask", list(ASK.values()), ids=list(ASK))


@every
@pytest.mark.parametrize("change, words", [
    (dict(X=-X), "Negative values"), (dict(H=OWN["H"] * np.nan), "H must be finite"), (dict(H=OWN["H"][:, :5]), r"H must be \(k, 12\)"),
    (dict(H=OWN["H"] * [[1.], [1.], [0.]]), "a component is zero"), (dict(W=OWN["W"][:7]), r"W must be \(30, 3\)"),
    (dict(H=None), "components H are needed|n_components is needed")], ids=["negative", "nan", "width", "dead", "length", "none"])
def test_refused_by_name(ask, change, words):
    given = dict(X=X) | OWN | change
    with pytest.raises(ValueError, match=words):
        ask(None, given.pop("X"), **given)


@pytest.mark.parametrize("name", ["identifiability", "bands", "certify", "leave_one_out"])
def test_no_more_observations_than_numbers_is_said(name):
    model = al.NMF(3, loss=KL, random_state=0, max_iter=5000).fit(FEW)
    assert "12 observations for 12 numbers" in " ".join(ASK[name](model, FEW).notes)


@pytest.mark.parametrize("name", ["uncertainty", "rivals"])
def test_noise_needs_more_observations_than_numbers(name):
    with pytest.raises(ValueError, match=r"12 observations cannot determine \d+ free entries"):
        ASK[name](al.NMF(3, loss=KL, random_state=0, max_iter=5000).fit(FEW), FEW)


@every
def test_unsolved_factors_are_solved(ask):
    "Factors a third off: the answer is that of the solution"
    rough = {k: T * np.random.default_rng(1).uniform(.7, 1.3, T.shape) if k != "loss" else T for k, T in OWN.items()}
    one, two = ask(None, X, **OWN), ask(None, X, **rough)
    for name in ("verdict", "count", "light", "freedom"):
        if hasattr(one, name):
            assert getattr(one, name) == getattr(two, name)
    if isinstance(one, Uncertainty):
        assert any("solving moved them by" in n for n in two.notes) and not any("moved" in n for n in one.notes)
        np.testing.assert_allclose(two.components_stderr, one.components_stderr, rtol=1e-4)


@every
def test_factors_that_give_zero_where_the_data_are_positive_are_lifted(ask):
    "Rounded factors of counts: Kullback-Leibler is infinite there. Error bars and rivals ended in a traceback of linear algebra"
    Z = X + (OWN["W"] @ OWN["H"] < 1e-9)
    assert (OWN["W"] @ OWN["H"] == 0).any()
    answer = ask(None, Z, **OWN)
    notes = getattr(answer, "notes", None)
    if notes is not None:
        assert any("zeros were lifted" in n for n in notes) and not any("not solved: KKT" in n for n in notes)


def test_a_model_of_counts_says_what_it_cannot_know():
    u = al.uncertainty(None, X / 7, "poisson", W=OWN["W"] / 7, H=OWN["H"], loss=KL)
    assert any("about counts, and X is not whole" in n for n in u.notes)
    with pytest.raises(ValueError, match="redistributes whole counts, and X has fractions"):
        al.stability(X / 7, 3, resample="multinomial", n_resamples=2, loss=KL)
    with pytest.raises(ValueError, match="Negative values"):
        al.stability(-X, 3, n_resamples=2)


def test_sigma_of_zero():
    with np.errstate(divide="ignore"):
        weights = 1 / np.where(X == X[0, 0], 0., 1.)**2
    with pytest.raises(ValueError, match="A sigma of 0 has no such weight"):
        al.uncertainty(None, X, weights, **OWN)
    for ask in ASK.values():
        with pytest.raises(ValueError, match="weights must be finite"):
            ask(None, X, weights=weights, **OWN)


@pytest.mark.parametrize("reference, words", [
    (np.ones((2, 12)), "must hold 3 profiles"), (np.ones((3, 11)), "12 features"), (np.ones((12, 3)), "Profiles are rows"),
    (-np.ones((3, 12)), "nonnegative"), (np.eye(3, 12) * [[1.], [1.], [0.]], "not all zero in any profile")],
    ids=["number", "length", "transposed", "negative", "empty"])
def test_a_reference_of_another_shape(reference, words):
    with pytest.raises(ValueError, match=words):
        al.uncertainty(None, X, reference=reference, **OWN)


def test_a_reference_in_another_order_is_put_in_order():
    order, columns = [2, 0, 1], list("abcdefghijkl")
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame(X, columns=columns)
    profiles = pd.DataFrame(OWN["H"][order], columns=columns)[columns[::-1]]      # rows and columns in another order
    u = al.uncertainty(None, table, reference=profiles, **OWN)
    np.testing.assert_allclose(u.cosine()[0], 1, atol=1e-6)
    with pytest.raises(ValueError, match="reference lacks the feature 'l'"):
        al.uncertainty(None, table, reference=profiles.rename(columns=dict(l="z")), **OWN)


def test_a_rank_table_of_hardly_any_data_is_quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        row, = al.rank_table(FEW, [3], loss=KL, n_starts=2, n_resamples=2, n_splits=2).rows
    assert row.notes
