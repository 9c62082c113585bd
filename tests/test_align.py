"""Balance, stack, match, feature error and its gradient: invariants as properties."""
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from numpy.testing import assert_allclose

from anmf_lab.align import align, balance, degauge, feature_error, feature_error_grad, match, stack

sizes = st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 5), st.integers(0, 2**32 - 1))


def draw(n, f, k, seed):
    rng = np.random.default_rng(seed)
    return rng, rng.random((n, k)) + .01, rng.random((k, f)) + .01


@settings(deadline=None, max_examples=50)
@given(sizes)
def test_order_and_scale_cost_nothing(size):
    rng, W, H = draw(*size)
    t, order = rng.uniform(1e-3, 1e3, W.shape[1]), rng.permutation(W.shape[1])
    other = (W * t)[:, order], (H / t[:, None])[order]
    W_ref, H_ref = rng.random(W.shape) + .01, rng.random(H.shape) + .01
    assert feature_error(W, H, W, H) == 0
    assert feature_error(*other, W, H) < 1e-12
    assert_allclose(feature_error(*other, W_ref, H_ref), feature_error(W, H, W_ref, H_ref), rtol=1e-9)
    assert_allclose(align(*other, W, H)[0], balance(W, H)[0], rtol=1e-9)


@settings(deadline=None, max_examples=50)
@given(sizes)
def test_balance_keeps_the_product(size):
    rng, W, H = draw(*size)
    W *= rng.uniform(1e-3, 1e3, W.shape[1])
    Wb, Hb = balance(W, H)
    assert_allclose(Wb @ Hb, W @ H, rtol=1e-12)
    assert_allclose(np.linalg.norm(Wb, axis=0), np.linalg.norm(Hb, axis=1), rtol=1e-12)


@settings(deadline=None, max_examples=50)
@given(sizes)
def test_range(size):
    rng, W, H = draw(*size)
    W_ref, H_ref = rng.random(W.shape) + .01, rng.random(H.shape) + .01
    r = np.linalg.norm(stack(W, H)) / np.linalg.norm(stack(W_ref, H_ref))
    fe = feature_error(W, H, W_ref, H_ref)
    assert abs(1 - r) - 1e-12 <= fe <= np.hypot(1, r) + 1e-12


@settings(deadline=None, max_examples=30)
@given(sizes)
def test_match_is_the_best_order(size):
    rng, W, H = draw(*size)
    W_ref, H_ref = rng.random(W.shape), rng.random(H.shape)
    C, C_ref = stack(W, H), stack(W_ref, H_ref)
    best = min(np.linalg.norm(C_ref - C[:, p]) for p in permutations(range(C.shape[1])))
    assert_allclose(np.linalg.norm(C_ref - C[:, match(W, H, W_ref, H_ref)]), best, rtol=1e-12)


@settings(deadline=None, max_examples=50)
@given(sizes)
def test_gradient_is_the_derivative_and_ignores_scale(size):
    rng, W, H = draw(*size)
    W_ref, H_ref = rng.random(W.shape) + .01, rng.random(H.shape) + .01
    order = rng.permutation(W.shape[1])
    W, H = W[:, order], H[order]
    fe, gW, gH = feature_error_grad(W, H, W_ref, H_ref)
    assert fe == feature_error(W, H, W_ref, H_ref)
    scale = np.hypot(np.linalg.norm(gW), np.linalg.norm(gH))
    gauge = (gW * W).sum(0) - (gH * H).sum(1)
    assert (abs(gauge) <= 1e-13 * scale * (np.linalg.norm(W, axis=0) + np.linalg.norm(H, axis=1))).all()
    perm = match(W, H, W_ref, H_ref)
    Wg, Hg = torch.from_numpy(W).requires_grad_(), torch.from_numpy(H).requires_grad_()
    s = (Hg.norm(dim=1) / Wg.norm(dim=0)).sqrt()
    C, C_ref = torch.cat([Wg * s, (Hg / s[:, None]).T]), torch.from_numpy(stack(W_ref, H_ref))
    auto = torch.autograd.grad((C[:, perm] - C_ref).norm() / C_ref.norm(), (Wg, Hg))
    assert_allclose(gW, auto[0].numpy(), rtol=1e-7, atol=1e-12 * scale)
    assert_allclose(gH, auto[1].numpy(), rtol=1e-7, atol=1e-12 * scale)


def test_degauge_is_an_orthogonal_projection():
    rng, W, H = draw(6, 5, 3, 0)
    W, H, A, B = (torch.from_numpy(M) for M in (*balance(W, H), rng.standard_normal(W.shape), rng.standard_normal(H.shape)))
    P = degauge(W, H, A, B)
    torch.testing.assert_close(degauge(W, H, *P), P, rtol=1e-13, atol=1e-13)
    assert ((P[0] * W).sum(0) - (P[1] * H).sum(1)).abs().max() < 1e-13
    h = 1e-6   # it is the derivative of the stack at a balanced point
    fd = (stack(W + h * A, H + h * B) - stack(W - h * A, H - h * B)) / (2 * h)
    torch.testing.assert_close(fd, torch.cat([P[0], P[1].T]), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dead", ["codes", "components"])
def test_a_component_with_one_empty_half_is_empty(dead):
    "Nothing times something is nothing, whichever half is nothing: no inf, no NaN"
    _, W, H = draw(5, 4, 3, 0)
    _, W_ref, H_ref = draw(5, 4, 3, 1)
    if dead == "codes":
        W[:, 1] = 0
    else:
        H[1] = 0
    Wb, Hb = balance(W, H)
    assert not Wb[:, 1].any() and not Hb[1].any()
    assert_allclose(Wb @ Hb, W @ H, rtol=1e-12)
    assert np.isfinite(stack(W, H)).all() and np.isfinite(feature_error(W, H, W_ref, H_ref))


def test_kinds_and_dtypes_come_back():
    rng, W, H = draw(6, 5, 3, 1)
    assert all(isinstance(A, np.ndarray) and A.dtype == np.float32 for A in balance(W.astype("f4"), H.astype("f4")))
    Wt, Ht = torch.from_numpy(W), torch.from_numpy(H)
    assert all(isinstance(A, torch.Tensor) for A in (*balance(Wt, Ht), stack(Wt, Ht), match(Wt, Ht, Wt, Ht)))
    assert isinstance(feature_error(Wt, Ht, Wt, Ht), float)
    W0 = W.copy()
    feature_error_grad(W, H, W + .1, H)
    assert (W == W0).all()


def test_zero_components():
    rng, W, H = draw(6, 5, 3, 2)
    dead = W.copy()
    dead[:, 1] = 0
    assert np.isfinite(feature_error(dead, H, W, H)) and not stack(dead, H)[:, 1].any()
    with pytest.raises(ValueError, match="component 1 is zero"):
        feature_error_grad(dead, H, W, H)
    with pytest.raises(ValueError, match="reference .* is zero"):
        feature_error(W, H, 0 * W, H)
    fe, gW, gH = feature_error_grad(W, H, W, H)   # the kink
    assert fe == 0 and not gW.any() and not gH.any()


@pytest.mark.parametrize("args, words", [
    (lambda W, H: (W[:, :2], H, W, H), "share a rank"),
    (lambda W, H: (W[:, :2], H[:2], W, H), "different shapes"),
    (lambda W, H: (W * np.nan, H, W, H), "NaN or infinity"),
    (lambda W, H: (W[:, 0], H, W, H), "must be a matrix"),
])
def test_bad_input(args, words):
    _, W, H = draw(6, 5, 3, 3)
    with pytest.raises(ValueError, match=words):
        feature_error(*args(W, H))
