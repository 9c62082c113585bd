"Learning from one batch after another"
import pickle

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

import anmf_lab as al
from anmf_lab.core import as_data
from anmf_lab.online import Past, batch_update
from anmf_lab.solvers import solve_codes

LOSSES = ["frobenius", "kullback-leibler", 1.5, "itakura-saito", al.NegativeBinomial(10.)]


def T(a): return torch.as_tensor(a, dtype=torch.float64)


def drawn(seed=0, n=200, f=12, k=3, counts=5.):
    rng = np.random.default_rng(seed)
    return rng.poisson(counts * rng.gamma(.5, size=(n, k)) @ rng.gamma(.5, size=(k, f))) + .1


def learned(X, kind=np.asarray, passes=1, parts=10, model=None, **how):
    model = model or al.NMF(3, init="random", random_state=0, **how)
    for _ in range(passes):
        for b in np.split(X, parts): model.partial_fit(kind(b))
    return model


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_the_components_are_best_for_the_batch_and_the_past(loss, hidden, rng):
    "Against the objective itself: no small change of an entry makes it smaller"
    X, W, H = drawn(1, 15, 6), rng.random((15, 3)) + .1, rng.random((3, 6)) + .1
    A = rng.random((6, 3, 5))
    past = Past(T(A @ A.transpose(0, 2, 1)), T(rng.normal(1., 1., (6, 3))))
    seen = T(rng.random((15, 6)) > .2 if hidden else np.ones((15, 6)))
    data = as_data(X, mask=seen.bool() if hidden else None)
    forget = .7
    if loss == "frobenius" and not hidden: past = Past(past.G[0], past.b)
    new, left = batch_update(data, T(W), T(H), loss, past, forget, tol=1e-11)
    fit = al.NMF(3, loss=loss).objective(X, mask=seen.bool().numpy() if hidden else None)

    def value(H):
        pull = ((past.G @ H.T.unsqueeze(-1)).squeeze(-1) / 2 - past.b) * H.T
        return float(fit.value(T(W), H)) + forget * float(pull.sum())

    at = value(new)
    assert bool((new >= 0).all())
    for j in range(3):
        for c in range(6):
            for step in (1e-4, -1e-4):
                moved = new.clone()
                moved[j, c] = max(float(moved[j, c]) + step, 0.)
                assert value(moved) >= at - 1e-9 * abs(at)
    assert left.b.shape == (6, 3)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_what_is_left_behind_has_the_gradient_of_the_batch(loss, rng):
    "By autograd, and the past multiplied by `forget` in both statistics"
    X, W, H = drawn(2, 15, 6), rng.random((15, 3)) + .1, rng.random((3, 6)) + .1
    data = as_data(X)
    new, (G, b) = batch_update(data, T(W), T(H), loss, tol=1e-12)
    at = new.clone().requires_grad_()
    al.NMF(3, loss=loss).objective(X).value(T(W), at).backward()
    slope = (G @ new.T.unsqueeze(-1)).squeeze(-1) - b
    assert_allclose(slope.numpy(), at.grad.T.numpy(), atol=1e-8 * float(b.abs().max()))
    assert bool((torch.linalg.eigvalsh(G) > -1e-9 * G.abs().max()).all())
    old = Past(torch.ones_like(G), torch.ones_like(b))
    later, (G2, b2) = batch_update(data, T(W), T(H), loss, old, .25, tol=1e-12)
    fresh = al.NMF(3, loss=loss).objective(X)
    at = later.clone().requires_grad_()
    fresh.value(T(W), at).backward()
    assert_allclose(((G2 @ later.T.unsqueeze(-1)).squeeze(-1) - b2).numpy(),
                    (at.grad.T + .25 * (later.sum(0) - 1)[:, None]).numpy(), atol=1e-8 * float(b2.abs().max()))


