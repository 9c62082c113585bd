"""Files as people have them: every format, every spelling of a number, every mistake with its message."""
import gzip
import os

import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from anmf_lab.tables import MUTATION, convention, pattern, read_like, read_profiles, read_table

VALUES = np.array([[1., 0, 2.5], [3, 4, 0]])


def write(folder, text, name="t.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def test_formats_give_one_matrix(tmp_path):
    frame = pd.DataFrame(VALUES, index=["r", "s"], columns=["a", "b", "c"])
    frame.to_csv(tmp_path / "x.csv")
    frame.to_csv(tmp_path / "x.tsv", sep="\t")
    frame.to_csv(tmp_path / "x.csv.gz")
    np.save(tmp_path / "x.npy", VALUES)
    np.savez(tmp_path / "x.npz", X=VALUES, feature_names=["a", "b", "c"], y=np.arange(2))
    sp.save_npz(tmp_path / "s.npz", sp.csr_array(VALUES))
    scipy.io.mmwrite(tmp_path / "x.mtx", sp.coo_array(VALUES))
    for path in tmp_path.iterdir():
        t = read_table(path)
        X = t.values.toarray() if sp.issparse(t.values) else t.values
        np.testing.assert_array_equal(X, VALUES, err_msg=path.name)
        assert t.named == (path.name[:5] in ("x.csv", "x.tsv", "x.npz")) and len(t.sha256) == 64
        assert t.said[0].startswith(path.name)


@pytest.mark.parametrize("text", [
    "a;b;c\n1;0;2,5\n3;4;0\n", "a\tb\tc\n1\t0\t2,5\n3\t4\t0\n", "1 0 2.5\n3 4 0\n", "1,0,2.5\n3,4,0\n",
    ",a,b,c\n0,1,0,2.5\n1,3,4,0\n", "# a comment\na,b,c\n\n1,0,2.5\n3,4,0\n,,\n", "a b c\nr 1 0 2.5\ns 3 4 0\n",
    'a;b;c\n"1";"0";"2,5"\n3;4;0', "name|a|b|c\nr|1|0|2.5\ns|3|4|0\n"])
def test_spellings_give_one_matrix(tmp_path, text):
    np.testing.assert_array_equal(read_table(write(tmp_path, text)).values, VALUES)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_encodings(tmp_path, encoding):
    t = read_table(write(tmp_path, "name,Fläche,ß\nMüller,1,2\nx,3,4\n", encoding=encoding))
    assert list(t.features) == ["Fläche", "ß"] and t.samples[0] == "Müller"
    assert any("Latin-1" in line for line in t.said) == (encoding == "latin-1")


def test_orientation_is_read_and_said(tmp_path):
    text = "Mutation Types\tg1\tg2\nA[C>A]A\t1\t2\nT[T>G]T\t3\t4\n"
    t = read_table(write(tmp_path, text, "m.txt"))
    assert t.shape == (2, 2) and list(t.samples) == ["g1", "g2"] and MUTATION.fullmatch(t.features[1])
    assert "rows of the file are features" in t.said[1]
    t = read_table(write(tmp_path, "gene,c1,c2\nBRCA1,1,2\nTP53,3,4\nX,5,6\n"))
    assert t.shape == (2, 3) and "'gene'" in t.said[1]
    plain = write(tmp_path, "id,a,b\nx,1,2\ny,3,4\nz,5,6\n")
    assert read_table(plain).shape == (3, 2) and read_table(plain, rows="features").shape == (2, 3)


def test_old_cosmic_tables_have_three_columns_of_names(tmp_path):
    text = "Type\tContext\tSomatic Mutation Type\tS1\nC>A\tACA\tA[C>A]A\t.25\nC>A\tACC\tA[C>A]C\t.75\n"
    assert list(read_table(write(tmp_path, text, "c.txt")).features) == ["A[C>A]A", "A[C>A]C"]


def test_missing_cells_are_counted(tmp_path):
    t = read_table(write(tmp_path, "a,b\n1,\nNA,2\n"))
    assert np.isnan(t.values).sum() == 2 and "2 cells are empty" in t.said[-1]


@pytest.mark.parametrize("text, says", [
    ("gene,a,b\nx,1,2\ny,3,abc\n", "row 'y' (line 3), column 'b': 'abc'"),
    ("a,b\n1,2\n3,-4\n", "row '2', column 'b' is negative: -4"),
    ("a,b\n1,2\n3,inf\n", "infinite"),
    ("a,a\n1,2\n3,4\n", "two columns are called 'a'"),
    ("id,a,b\nx,1,2\nx,3,4\n", "two rows are called 'x'"),
    ("a,,c\n1,2,3\n4,5,6\n", "column 2 has no name"),
    ("a,b\n1,2\n3\n", "line 3 has 1 cells"),
    ("a,b\n1,\n3,\n", "feature 'b' holds no number"),
    ("id,a,b\nx,1,2\ny,,\n", "sample 'y' holds no number"),
    ('a;b\n"1,234";"5,678"\n"9,999";"2,500"\n', "decimal="),
    ("", "is empty"), ("a,b\n", "fewer than two lines"), ("a\n1\n2\n", "only one column"),
    (b"PK\0\0\0\1", "not a text file")])
def test_mistakes_are_named(tmp_path, text, says):
    with pytest.raises(ValueError, match="t.csv") as e:
        read_table(write(tmp_path, text))
    assert says in str(e.value)


def test_more_mistakes(tmp_path):
    with pytest.raises(ValueError, match="is a folder"):
        read_table(tmp_path)
    write(tmp_path, "a,b\n1,2\n", "counts.csv")
    with pytest.raises(ValueError, match="did you mean counts.csv"):
        read_table(tmp_path / "count.csv")
    with pytest.raises(ValueError, match="save the table as csv"):
        read_table(write(tmp_path, "x", "t.xlsx"))
    np.savez(tmp_path / "two.npz", A=VALUES, B=VALUES)
    with pytest.raises(ValueError, match="A, B"):
        read_table(tmp_path / "two.npz")
    assert read_table(tmp_path / "two.npz", key="B").shape == (2, 3)
    with pytest.raises(ValueError, match="no array of numpy"):
        read_table(write(tmp_path, "x", "t.npy"))
    with pytest.raises(ValueError, match="rows must be"):
        read_table(tmp_path / "counts.csv", rows="both")


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file(tmp_path):
    path = write(tmp_path, "a,b\n1,2\n")
    path.chmod(0)
    with pytest.raises(ValueError, match="could not be read"):
        read_table(path)


def test_a_huge_text_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("anmf_lab.tables.HUGE", 5)
    with pytest.raises(ValueError, match="too much for text"):
        read_table(write(tmp_path, "a,b\n1,2\n"))


@pytest.mark.parametrize("name, package", [("t.h5ad", "anndata"), ("t.parquet", "pyarrow")])
def test_optional_formats_name_their_extra(tmp_path, name, package):
    if package in __import__("sys").modules or __import__("importlib").util.find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(ImportError, match=r"anmf-lab\[files\]"):
        read_table(write(tmp_path, b"x", name))


def test_ten_x_matrices_have_names_beside_them(tmp_path):
    scipy.io.mmwrite(tmp_path / "matrix.mtx", sp.coo_array(VALUES))
    (tmp_path / "features.tsv.gz").write_bytes(gzip.compress(b"g1\tA\ng2\tB\n"))
    write(tmp_path, "c1\nc2\nc3\n", "barcodes.tsv")
    t = read_table(tmp_path / "matrix.mtx")
    assert t.shape == (3, 2) and list(t.features) == ["g1", "g2"] and list(t.samples) == ["c1", "c2", "c3"]


NUMBER = st.floats(0, 1e7).map(lambda x: round(x, 2))


@settings(max_examples=60, deadline=None)
@given(st.lists(NUMBER, min_size=2, max_size=6), st.sampled_from([(".", ","), (",", "."), (".", " "), (",", " "), (",", "")]))
def test_a_convention_is_found_again(numbers, own):
    point, group = own
    def spell(x):
        whole, _, part = f"{x:,.2f}".partition(".")
        return whole.replace(",", group) + point + part
    cells = [spell(x) for x in numbers]
    read = convention(cells)
    assert all(pattern(*read).fullmatch(c) for c in cells)
    back = [float((c.replace(read[1], "") if read[1] else c).replace(read[0], ".")) for c in cells]
    assert back == numbers


def test_profiles_in_any_order_and_any_way_round(tmp_path):
    features = np.array(["a", "b", "c"], dtype=object)
    want = np.array([[.1, .2, .7], [.5, .5, 0]])
    frame = pd.DataFrame(want, columns=features, index=["p", "q"])[["c", "a", "b"]]
    frame.T.to_csv(tmp_path / "down.csv")
    for source in (frame, frame.T, tmp_path / "down.csv"):
        np.testing.assert_allclose(read_profiles(source, features).values, want)
    with pytest.raises(ValueError, match="lacks the feature 'b'"):
        read_profiles(frame.drop(columns="b"), features)
    with pytest.raises(ValueError, match="has other features"):
        read_profiles(frame.set_axis(["x", "y", "z"], axis=1), features)
    np.testing.assert_array_equal(read_profiles(want.T, features, named=False).values, want)


def test_weights_come_in_the_order_of_the_data(tmp_path):
    data = read_table(write(tmp_path, "id,a,b\nx,1,2\ny,3,4\n"))
    w = pd.DataFrame([[4., 3], [2, 1]], index=["y", "x"], columns=["b", "a"])
    np.testing.assert_array_equal(read_like(w, data), [[1, 2], [3, 4]])
    with pytest.raises(ValueError, match="weights must have the data's shape"):
        read_like(np.ones((3, 2)), data)
