"""Scores: against brute force and scikit-learn; every bad input reads its message."""
import itertools
import re

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from anmf_lab.metrics import ari, clustering_accuracy, masked_rmse, match_clusters, nmi

labelings = st.integers(1, 25).flatmap(lambda n: st.tuples(*[st.lists(st.integers(0, 4), min_size=n, max_size=n)] * 2))


@settings(max_examples=60, deadline=None)
@given(labelings)
def test_accuracy_is_the_best_matching(pair):
    y, z = map(np.array, pair)
    best = max(np.mean(np.array(p)[z] == y) for p in itertools.permutations(range(5)))
    assert_allclose(clustering_accuracy(y, z), best, rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(labelings, st.permutations(range(5)))
def test_names_of_clusters_do_not_matter(pair, names):
    y, z = map(np.array, pair)
    renamed = np.array(names)[z]
    for score in (clustering_accuracy, nmi, ari):
        assert_allclose(score(y, z), score(y, renamed), atol=1e-12)
        assert_allclose(score(y, z), score(z, y), atol=1e-12)
        assert_allclose(score(y, y), 1, rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(labelings)
def test_matching_gives_the_accuracy(pair):
    y, z = map(np.array, pair)
    found = match_clusters(y, z)
    assert len(set(found.values())) == len(found)
    assert_allclose(np.mean([found.get(c) == t for c, t in zip(z.tolist(), y.tolist(), strict=True)]), clustering_accuracy(y, z), rtol=1e-12)


def test_nmi_and_ari_are_those_of_scikit_learn(rng):
    y, z = rng.integers(0, 5, 80), rng.integers(0, 7, 80)
    assert ari(y, z) == adjusted_rand_score(y, z)
    for average in ("arithmetic", "geometric", "min", "max"):
        assert nmi(y, z, average=average) == normalized_mutual_info_score(y, z, average_method=average)


def test_a_vote_would_be_perfect_on_singletons():
    assert clustering_accuracy([0, 0, 0, 1, 1, 1], range(6)) == 2 / 6


@pytest.mark.parametrize("wrap", [list, np.array, pd.Series, torch.tensor, lambda y: np.array(y, dtype=float), lambda y: [str(v) for v in y]])
def test_labels_of_any_kind(wrap):
    assert clustering_accuracy(wrap([0, 0, 1, 1]), wrap([1, 1, 0, 1])) == .75


@pytest.mark.parametrize("score", [clustering_accuracy, match_clusters, nmi, ari])
@pytest.mark.parametrize("y, z, message", [
    ([0, 1], [0, 1, 1], "y_true and y_pred must label the same samples, got 2 and 3 labels"),
    ([], [], "y_true is empty: at least 1 label is required"),
    ([0, 1], [[.2, .8], [.7, .3]], r"y_pred must be 1-dimensional, one label per sample, got shape (2, 2). For codes W (n, k) pass W.argmax(axis=1)"),
    ([.5, 1.], [0, 1], "y_true must hold labels, got real numbers such as 0.5"),
    ([0., np.nan], [0, 1], "y_true must hold labels, got real numbers such as nan"),
])
def test_bad_labels(score, y, z, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        score(y, z)


def test_unknown_average():
    with pytest.raises(ValueError, match="average must be one of 'arithmetic'.*got 'mean'"):
        nmi([0, 1], [0, 1], average="mean")


def test_rmse_by_hand_and_on_every_kind_of_array(rng):
    X, Y, M = rng.random((6, 4)), rng.random((6, 4)), rng.random((6, 4)) < .5
    want = np.sqrt(((X - Y)[M] ** 2).mean())
    for wrap in (np.asarray, torch.from_numpy, pd.DataFrame, sp.csr_array):
        assert_allclose(masked_rmse(wrap(X), wrap(Y), M), want, rtol=1e-12)
    assert_allclose(masked_rmse(X, Y, M.astype(float)), want, rtol=1e-12)
    assert_allclose(masked_rmse(X, Y, torch.from_numpy(M)), want, rtol=1e-12)
    assert_allclose(masked_rmse(np.where(M, X, np.nan), Y), want, rtol=1e-12)
    assert_allclose(6 * 4 * masked_rmse(X, Y) ** 2, M.sum() * want ** 2 + (~M).sum() * masked_rmse(X, Y, ~M) ** 2, rtol=1e-12)
    assert masked_rmse(X.astype(np.float32), X.astype(np.float32)) == 0


@pytest.mark.parametrize("X, Y, M, message", [
    (np.ones((2, 3)), np.ones((3, 2)), None, "X and Y must have the same shape, got (2, 3) and (3, 2)"),
    (np.ones(3), np.ones(3), None, "X must be a 2-dimensional array of numbers, got shape (3,)"),
    (np.ones((2, 2)), np.full((2, 2), "a"), None, "Y must be a 2-dimensional array of numbers"),
    (np.ones((2, 2)), np.ones((2, 2)), np.ones((2, 3), bool), "mask must have the shape of X, (2, 2), got (2, 3)"),
    (np.ones((2, 2)), np.ones((2, 2)), np.full((2, 2), .5), "mask must be boolean (True = counts) or hold only 0 and 1"),
    (np.ones((2, 2)), np.ones((2, 2)), np.zeros((2, 2), bool), "mask selects no known entry of X"),
    (np.full((2, 2), np.nan), np.ones((2, 2)), None, "mask selects no known entry of X"),
])
def test_bad_rmse_input(X, Y, M, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        masked_rmse(X, Y, M)
