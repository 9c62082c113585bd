"""What cannot work on the rows of one process says so."""
import numpy as np
import pytest

import anmf_lab as al
from anmf_lab.distributed import together


def _asked(me):
    "Messages of a model and of a function that need all rows"
    X = np.random.default_rng(me).random((8, 5)) + .1
    shard, said = al.shard(X), []
    for ask in (lambda: al.L21NMF(2, random_state=0).fit(shard),
                lambda: al.identifiability(al.NMF(2, random_state=0), shard)):
        try: ask()
        except ValueError as e: said.append(str(e))
    return said


def test_what_needs_all_rows_refuses_a_shard():
    for said in together(_asked, 2):
        assert len(said) == 2 and "no shards" in said[0] and "whole matrix" in said[1]