def test_squared_error_keeps_the_sums_and_nothing_else(rng):
    X, W, H = rng.random((6, 5)) + .1, rng.random((6, 2)), rng.random((2, 5))
    A0, B0 = np.eye(2), rng.random((5, 2))
    _, (A, B) = batch_update(as_data(X), T(W), T(H), 2., Past(T(A0), T(B0)), .25)
    assert_allclose(A, .25 * A0 + W.T @ W, rtol=1e-12)
    assert_allclose(B, .25 * B0 + X.T @ W, rtol=1e-12)


@pytest.mark.parametrize("zeros", ["under the fit", "never seen"])
@pytest.mark.parametrize("loss", [1., 1.5])
def test_curvature_is_taken_where_the_fit_is_at_least_the_data(loss, zeros):
    "By hand, for one code of 1: far below a positive entry the second derivative would lock the component"
    x = [4., 2.] if zeros == "under the fit" else [0., 0.]
    X = T([[x[0], 8.], [x[1], 8.]])
    W, H = T([[1.], [1.]]), T([[3., 8.]])
    _, (G, _) = batch_update(as_data(X), W, H, loss, tol=1e-12)
    y = [4., 3.] if zeros == "under the fit" else [4., 4.]      # best is h = 3, the mean of the feature; of all
    curvature = (2 - loss) * np.array(x) * np.array(y) ** (loss - 3) + (loss - 1) * np.array(y) ** (loss - 2)
    assert_allclose(float(G[0]), curvature.sum(), rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_batches_end_near_the_fit_of_everything(loss):
    X = drawn(0)
    whole = al.NMF(3, loss=loss, init="random", n_init=3, random_state=0).fit(X)
    online = learned(X, passes=4, loss=loss)
    def misfit(m): return float(whole.objective(X).value(*(T(F) for F in m.factors(X))))
    assert misfit(online) < 1.05 * misfit(whole)
    assert online.n_iter_ == 40 and online.components_.shape == (3, 12)


@pytest.mark.parametrize("loss", ["frobenius", "kullback-leibler"])
def test_every_kind_of_batch_is_learned_alike(loss):
    X = np.floor(drawn(3))
    plain = learned(X, loss=loss).components_
    assert_allclose(learned(X, sp.csr_array, loss=loss).components_, plain, rtol=1e-4, atol=1e-6)
    assert_allclose(learned(X, torch.as_tensor, loss=loss).components_.numpy(), plain, rtol=1e-9)
    single = learned(X, lambda b: b.astype(np.float32), loss=loss).components_
    assert single.dtype == np.float32
    assert_allclose(single, plain, rtol=.02, atol=1e-2)


@pytest.mark.parametrize("loss", ["frobenius", "kullback-leibler"])
def test_weights_count_and_hidden_entries_do_not(loss):
    X, rng = drawn(4), np.random.default_rng(0)
    seen = rng.random(X.shape) > .2
    weights, spoiled = np.where(seen, 1., 0.), np.where(seen, X, 1e6)
    def run(give):
        model = al.NMF(3, loss=loss, init="random", random_state=0)
        for i in range(0, 200, 20): give(model, slice(i, i + 20))
        return model.components_
    masked = run(lambda m, i: m.partial_fit(spoiled[i], mask=seen[i]))
    assert_allclose(run(lambda m, i: m.partial_fit(np.where(seen, X, np.nan)[i])), masked, rtol=1e-6, atol=1e-8)
    assert_allclose(run(lambda m, i: m.partial_fit(X[i], weights=weights[i])), masked, rtol=1e-6, atol=1e-8)
    assert np.abs(run(lambda m, i: m.partial_fit(X[i])) - masked).max() > .01


@pytest.mark.parametrize("loss", LOSSES[:2], ids=str)
def test_what_is_hidden_leaves_no_curvature(loss):
    X, W, H = drawn(5, 15, 6), np.ones((15, 1)), np.ones((1, 6))
    seen = np.random.default_rng(1).random(X.shape) > .3
    _, (G, _) = batch_update(as_data(X, mask=seen), T(W), T(H), loss, tol=1e-12)
    for c in range(6):
        _, (own, _) = batch_update(as_data(X[seen[:, c], c:c + 1]), T(W[seen[:, c]]), T(H[:, :1]), loss, tol=1e-12)
        if loss == "frobenius": own = own[None]
        assert_allclose(G[c], own[0], rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES[:4], ids=str)
def test_batches_have_no_unit(loss):
    X = drawn(5)
    one, other = learned(X, loss=loss), learned(1e9 * X, loss=loss)
    def reconstruction(m, X): return m.inverse_transform(m.transform(X))
    assert_allclose(reconstruction(other, 1e9 * X) / 1e9, reconstruction(one, X), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("loss", ["frobenius", "kullback-leibler", 1.5])
def test_a_feature_that_comes_late_is_learned(loss):
    "Nothing is counted in it for three batches"
    X = np.floor(drawn(6))
    X = X[np.argsort(X[:, 0], kind="stable")]
    seen = np.nonzero(X[:, 0])[0][0]
    X, late = np.r_[X[:seen][-60:], X[seen:]], X[150:]
    model = al.NMF(3, loss=loss, init="random", random_state=0)
    for i in range(0, len(X) - 19, 20): model.partial_fit(X[i:i + 20])
    fitted = model.inverse_transform(model.transform(late))[:, 0]
    assert .5 * late[:, 0].mean() < fitted.mean() < 1.5 * late[:, 0].mean()


def test_fit_begins_anew_and_a_batch_takes_back_what_fit_said():
    X = drawn(7)
    model = al.NMF(3, random_state=0).fit(X)
    alone = clone(model).fit(X)
    assert hasattr(model, "kkt_residual_")
    model.partial_fit(X[:50])
    assert model.n_iter_ == 1
    for name in ("kkt_residual_", "status_", "reconstruction_err_", "loss_curve_"): assert not hasattr(model, name)
    assert_array_equal(model.fit(X).components_, alone.components_)
    after = model.partial_fit(X[50:100]).components_
    assert_allclose(after, clone(model).fit(X).partial_fit(X[50:100]).components_, rtol=1e-9)
    again = pickle.loads(pickle.dumps(model))
    assert_array_equal(again.partial_fit(X[50:]).components_, model.partial_fit(X[50:]).components_)


@pytest.mark.parametrize("loss", [.5, 3.])
def test_a_loss_whose_parabolas_mislead_has_no_partial_fit(loss):
    model = al.NMF(2, loss=loss)
    assert not hasattr(model, "partial_fit")
    with pytest.raises(AttributeError) as e: model.partial_fit(drawn())
    assert "1 <= beta <= 2" in str(e.value.__cause__ or e.value)


@pytest.mark.parametrize("ask, words", [
    (lambda m, X: m.set_params(l1=.1).partial_fit(X), "penalties"), (lambda m, X: m.set_params(l2=.1).partial_fit(X), "penalties"),
    (lambda m, X: m.set_params(forget=0.).partial_fit(X), "forget"), (lambda m, X: m.set_params(forget=1.1).partial_fit(X), "forget"),
    (lambda m, X: m.partial_fit(X).partial_fit(X[:, 1:]), "12"), (lambda m, X: m.partial_fit(-X), "negative"),
    (lambda m, X: m.partial_fit(al.blocks([X])), "partial_fit needs the whole matrix in memory"),
    (lambda m, X: m.partial_fit(X[:0]), "sample"),
], ids=range(8))
def test_what_cannot_be_learned_is_refused_by_name(ask, words):
    with pytest.raises(ValueError, match=words): ask(al.NMF(3, random_state=0), drawn())


def test_codes_of_later_data_are_the_best_ones():
    X = drawn(8)
    model = learned(X[:150], parts=3, loss="kullback-leibler")
    assert_allclose(model.transform(X[150:]), solve_codes(as_data(X[150:]), T(model.components_), 1.).numpy(), rtol=1e-9)
