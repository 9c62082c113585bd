"""A hundred kinds of input: the same small table in every container, and tables that are hard or wrong.

`SAME` hold the table of `table()` and must give its factors; `LIKE` are other tables, to be factorized honestly or refused by an
error that says why; `WRONG` must be refused. Each is a function without arguments, so that nothing is shared.
"""
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

N, F = 8, 6


def table():
    "Counts of rank two and a little noise: whole numbers, so that every container holds them exactly"
    rng = np.random.default_rng(0)
    W, H = rng.integers(1, 9, (N, 2)), rng.integers(0, 7, (2, F))
    return (W @ H + rng.integers(0, 4, (N, F))).astype(float)


def _unwritable():
    X = table()
    X.flags.writeable = False
    return X


def _strided():
    big = np.full((2 * N, 3 * F), np.nan)
    big[::2, ::3] = table()
    return big[::2, ::3]


def _frame(**how):
    return pd.DataFrame(table(), **how)


def _object():
    return table().astype(object)


def _duplicates():
    "Every entry stored twice, as its halves"
    X = sp.coo_array(table())
    return sp.coo_array((np.r_[X.data, X.data] / 2, (np.r_[X.row, X.row], np.r_[X.col, X.col])), shape=X.shape)


def _stored_zeros():
    X = sp.csr_array(np.ones((N, F)))
    X.data = table().ravel()
    return X


def _long_indices():
    X = sp.csr_array(table())
    X.indices, X.indptr = X.indices.astype(np.int64), X.indptr.astype(np.int64)
    return X


def _unsorted():
    X = sp.csr_array(table())
    for i in range(N):
        a, b = X.indptr[i], X.indptr[i + 1]
        X.indices[a:b], X.data[a:b] = X.indices[a:b][::-1].copy(), X.data[a:b][::-1].copy()
    X.has_sorted_indices = False
    return X


def T(**how):
    return torch.tensor(table(), **how)


