"""Matrices in files that say themselves how they are laid out: no story, and so no page.

Each reader gives a dict: `values` as in the file, `rows` and `columns` (names or None), `title` of
the row names, `image_shape` or None. Names are checked where they are used.
"""
from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import scipy.io
import scipy.sparse as sp


def _missing(package: str, suffix: str) -> ImportError:
    return ImportError(f"reading {suffix} needs {package}: pip install 'anmf-lab[files]'.")


def _found(values, rows=None, columns=None, title="", image_shape=None) -> dict:
    if not sp.issparse(values):
        values = np.asarray(values, dtype=np.float64)
    return dict(values=values, rows=rows, columns=columns, title=title, image_shape=image_shape)


def _named(arrays: dict, keys: tuple, size: int):
    "The first of `keys` that holds `size` names"
    return next((arrays[k] for k in keys if k in arrays and arrays[k].shape == (size,)), None)


def read_npy(path: Path, key: str | None = None) -> dict:
    "npy, or the one matrix of an npz (also SciPy's sparse matrices)"
    try:
        loaded = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as e:
        raise ValueError(f"it is no array of numpy's: {e}") from None
    arrays = {} if isinstance(loaded, np.ndarray) else dict(loaded)
    if {"indptr", "indices", "shape"} <= set(arrays):
        parts = arrays["data"].astype(np.float64), arrays["indices"], arrays["indptr"]
        X = sp.csr_array(parts, tuple(arrays["shape"]))
    else:
        X = loaded if isinstance(loaded, np.ndarray) else arrays[_the_matrix(arrays, key)]
    if X.ndim != 2 or X.dtype.kind not in "biuf":
        raise ValueError(f"it holds {X.ndim} axes of {X.dtype}: two axes of numbers are needed.")
    rows = _named(arrays, ("sample_names", "samples", "index"), X.shape[0])
    columns = _named(arrays, ("feature_names", "features", "columns", "terms"), X.shape[1])
    shape = tuple(int(s) for s in np.ravel(arrays.get("image_shape", ())))
    fits = len(shape) == 2 and shape[0] * shape[1] == X.shape[1]
    return _found(X, rows, columns, image_shape=shape if fits else None)


def _the_matrix(arrays: dict, key: str | None) -> str:
    "Which of several arrays is meant"
    two = [name for name, a in arrays.items() if a.ndim == 2 and a.dtype.kind in "biuf"]
    usual = [n for n in ("X", "data", "counts") if n in two] or two[:1] * (len(two) == 1)
    name = key or (usual[0] if usual else "")
    if name not in two:
        held = ", ".join(two) or "none"
        raise ValueError(f"it holds the matrices {held}: say which one with key= (--key).")
    return name


def read_parquet(path: Path) -> dict:
    "parquet, where pandas has an engine for it"
    import pandas as pd
    try:
        frame = pd.read_parquet(path)
    except ImportError:
        raise _missing("pyarrow", ".parquet") from None
    text = [c for c in frame.columns if not pd.api.types.is_numeric_dtype(frame[c])]
    if text and isinstance(frame.index, pd.RangeIndex):
        frame = frame.set_index(text.pop(0))
    if text:
        raise ValueError(f"column {text[0]!r} does not hold numbers: leave it out.")
    rows = None if isinstance(frame.index, pd.RangeIndex) else frame.index
    values = frame.to_numpy(dtype=np.float64, na_value=np.nan)
    return _found(values, rows, frame.columns, str(frame.index.name or ""))


def read_market(path: Path) -> dict:
    "Matrix Market, with the names of 10x files where they lie beside it"
    try:
        X = sp.csr_array(scipy.io.mmread(path))
    except (ValueError, OverflowError) as e:
        raise ValueError(f"it is no Matrix Market file: {e}") from None
    beside = {}
    for name in ("genes", "features", "barcodes"):
        for file in (path.with_name(f"{name}.tsv"), path.with_name(f"{name}.tsv.gz")):
            if file.exists():
                raw = file.read_bytes()
                raw = gzip.decompress(raw) if file.suffix == ".gz" else raw
                beside[name] = [line.split("\t")[0] for line in raw.decode("utf-8").splitlines()]
    genes, cells = beside.get("features", beside.get("genes")), beside.get("barcodes")
    if genes and cells and X.shape == (len(genes), len(cells)):
        return _found(X, genes, cells, "gene")
    return _found(X)


def read_cells(path: Path) -> dict:
    "h5ad, where anndata is installed"
    try:
        import anndata
    except ImportError:
        raise _missing("anndata", ".h5ad") from None
    found = anndata.read_h5ad(path)
    X = sp.csr_array(found.X) if sp.issparse(found.X) else found.X
    return _found(X, found.obs_names, found.var_names)


def and_more(n: int) -> str:
    "What an error says of further cells"
    return f" (and {n - 1} more)" if n > 1 else ""


def check_cells(table) -> None:
    "Negative and infinite cells, rows and columns without a number: named"
    X = table.values.tocoo() if sp.issparse(table.values) else table.values
    v = X.data if sp.issparse(X) else X
    for bad, what in ((v < 0, "negative"), (np.isinf(v), "infinite")):
        if not bad.any(): continue
        k = np.flatnonzero(bad)[0]
        i, j = (X.row[k], X.col[k]) if sp.issparse(X) else np.unravel_index(k, X.shape)
        where = f"row {table.samples[i]!r}, column {table.features[j]!r}"
        raise ValueError(f"{where} is {what}: {v.flat[k]:g}{and_more(int(bad.sum()))}. "
                         "A factorization into parts needs finite numbers >= 0.")
    if sp.issparse(X): return
    for axis, names, what in ((1, table.samples, "sample"), (0, table.features, "feature")):
        empty = np.flatnonzero(np.isnan(X).all(axis))
        if len(empty):
            who = f"{what} {names[empty[0]]!r}"
            raise ValueError(f"{who} holds no number{and_more(len(empty))}: leave it out.")
