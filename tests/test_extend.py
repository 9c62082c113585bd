"""The page Extend as a test: five walks, each one short cell, each solved, determined and attacked."""
import ast
import json
from pathlib import Path

import pytest

from anmf_lab.data import REGISTRY

PAGE = Path(__file__).resolve().parent.parent / "nbs" / "tutorials" / "extend.ipynb"
WALKS = {   # what the cell defines -> most lines
    "make_seasons": 15, "Overdispersed": 25, "GemanMcClureNMF": 15, "Contaminates": 15, "fade": 15,
}


def sources():
    cells = json.loads(PAGE.read_text(encoding="utf-8"))["cells"]
    return ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]


def defined(text):
    "Functions and classes that a cell defines"
    return [node.name for node in ast.parse(text).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]


def read():
    "Runs the whole page: what its walks answer, and their attacks"
    space, found = {}, {}
    for text in sources():
        tree = ast.parse(text)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, str(PAGE), "exec"), space)
        value = None if last is None else eval(compile(ast.Expression(last.value), str(PAGE), "eval"), space)
        found |= dict.fromkeys((name for name in defined(text) if name in WALKS), value)
    return found, space["attacks"]


@pytest.mark.parametrize("name, most", WALKS.items())
def test_a_walk_is_one_short_cell(name, most):
    cell = [text for text in sources() if name in defined(text)]
    lines = [line for line in cell[0].splitlines() if line.strip()]
    assert len(cell) == 1 and len(lines) <= most and max(map(len, lines)) <= 110


def test_walks_are_solved_and_determined_and_attacked():
    "One test, since processes that share the tests would each run the page"
    REGISTRY.pop("seasons", None)      # the page itself may have run in this process
    answers, attacks = read()
    REGISTRY.pop("seasons", None)
    for name in WALKS:
        solved_and_determined(answers[name])
        confirmed_by_every_fresh_start(attacks[name])


def solved_and_determined(answer):
    assert answer["solved"] and answer["determined"]
    assert 0 < answer["found"] <= 1.1 * answer["promised"] < 20 * answer["found"]


def confirmed_by_every_fresh_start(attack):
    row = attack.records[0]
    assert row["n_lost"] == 0 and row["residual"] < 1e-6 and row["floor"] < 1e-5
    assert row["feature_error"] > 1.5 * row["random"] > 0
    assert not {f.code for f in attack.flags} - {"note", "tie"}
