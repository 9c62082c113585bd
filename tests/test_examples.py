"""Every public name shows how it is used, and what it shows is true."""
import doctest
import inspect

import pytest

import anmf_lab

NAMES = sorted(anmf_lab.__all__)


def examples(text):
    "The examples of a docstring"
    return doctest.DocTestParser().get_examples(text)


def wrong(name, text):
    "What an example prints where it should print something else; empty if all is well"
    test = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    said = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(test, out=said.append)
    return "".join(said)


@pytest.mark.parametrize("name", NAMES)
def test_example_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = inspect.getdoc(getattr(anmf_lab, name)) or ""
    assert examples(text), f"{name} has no example in its docstring"
    assert not wrong(name, text)


def test_a_wrong_example_is_seen():
    assert wrong("sum", ">>> 1 + 1\n3") and not wrong("sum", ">>> 1 + 1\n2")
