"""`components_stderr_`: only where a fit asks for it, in the scale of `components_`, NaN where nothing determines them."""
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from numpy.testing import assert_allclose
from sklearn.base import clone

import anmf_lab as al

KL = "kullback-leibler"


def counts(seed=0, zeros=.35):
    rng = np.random.default_rng(seed)
    W, H = rng.gamma(2., 1., (40, 3)) * (rng.random((40, 3)) > zeros), rng.gamma(2., 1., (3, 20)) * (rng.random((3, 20)) > zeros)
    W[W.sum(1) == 0, 0] = 1.
    return rng.poisson(100 * W @ H).astype(float)


X = counts()


def test_they_are_those_of_uncertainty_in_the_scale_of_the_components():
    model = al.NMF(3, loss=KL, n_init=4, random_state=0).fit(X, stderr="poisson")
    u = al.uncertainty(model, X, "poisson")
    size = model.components_.sum(1, keepdims=True)
    assert_allclose(model.components_stderr_ / size, u.components_stderr, rtol=1e-9)
    assert_allclose(model.components_ / size, u.components, atol=1e-5)
    assert u.light == "green" and (model.components_stderr_[model.components_ > 1e-3 * size] > 0).all()


def test_only_on_request_and_forgotten_by_the_next_fit():
    model = al.NMF(3, loss=KL, random_state=0).fit(X)
    assert not hasattr(model, "components_stderr_")
    model.fit_transform(X, stderr="poisson")
    assert model.components_stderr_.shape == (3, 20) and not hasattr(clone(model), "components_stderr_")
    assert not hasattr(model.fit(X), "components_stderr_")


@pytest.mark.parametrize("model", [
    al.NMF(3, loss="itakura-saito"), al.NMF(3, l2=.01), al.NMF(3, loss=al.NegativeBinomial(5.)), al.HuberNMF(3),
    al.CauchyNMF(3), al.CorrentropyNMF(3), al.ATNMF(3, lam=2.)], ids=lambda m: type(m).__name__)
def test_every_model_whose_loss_is_a_sum_over_entries(model):
    Y = X + .1 if model.get_params().get("loss") == "itakura-saito" else X
    model.set_params(random_state=0, max_iter=3000)
    assert np.isfinite(model.fit(Y, stderr="gaussian").components_stderr_).all()


@pytest.mark.parametrize("kind", [torch.from_numpy, sp.csr_matrix, lambda A: A.astype(np.float32)], ids=["torch", "sparse", "float32"])
def test_they_come_as_the_components_do(kind):
    model = al.NMF(3, loss=KL, random_state=0).fit(kind(X), stderr="poisson")
    assert type(model.components_stderr_) is type(model.components_) and model.components_stderr_.dtype == model.components_.dtype


def test_known_sigma_and_a_mask():
    mask, sigma = np.random.default_rng(0).random(X.shape) > .1, .5 + np.sqrt(X)
    model = al.NMF(3, random_state=0).fit(X, mask=mask, stderr="gaussian")
    assert_allclose(model.components_stderr_, al.uncertainty(model, X, "gaussian", mask=mask).components_stderr
                    * model.components_.sum(1, keepdims=True))
    weights = 1 / sigma**2
    assert np.isfinite(al.NMF(3, random_state=0).fit(X, weights=weights, stderr=weights).components_stderr_).all()


def test_what_is_not_determined_is_nan_and_a_warning_says_where_to_go():
    rng = np.random.default_rng(0)
    inside = rng.poisson(300 * rng.uniform(.5, 1, (20, 3)) @ rng.uniform(.5, 1, (3, 15))).astype(float)
    with pytest.warns(UserWarning, match=r"do not determine the components.*al\.bands"):
        model = al.NMF(3, loss=KL, random_state=0).fit(inside, stderr="poisson")
    assert np.isnan(model.components_stderr_).all() and model.components_.all()


@pytest.mark.parametrize("bad", ["normal", True, 3])
def test_a_noise_that_nobody_knows_is_refused_before_the_fit(bad):
    model = al.NMF(3)
    with pytest.raises(ValueError, match="stderr must be"):
        model.fit(X, stderr=bad)
    assert not hasattr(model, "components_")


def test_what_has_no_error_bars_says_what_else():
    with pytest.raises(ValueError, match="couples the entries.*al.stability"):
        al.L21NMF(3, random_state=0).fit(X, stderr="poisson")
    with pytest.raises(ValueError, match=r"4 observations cannot determine \d+ free entries"):
        al.NMF(3, random_state=0).fit(np.array([[1., 2.], [3., 5.]]), stderr="gaussian")
    with pytest.raises(ValueError, match="shape of X"):
        al.NMF(3, random_state=0).fit(X, stderr=np.ones((3, 3)))
