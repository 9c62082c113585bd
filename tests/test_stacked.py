"Many small problems at once: each as solved as if it were alone"
import numpy as np
import pytest
import torch

import anmf_lab as al
from anmf_lab.core import as_data
from anmf_lab.polish import kkt_residual
from anmf_lab.stacked import Stack, random_starts, solve_stack


def genomes():
    return np.asarray(al.load_dataset("wtsi").data, float)


def test_resampled_genomes_are_solved():
    rng, X = np.random.default_rng(0), genomes()
    tables = [[rng.multinomial(int(x.sum()), x / x.sum()) for x in X] for _ in range(8)]
    stack = Stack(torch.tensor(np.array(tables, float)))
    found = solve_stack(stack, *random_starts(stack, 4, rng=0))
    assert found.solved.all()
    for X, W, H in zip(stack.X, found.W, found.H, strict=True):
        assert kkt_residual(as_data(X), W, H, 1.) <= 1.01e-6


@pytest.mark.parametrize("beta", [1., 2.])
def test_a_problem_does_not_depend_on_its_neighbours(beta):
    stack = Stack(torch.tensor(genomes())[None], beta)
    W, H = random_starts(stack, 2, rng=0, r=3)
    both = solve_stack(stack, W, H, tol=1e-8)
    alone = solve_stack(stack, W[1:2], H[1:2], tol=1e-8)
    assert both.solved.all() and alone.solved.all()
    torch.testing.assert_close(both.losses[1:2], alone.losses, rtol=1e-9, atol=0.)


def test_arguments_are_left_alone():
    stack = Stack(torch.tensor(genomes())[None])
    W, H = random_starts(stack, 2, rng=0, r=2)
    before = W.clone(), H.clone()
    solve_stack(stack, W, H)
    assert torch.equal(W, before[0]) and torch.equal(H, before[1])