SAME = {
    "array": table,
    "Fortran order": lambda: np.asfortranarray(table()),
    "read-only": _unwritable,
    "strided view": _strided,
    "reversed view": lambda: table()[::-1, ::-1].copy()[::-1, ::-1],
    "broadcast and added": lambda: table() + np.zeros((1, F)),
    "lists": lambda: table().tolist(),
    "tuples": lambda: tuple(map(tuple, table())),
    "list of arrays": lambda: list(table()),
    "matrix": lambda: table().view(np.ndarray).copy(),
    "float128": lambda: table().astype(np.longdouble),
    "big-endian": lambda: table().astype(">f8"),
    "int64": lambda: table().astype(np.int64),
    "int32": lambda: table().astype(np.int32),
    "int16": lambda: table().astype(np.int16),
    "uint8": lambda: table().astype(np.uint8),
    "uint64": lambda: table().astype(np.uint64),
    "object": _object,
    "masked array, nothing masked": lambda: np.ma.array(table(), mask=False),
    "data frame": _frame,
    "data frame of whole numbers": lambda: _frame().astype(int),
    "data frame with names": lambda: _frame(columns=list("abcdef"), index=list("ABCDEFGH")),
    "data frame with a date index": lambda: _frame(index=pd.date_range("2026-01-01", periods=N)),
    "data frame with levels of rows": lambda: _frame(index=pd.MultiIndex.from_product([["x", "y"], range(N // 2)])),
    "data frame of objects": lambda: _frame().astype(object),
    "data frame of nullable whole numbers": lambda: _frame().astype("Int64"),
    "data frame of nullable numbers": lambda: _frame().astype("Float64"),
    "data frame of mixed types": lambda: _frame().astype({0: "int32", 1: "float32", 2: "uint8"}),
    "data frame with sparse columns": lambda: _frame().astype(pd.SparseDtype(float, 0.)),
    "csr array": lambda: sp.csr_array(table()),
    "csr matrix": lambda: sp.csr_matrix(table()),
    "csc": lambda: sp.csc_array(table()),
    "coo": lambda: sp.coo_array(table()),
    "lil": lambda: sp.lil_array(table()),
    "dok": lambda: sp.dok_array(table()),
    "bsr": lambda: sp.bsr_array(table(), blocksize=(2, 2)),
    "dia": lambda: sp.dia_array(table()),
    "csr of whole numbers": lambda: sp.csr_array(table().astype(int)),
    "csr with 64-bit indices": _long_indices,
    "csr with unsorted columns": _unsorted,
    "csr with stored zeros": _stored_zeros,
    "coo with duplicates": _duplicates,
    "torch": T,
    "torch, transposed view": lambda: T().T.contiguous().T,
    "torch, wants a gradient": lambda: T(requires_grad=True),
    "torch of whole numbers": lambda: T(dtype=torch.int64),
    "torch of bytes": lambda: T(dtype=torch.uint8),
    "torch coo": lambda: T().to_sparse_coo(),
    "torch csr": lambda: T().to_sparse_csr(),
    "torch csc": lambda: T().to_sparse_csc(),
    "torch coo, not coalesced": lambda: torch.sparse_coo_tensor(
        torch.cat([T().nonzero().T] * 2, 1), torch.cat([T()[T() > 0] / 2] * 2), (N, F)),
    "torch, expanded and added": lambda: T() + torch.zeros(1, F, dtype=torch.float64).expand(N, F),
}

ROUND = {   # the same table in fewer digits
    "float32": lambda: table().astype(np.float32),
    "float16": lambda: table().astype(np.float16),
    "torch float32": lambda: T(dtype=torch.float32),
    "torch float16": lambda: T(dtype=torch.float16),
    "torch bfloat16": lambda: T(dtype=torch.bfloat16),
    "data frame of float32": lambda: _frame().astype(np.float32),
    "csr of float32": lambda: sp.csr_array(table().astype(np.float32)),
}


def put(value, *where):
    "The table with `value` at `where`"
    X = table()
    X[where] = value
    return X


LIKE = {
    "zeros": lambda: np.zeros((N, F)),
    "ones": lambda: np.ones((N, F)),
    "a row of zeros": lambda: put(0., 2),
    "a column of zeros": lambda: put(0., slice(None), 2),
    "half of it zeros": lambda: put(0., slice(0, 4)),
    "one entry": lambda: np.eye(1, N * F).reshape(N, F),
    "identity": lambda: np.eye(F),
    "bands": lambda: np.tri(N, F) - np.tri(N, F, -3),
    "booleans": lambda: table() > 20,
    "rank one": lambda: np.outer(np.arange(1., N + 1), np.arange(1., F + 1)),
    "equal rows": lambda: np.tile(table()[0], (N, 1)),
    "one row": lambda: table()[:1],
    "one column": lambda: table()[:, :1],
    "one number": lambda: np.array([[3.]]),
    "two by two": lambda: table()[:2, :2],
    "wide": lambda: np.tile(table(), (1, 20)),
    "tall": lambda: np.tile(table(), (20, 1)),
    "negative zero": lambda: put(-0., 1, 1),
    "one huge entry": lambda: put(1e9, 1, 1),
    "one entry of 1e30": lambda: put(1e30, 1, 1),
    "one entry of 1e200": lambda: put(1e200, 1, 1),
    "one tiny entry": lambda: put(1e-300, 1, 1),
    "one denormal entry": lambda: put(5e-324, 1, 1),
    "unit 1e-30": lambda: table() * 1e-30,
    "unit 1e-150": lambda: table() * 1e-150,
    "unit 1e30": lambda: table() * 1e30,
    "unit 1e150": lambda: table() * 1e150,
    "unit 1e300": lambda: table() * 1e300,
    "denormal": lambda: table() * 5e-324,
    "rows of many units": lambda: table() * 10. ** np.arange(-8, 8, 2)[:, None],
    "columns of many units": lambda: table() * 10. ** np.arange(-6, 6, 2),
    "float32 of 1e-20": lambda: (table() * 1e-20).astype(np.float32),
    "float32 of 1e30": lambda: (table() * 1e30).astype(np.float32),
    "whole numbers above 2**53": lambda: (table() * 2**54).astype(np.int64),
    "a missing entry": lambda: put(np.nan, 1, 1),
    "missing, as a masked array": lambda: np.ma.masked_array(put(1e9, 1, 1), mask=put(1, 1, 1) * 0 + np.eye(N, F)),
    "missing, in a data frame": lambda: pd.DataFrame(put(np.nan, 1, 1)),
    "missing, as pd.NA": lambda: pd.DataFrame(table()).astype("Float64").mask(np.eye(N, F) > 0),
    "missing, torch": lambda: torch.tensor(put(np.nan, 1, 1)),
    "half of it missing": lambda: np.where(np.add.outer(np.arange(N), np.arange(F)) % 2, table(), np.nan),
    "csr, nearly empty": lambda: sp.csr_array(np.eye(1, N * F).reshape(N, F)),
    "csr, empty": lambda: sp.csr_array((N, F)),
    "csr with an empty row": lambda: sp.csr_array(put(0., 2)),
    "torch, zeros": lambda: torch.zeros(N, F),
}

WRONG = {
    "None": lambda: None,
    "a word": lambda: "data",
    "a number": lambda: 3.,
    "an empty list": lambda: [],
    "no rows": lambda: np.empty((0, F)),
    "no columns": lambda: np.empty((N, 0)),
    "a vector": lambda: table()[0],
    "a series": lambda: pd.Series(table()[0]),
    "a cube": lambda: table()[None],
    "ragged lists": lambda: [[1., 2.], [3.]],
    "a dictionary": lambda: {"a": 1.},
    "a generator": lambda: (r for r in table()),
    "words": lambda: np.full((N, F), "x"),
    "numbers as words": lambda: table().astype(str).tolist()[:1] + [["x"] * F],
    "objects": lambda: np.full((N, F), None),
    "dates": lambda: np.full((N, F), np.datetime64("2026-01-01")),
    "complex": lambda: table() + 1j,
    "torch complex": lambda: T() + 1j,
    "negative": lambda: -table(),
    "one negative entry": lambda: put(-1., 1, 1),
    "a tiny negative entry": lambda: put(-1e-300, 1, 1),
    "infinite": lambda: put(np.inf, 1, 1),
    "minus infinity": lambda: put(-np.inf, 1, 1),
    "all missing": lambda: np.full((N, F), np.nan),
    "a row missing": lambda: put(np.nan, 2),
    "a column missing": lambda: put(np.nan, slice(None), 2),
    "a column of words": lambda: pd.DataFrame(table()).assign(name="x"),
    "csr with a negative entry": lambda: sp.csr_array(put(-1., 1, 1)),
    "csr with a missing entry": lambda: sp.csr_array(put(np.nan, 1, 1)),
    "csr with infinity": lambda: sp.csr_array(put(np.inf, 1, 1)),
    "torch, a vector": lambda: T()[0],
    "torch, no data": lambda: torch.empty(N, F, device="meta"),
    "torch, no rows": lambda: torch.empty(0, F),
    "torch, infinite": lambda: T() * torch.inf,
}
