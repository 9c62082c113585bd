"""Noise: exact doses, values from the range, seeds, purity; every bad input reads its message."""
import re

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import label

from anmf_lab.noise import KINDS, _irregular, _rectangle, _regular, corrupt, corrupt_pixels, deletion, irregular_patch, regular_patch, salt_pepper, three_stages

SHAPE = (12, 9)


@pytest.fixture
def X(rng):
    return rng.uniform(1, 2, (40, 108))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint8])
def test_pure_seeded_and_of_the_same_kind(X, kind, dtype):
    X = (100 * X).astype(dtype)
    before = X.copy()
    a, b, c = (corrupt(X, kind, image_shape=SHAPE, random_state=s) for s in (0, 0, 1))
    assert_array_equal(X, before)
    assert_array_equal(a, b)
    assert (a != c).any() and (a != X).any()
    assert a.dtype == dtype and a.shape == X.shape
    if kind != "deletion":
        assert a.min() >= X.min() and a.max() <= X.max()


@pytest.mark.parametrize("kind", ["salt_pepper", "pixel", "irregular_patch"])
@settings(max_examples=20, deadline=None)
@given(p=st.floats(0, 1), seed=st.integers(0, 99))
def test_the_dose_is_exact(kind, p, seed):
    X = np.random.default_rng(7).uniform(1, 2, (10, 108))
    X[:, :2] = 0, 3                                   # the range, so that nothing is replaced by itself (but for salt on salt)
    changed = (corrupt(X, kind, p, image_shape=SHAPE, random_state=seed) != X)
    assert (changed.sum(1) <= round(p * 108)).all() and (changed.sum(1) >= round(p * 108) - 2).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.floats(0, 1), st.integers(0, 99))
def test_a_rectangle_is_one_rectangle_near_the_dose(h, w, p, seed):
    M = _regular(5, h, w, p, np.random.RandomState(seed)).reshape(5, h, w)
    for m in M:
        if round(p * h * w) == 0:
            assert not m.any()
            continue
        a, b = _rectangle(p, h, w)
        rows, cols = np.flatnonzero(m.any(1)), np.flatnonzero(m.any(0))
        assert len(rows) == a and len(cols) == b and m.sum() == a * b
        assert np.ptp(rows) == a - 1 and np.ptp(cols) == b - 1
        assert abs(a * b - p * h * w) <= max(.01 * h * w, min(h, w) / 2 + 1e-9)


def test_rectangles_reach_every_corner():
    M = _regular(3000, 6, 5, .2, np.random.RandomState(0)).reshape(-1, 6, 5)
    assert M[:, 0, 0].any() and M[:, -1, -1].any() and M[:, 0, -1].any() and M[:, -1, 0].any()


def test_blobs_hang_together():
    "An irregular patch has few pieces, scattered pixels have many"
    M = _irregular(30, 28, 23, .25, np.random.RandomState(0)).reshape(30, 28, 23)
    scattered = np.random.default_rng(0).random(M.shape) < .25
    assert np.mean([label(m)[1] for m in M]) < 6 < 40 < np.mean([label(m)[1] for m in scattered])
    assert (M[0] != M[1]).any()


def test_blobs_have_the_proportions_of_the_image():
    "Seven times as high as wide: neighbours above each other differ less often than neighbours beside each other"
    M = _irregular(60, 84, 12, .25, np.random.RandomState(0)).reshape(60, 84, 12)
    above, beside = (M[:, 1:] != M[:, :-1]).mean(), (M[:, :, 1:] != M[:, :, :-1]).mean()
    assert above < .5 * beside


def test_salt_and_pepper_are_the_extremes_in_equal_parts(rng):
    X = rng.uniform(1, 2, (100, 200))
    N = salt_pepper(X, .3, random_state=0)
    new = N[N != X]
    assert set(np.unique(new)) == {X.min(), X.max()}
    assert_allclose((new == X.max()).mean(), .5, atol=.03)


def test_pixels_are_uniform_on_the_range(rng):
    X = rng.uniform(1, 2, (100, 200))
    X[0, 0], X[0, 1] = 0, 4
    N = corrupt_pixels(X, .5, random_state=0)
    new = N[N != X]
    assert_allclose(np.quantile(new, [.25, .5, .75]), [1, 2, 3], atol=.06)


@pytest.mark.parametrize("patch", [regular_patch, irregular_patch])
def test_fill(X, patch):
    N = patch(X, .3, image_shape=SHAPE, fill=0, random_state=0)
    assert set(np.unique(N[N != X])) == {0}
    R = patch(X, .3, image_shape=SHAPE, random_state=0)
    assert_array_equal(N != X, R != X)


