"""Every test: one thread unless OMP_NUM_THREADS says otherwise, a fixed global seed (ours are local generators),
no figure left open.

The order is random (pytest-randomly; `-p no:randomly` for the order of the files) and may not matter: the seed that
pytest prints, given back as `--randomly-seed=N`, gives the same order again.
"""
import os
import sys
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("MPLBACKEND", "agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # so that tests can `import refs...`
DATA = ROOT.parent / "shared" / "data"      # beside the checkout, where there is one: real data for tests only
if DATA.is_dir():
    os.environ.setdefault("ANMF_LAB_DATA", str(DATA))
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def pytest_configure(config):
    "pytest-randomly gives the order; the global seed is the fixture's below"
    config.option.randomly_reset_seed = False


@pytest.fixture(autouse=True)
def _same_start():
    "Nothing may depend on the order of the tests"
    np.random.seed(0)
    torch.manual_seed(0)
    dtype = torch.get_default_dtype()
    yield
    torch.set_default_dtype(dtype)
    torch.set_flush_denormal(False)   # the reproductions set it, for speed
    plt.close("all")


@pytest.fixture
def rng():
    return np.random.default_rng(0)
