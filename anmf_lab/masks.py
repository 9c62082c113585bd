"""What hides entries, in whatever form it comes, and rows that are elsewhere: see the page of `core`."""
from __future__ import annotations
import numpy as np
import scipy.sparse as sp
import torch
from sklearn.utils.validation import validate_data
from torch import Tensor


def unmasked(X):   # any input; a masked array as a plain one
    "A NumPy masked array with NaN where it is masked"
    if not isinstance(X, np.ma.MaskedArray): return X
    if not np.ma.getmaskarray(X).any(): return X.data
    return (X if X.dtype.kind == "f" else X.astype(np.float64)).filled(np.nan)


def _plain(mask):
    "The dtype in which an array-like of objects can be read as a mask; None leaves it"
    values = np.asarray(mask)
    if values.dtype != object: return None
    whole = all(isinstance(v, (bool, np.bool_, int)) for v in values.flat)
    return bool if whole and {*values.flat} <= {0, 1} else None


def unhidden(X, mask=None, weights=None):
    "The input with NaN where `mask` (or a weight of 0) hides what is no data"
    sparse = sp.issparse(X) or (isinstance(X, Tensor) and X.layout != torch.strided)
    if (mask is None and weights is None) or sparse: return X
    try:
        V = np.asarray(X.detach().cpu() if isinstance(X, Tensor) else unmasked(X), dtype=float)
        M = np.ones(V.shape, bool)
        if mask is not None: M = check_mask(mask, torch.empty(V.shape), "X").numpy()
        if weights is not None: M = M & (np.asarray(weights) > 0)
    except (TypeError, ValueError, RuntimeError): return X        # refused elsewhere, by name
    bad = ~M & ~((V >= 0) & (V < np.inf))
    if not bad.any(): return X
    if isinstance(X, Tensor): return torch.where(torch.from_numpy(bad).to(X.device), torch.nan, X)
    return X.mask(bad) if hasattr(X, "mask") and hasattr(X, "columns") else np.where(bad, np.nan, V)


def is_plain(X) -> bool:
    "A NumPy matrix of floats, with something in it: nothing to convert"
    return type(X) is np.ndarray and X.ndim == 2 and X.size > 0 and X.dtype in (np.float64, np.float32)


def table(model, X, reset: bool):
    "Input of a model, checked scikit-learn's way"
    if is_plain(X): return validate_data(model, X, reset=reset, skip_check_array=True)
    return validate_data(model, unmasked(X), reset=reset, dtype=[np.float64, np.float32],
                         accept_sparse="csr" if model._allow_sparse else False,
                         ensure_all_finite="allow-nan" if model._allow_missing else True)


def check_mask(mask, X: Tensor, name: str) -> Tensor:
    "`mask` as a boolean tensor of the shape of `X`"
    if sp.issparse(mask): mask = mask.toarray()
    m = mask
    try:
        if not isinstance(m, Tensor): m = torch.as_tensor(np.asarray(mask, dtype=_plain(mask)))
    except (TypeError, ValueError):
        raise ValueError("mask must be boolean (True = observed) or hold only 0 and 1.") from None
    if m.layout != torch.strided: m = m.to_dense()
    if tuple(m.shape) != tuple(X.shape):
        raise ValueError(f"mask must have the shape of {name}, {tuple(X.shape)}, "
                         f"got {tuple(m.shape)}.")
    if m.dtype != torch.bool and not ((m == 0) | (m == 1)).all():
        raise ValueError("mask must be boolean (True = observed) or hold only 0 and 1.")
    return m.bool().to(X.device)


def check_weights(weights, X: Tensor, name: str) -> Tensor:
    "`weights` as a tensor of the shape and type of `X`"
    try: w = weights if isinstance(weights, Tensor) else torch.as_tensor(np.asarray(weights, float))
    except (TypeError, ValueError):
        raise ValueError(f"weights must be numbers >= 0, one for each entry of {name}.") from None
    if tuple(w.shape) != tuple(X.shape):
        raise ValueError(f"weights must have the shape of {name}, {tuple(X.shape)}, "
                         f"got {tuple(w.shape)}.")
    if not bool(torch.isfinite(w).all()) or bool((w < 0).any()):
        raise ValueError("weights must be finite and >= 0 (1/sigma**2 for a known standard error "
                         "sigma, 0 for a missing entry).")
    return w.to(device=X.device, dtype=X.dtype)


def check_whole(data, who: str, *, split: bool = False, stored: bool = False) -> None:
    "An error where `data` are the rows of one process only, or on a disk, unless `who` can work so"
    if data.split is not None and not split:
        raise ValueError(f"X is a shard, the rows of one process, and {who} needs the whole matrix: "
                         "pass all rows at once, without al.shard.")
    if data.is_stored and not stored:
        raise ValueError(f"X is read in blocks, and {who} needs the whole matrix in memory: "
                         "pass an array, without al.blocks.")
