"""The published gradients: against each other, autograd's own bookkeeping, and the adjoint in the limit."""
import numpy as np
import pytest
import torch

from anmf_lab.core import as_data
from anmf_lab.implicit import feature_gradient
from anmf_lab.polish import polish
from anmf_lab.solvers import mu_step, start
from anmf_lab.unrolled import explicit_gradient, neumann_gradient, unrolled_gradient


@pytest.fixture(scope="module", params=[1., 2.])
def problem(request):
    rng = np.random.default_rng(4)   # second eigenvalue of the update .98: series and back-propagation converge within reach
    W, H = (rng.uniform(.2, 1, s) * (rng.random(s) > .6) for s in ((15, 3), (3, 12)))
    data = as_data(np.maximum(W @ H + .05 * rng.standard_normal((15, 12)), .002))
    state = tuple(A[0] for A in start(data, 3, rng=0))
    for _ in range(300):
        state = mu_step(data, state, request.param)
    state = polish(data, *state, request.param, tol=1e-12).state
    ref = tuple(torch.from_numpy(rng.uniform(.2, 1, A.shape)) for A in state)
    return data, state, ref, request.param


def test_long_back_propagation_from_the_solution_is_the_adjoint(problem):
    data, state, ref, beta = problem
    _, exact, cert = feature_gradient(data, *state, *ref, beta, tol=1e-12)
    if beta == 1:
        _, G, _ = unrolled_gradient(data, *state, *ref, beta, n_iter=600, checkpoint_every=25)
    else:
        _, G = neumann_gradient(data, *state, *ref, beta, terms=8000)   # the same sum, shown below
    assert cert.trusted and float((G - exact).norm() / exact.norm()) < 1e-3


def test_series_is_dense_series_and_warm_back_propagation(problem):
    data, state, ref, beta = problem
    _, series = neumann_gradient(data, *state, *ref, beta, terms=40)
    torch.testing.assert_close(series, explicit_gradient(data, *state, *ref, beta, terms=40)[1], rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(series, unrolled_gradient(data, *state, *ref, beta, n_iter=40)[1], rtol=1e-6, atol=1e-10)


def test_checkpointing_changes_nothing(problem):
    data, state, ref, beta = problem
    plain, saved = (unrolled_gradient(data, *state, *ref, beta, n_iter=23, checkpoint_every=c)[1] for c in (0, 5))
    torch.testing.assert_close(plain, saved, rtol=1e-12, atol=1e-14)