def test_deletion_is_the_same_on_dense_and_sparse(X):
    S = sp.csr_array(np.where(X < 1.5, 0, X))
    D = deletion(S, .4, random_state=3)
    assert sp.issparse(D) and D.nnz < S.nnz and D.has_canonical_format
    assert_array_equal(D.toarray(), deletion(S.toarray(), .4, random_state=3))
    assert_allclose(D.nnz / S.nnz, .6, atol=.03)
    assert_array_equal(deletion(X, 0), X)
    assert not deletion(X, 1).any()


def test_stages_follow_each_other(X):
    s = three_stages(X, "pixel", random_state=0)
    assert_allclose([(b != a).mean() for a, b in zip((X, s.X_noisy, s.Z), s, strict=True)], np.array([22, 5, 5]) / 108, rtol=1e-12)
    assert_array_equal(s.X_noisy, corrupt_pixels(X, .2, random_state=0))
    assert [KINDS[k][1] for k in ("salt_pepper", "pixel", "regular_patch")] == [(.1, .1, .1), (.2, .05, .05), (.5, .25, .25)]
    assert len(three_stages(X, "salt_pepper", p=(.1, 0, 0), random_state=0)) == 3


def test_missing_entries_stay_missing(X):
    X[3, 5] = np.nan
    N = salt_pepper(X, .5, random_state=0)
    assert np.isfinite(N[np.isfinite(X)]).all()


def test_torch_goes_in(X):
    assert_array_equal(salt_pepper(torch.from_numpy(X), random_state=0), salt_pepper(X, random_state=0))


@pytest.mark.parametrize("call, message", [
    (lambda X: salt_pepper(X, 10), "p must be a number >= 0 and <= 1, got 10. It is the share of the entries"),
    (lambda X: corrupt_pixels(X, -.1), "p must be a number >= 0 and <= 1, got -0.1"),
    (lambda X: deletion(X, 2), "p must be a number >= 0 and <= 1, got 2. It is the probability"),
    (lambda X: salt_pepper(X[0]), "X must be a 2-dimensional array of numbers (samples x features), got shape (108,)"),
    (lambda X: salt_pepper(X.astype(str)), "X must be a 2-dimensional array of numbers"),
    (lambda X: salt_pepper(X[:0]), "X is empty or all missing: there is nothing to damage"),
    (lambda X: salt_pepper(sp.csr_array(X)), "X is sparse, and this noise would make it dense: pass X.toarray(), or use kind='deletion'"),
    (lambda X: regular_patch(X, image_shape=(8, 8)), "image_shape 8 x 8 has 64 pixels, but X has 108 features"),
    (lambda X: corrupt(X, "irregular_patch"), "image_shape must be (height, width), got None: patches need to know"),
    (lambda X: irregular_patch(X, image_shape=SHAPE, fill=-1), "fill must be a number >= 0, got -1"),
    (lambda X: corrupt(X, "salt_pepper", fill=0), "fill is for patches, kind 'salt_pepper' has its own values"),
    (lambda X: corrupt(X, "gaussian"), "kind must be one of 'salt_pepper', 'pixel', 'regular_patch', 'irregular_patch', 'deletion', got 'gaussian'"),
    (lambda X: three_stages(X, "pixel", p=(.1, .2)), "p must hold three shares, one a stage, got 2"),
    (lambda X: salt_pepper(X, random_state="seven"), "random_state must be None, a whole number"),
])
def test_bad_input(X, call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call(X)


def test_what_is_missing_stays_missing(X):
    holes = np.random.default_rng(0).random(X.shape) < .2
    N = np.where(holes, np.nan, X)
    for kind in KINDS:
        patch = dict(image_shape=SHAPE) if kind.endswith("patch") else {}
        noisy = corrupt(N, kind, .3, random_state=0, **patch)
        assert (np.isnan(noisy) == holes).all(), kind
        masked = corrupt(np.ma.array(np.where(holes, 1e9, X), mask=holes), kind, .3, random_state=0, **patch)
        assert_array_equal(masked, noisy)


def test_a_fill_that_the_type_cannot_hold_is_refused():
    X = np.full((3, 16), 7, np.uint8)
    with pytest.raises(ValueError, match="fill must be a number >= 0 and <= 255"): regular_patch(X, image_shape=(4, 4), fill=300)
    with pytest.raises(ValueError, match="image_shape must be"): regular_patch(X, image_shape=(2.5, 6.4))
    with pytest.raises(ValueError, match="infinity"): salt_pepper(X + np.inf)
