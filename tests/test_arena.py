"""The arena: every model solved from shared starts, attacks held to their budget, records through kill -9, the board."""
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import anmf_lab as al
from anmf_lab.align import feature_error
from anmf_lab.arena import ATTACKS, FIELDS, MODELS, enter, floor, measure, run_bout, shared_starts
from anmf_lab.cli import build_parser
from anmf_lab.goals import Problem, distinct, is_nothing, victim_of
from anmf_lab.leaderboard import Card, answer, board, cards_of, command_of, flags_of, read_folder, run_cards
from anmf_lab.polish import kkt_residual
from anmf_lab.records import Record
from anmf_lab.threat import stream

SMALL = np.random.default_rng(0).gamma(1., size=(9, 7)) + .05


def still(corner, budgets, strength):
    "An attack that does nothing"
    return {e: (corner.threat.X, 0.) for e in budgets}


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_solved_from_the_shared_starts(name):
    c = enter(MODELS[name], SMALL, 2, "l2", 0, 1)
    obj = c.problem.objective
    assert kkt_residual(obj, *c.reference) < 1e-6
    assert float(obj.value(*c.reference)) <= float(obj.value(*c.own[0])) * (1 + 1e-9) + 1e-12
    assert_allclose(c.begin[0][0], shared_starts(SMALL, 2, 3, 0)[0][0])


def test_nothing_attacked_is_nothing_measured():
    c = enter(MODELS["nmf"], SMALL, 2, "l2", 0, 3)
    m = measure(c, c.problem.objective.data.X, 3)
    assert m["feature_error"] < 1e-6 and m["own"] < 1e-12


def test_starts_that_all_end_elsewhere_do_not_decide():
    c = enter(MODELS["nmf-kl"], SMALL, 3, "l2", 0, 8)
    X, (best, rival) = c.problem.objective.data.X, distinct(c.found)[:2]
    far = feature_error(*best.factors, *rival.factors)
    assert far > .1 and rival.loss > best.loss * 1.01
    stuck = replace(c, begin=[tuple(T.numpy() for T in rival.factors)] * 8, found=[rival])
    m = measure(stuck, X, 8)
    assert m["feature_error"] == pytest.approx(far, abs=1e-4) and m["margin"] > .01
    assert m["share"] == 0 and max(m["expected"], m["shared"]) < 1e-4


def test_minima_of_the_clean_data_are_followed(monkeypatch):
    c = enter(MODELS["nmf-kl"], SMALL, 3, "l2", 0, 8)
    best, rival = distinct(c.found)[:2]
    monkeypatch.setattr(Problem, "fresh", lambda *given, **how: [])
    m = measure(replace(c, begin=[tuple(T.numpy() for T in rival.factors)] * 2), c.problem.objective.data.X, 2)
    assert m["feature_error"] < 1e-6 and m["shared"] > .1
    assert m["margin"] == pytest.approx(rival.loss / best.loss - 1, rel=1e-6)


def test_the_floor_is_solved_from_starts_of_its_own(monkeypatch):
    drawn = []
    monkeypatch.setattr(Problem, "fresh", lambda self, Z, n, rng, **how: drawn.append(rng.random()) or [])
    c = enter(MODELS["nmf"], SMALL, 2, "l2", 0, 1)
    floor(c, 1)
    enter(MODELS["nmf-kl"], SMALL, 2, "l2", 0, 1)
    assert len(set(drawn)) == 2 and drawn[0] == drawn[2]      # models share them


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_keep_their_budget_and_claim_a_number(attack):
    c = enter(MODELS["nmf-kl"], SMALL, 2, "linf", 0, 1)
    (Z, claimed, *_), = ATTACKS[attack](c, (.02,), "quick").values()
    assert c.threat.size(Z) <= .02 * c.threat.unit * (1 + 1e-12) and 0 <= claimed < 2


def test_an_adversary_may_show_a_solution_and_only_the_lowest_counts(monkeypatch):
    c = enter(MODELS["nmf-kl"], SMALL, 3, "l2", 0, 8)
    best, rival = distinct(c.found)[:2]
    monkeypatch.setattr(Problem, "fresh", lambda *given, **how: [])
    stuck = replace(c, begin=[tuple(T.numpy() for T in rival.factors)] * 2, found=[rival])
    X = c.problem.objective.data.X
    assert measure(stuck, X, 2)["feature_error"] < 1e-6
    assert measure(stuck, X, 2, best.factors)["feature_error"] > .1
    lower = replace(stuck, found=[best], begin=[tuple(T.numpy() for T in best.factors)] * 2)
    assert measure(lower, X, 2, rival.factors)["feature_error"] < 1e-6


def test_what_plain_nmf_falls_for_is_climbed_on_within_the_budget():
    X = FIELDS["planted"].load(0)[:10]
    c = enter(MODELS["huber"], X, 3, "l2", 0, 2)
    (Z, claimed, shown), = ATTACKS["adapted"](c, (.05,), "quick").values()
    assert c.threat.size(Z) <= .05 * c.threat.unit * (1 + 1e-12) and float(Z.min()) >= 0
    (plain, _), = ATTACKS["transfer"](c, (.05,), "quick").values()
    assert measure(c, Z, 2, shown)["feature_error"] >= measure(c, plain, 2)["feature_error"] - .01


def test_bad_input_is_named():
    loud = lambda c, budgets, strength: {e: (c.threat.X * (1 + 3 * e), None) for e in budgets}
    for wrong, words in ((dict(attack=loud), "left the budget"), (dict(model="nfm"), "model must be one of"), (dict(attack="our"), "attack must be one of"), (dict(eps=()), "eps is empty")):
        with pytest.raises(ValueError, match=words):
            run_bout(**dict(model="nmf", attack=still, X=SMALL, n_components=2, n_starts=1, n_noise=1) | wrong)
    with pytest.raises(ValueError, match="no records"):
        board([])


def test_losses_that_give_up_on_gross_errors_are_not_solved_by_zeros():
    X = np.where(np.random.default_rng(1).random(SMALL.shape) < .1, 9., SMALL)
    for model in (al.CorrentropyNMF(2, random_state=0), al.CauchyNMF(2, random_state=0)):
        p = victim_of(model, X).problem
        assert isinstance(p, Problem) and not any(is_nothing(*s.factors) for s in p.fresh(p.objective.data.X, 3, stream(0, "x")))


# records

def cards(n=4, pause=0.):
    def slow(corner, budgets, strength):
        time.sleep(pause)
        return still(corner, budgets, strength)
    place = replace(FIELDS["planted"], load=lambda seed, home=None: SMALL + seed / 10, rank=2)
    return [Card("planted", f"nmf{i}", "still", eps=(.02,), seeds=2, n_starts=1, n_noise=1, contender=MODELS["nmf"], run=slow, place=place)
            for i in range(n)]


def rows(folder):
    return {r.name: [{k: v for k, v in m.items() if k != "cpu_seconds"} for m in r.measured] for r in read_folder(folder)}


def test_kill_9_in_the_sweep_loses_nothing(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run_cards(cards(), whole, say=lambda line: None)
    program = f"import test_arena as t; t.run_cards(t.cards(pause=.4), t.Path({str(broken)!r}), say=lambda line: None)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])}
    job = subprocess.Popen([sys.executable, "-c", program], env=env)      # a fork would hang on the threads of the caller
    end = time.monotonic() + 120
    while not len(list(broken.glob("*.json"))) > 1 and time.monotonic() < end and job.poll() is None:
        time.sleep(.01)
    job.kill()
    job.wait()
    kept = {p.name: p.read_bytes() for p in broken.glob("*.json")}
    assert 0 < len(kept) < 4
    outcome = run_cards(cards(), broken, say=lambda line: None)
    assert outcome.ok and rows(broken) == rows(whole)
    first = sorted(kept)[0]
    assert (broken / first).read_bytes() == kept[first]      # what was finished is not done again


def test_the_command_of_a_record_makes_that_record():
    card = Card("genomes", "atnmf-1.2", "back-propagation", "linf", (.001,), 3, "quick", 4, 2)
    parser, _ = build_parser("arena")
    again, = cards_of(parser.parse_args(command_of(card).split()[1:]))
    assert again == card and again.asked == card.asked


def test_more_seeds_are_added_to_those_on_file(tmp_path):
    card, = cards(1)
    run_cards([card], tmp_path, say=lambda line: None)
    before = rows(tmp_path)["planted_nmf0_still_l2"]
    run_cards([replace(card, seeds=3)], tmp_path, say=lambda line: None)
    after = rows(tmp_path)["planted_nmf0_still_l2"]
    assert after[:2] == before and [m["seed"] for m in after] == [0, 1, 2]


def record(model, errors, attack="ours", plain="nmf", **more):
    row = dict(eps=.02, claimed=None, own=.1, margin=None, share=1., expected=.1, residual=0., noise=.01, noise_max=.02, floor=0., relative_error=.1) | more
    return Record(name=model + attack, what="", data={}, asked=dict(data="planted", model=model, attack=attack, norm="l2"), parameters=dict(plain=plain),
                  seeds=[0], claimed=None, measured=[row | dict(seed=i, feature_error=e) for i, e in enumerate(errors)])


def test_the_board_pairs_seeds_and_takes_the_strongest_attack_that_both_met():
    plain = [record("nmf", [.3, .5, .4]), record("nmf", [.1, .1, .9], "series")]
    table = board([*plain, record("l21", [.2, .4, .31]), record("huber", [.31, .48, .42], "transfer")]).set_index("model")
    assert_allclose(table.difference["l21"], (.2 - .3 + .4 - .5 + .31 - .4) / 3)      # series was not run on it
    assert table.verdict.to_dict() == {"l21": "harder", "huber": "no difference shown", "nmf": ""}
    assert table.feature_error["nmf"] == pytest.approx((.3 + .5 + .9) / 3)
    said = answer(table.reset_index())
    assert "harder to move than the plain model: L2,1, at" in said and "Huber" not in said
    assert "l21 (in 1 of 1 comparisons)" in said and "relative error of the fit 0.100" in said
    soft = answer(board([record("nmf", [.3, .5, .4]), record("l21", [.4, .6, .51])]))
    assert "Easier: L2,1, at ε 0.02 (+0.103)." in soft
    both = board([*plain, record("huber", [.1, .1, .1]), record("huber", [.4, .2, .5], "adapted")]).set_index("model")
    assert_allclose(both.difference["huber"], (.4 - .3 + .2 - .5 + .5 - .4) / 3)      # beside plain NMF's own
    assert both.attack["huber"] == "adapted"


def test_what_at_nmf_falls_for_is_handed_back_to_plain_nmf():
    plain, back = record("nmf", [.3, .5, .4]), record("nmf", [.4, .1, .6], "returned")
    table = board([plain, back, record("atnmf-2", [.4, .5, .6]), record("l21", [.4, .5, .6])]).set_index("model")
    assert_allclose([table.difference["atnmf-2"], table.difference["l21"]], [0, .3 / 3], atol=1e-12)   # L2,1 has no part in it
    args = build_parser("arena")[0].parse_args(["arena", "--quick", "--models", "nmf", "atnmf-2", "--attacks", "ours", "transfer", "returned"])
    assert [(c.model, c.attack) for c in cards_of(args)] == [("nmf", "ours"), ("nmf", "returned"), ("atnmf-2", "ours"), ("atnmf-2", "transfer")]
    X = FIELDS["planted"].load(0)[:10]
    c = enter(MODELS["nmf"], X, 3, "l2", 0, 2)
    (Z, claimed), = ATTACKS["returned"](c, (.05,), "quick").values()
    other = enter(MODELS["atnmf-2"], X, 3, "l2", 0, 4)
    (own, theirs), = ATTACKS["ours"](other, (.05,), "quick").values()
    assert claimed == theirs and torch.equal(Z, c.threat.project(own, .05))


def test_a_record_says_why_not_to_rely_on_it():
    rows = record("nmf", [.3, .5], margin=1e-6, noise_max=.4, claimed=.6).measured
    codes = {f.code for f in flags_of(Card("planted", "nmf", "ours", seeds=3), rows)}
    assert codes == {"unfinished", "tie", "noise_as_strong", "overclaimed"}


@pytest.mark.parametrize("residual", [math.nan, None, math.inf, 1e-3])
def test_a_residual_that_is_no_number_is_not_a_solution(residual):
    rows = record("nmf", [.3, .5, .4], residual=residual).measured
    assert "unsolved" in {f.code for f in flags_of(Card("planted", "nmf", "ours", seeds=3), rows)}
    rows = record("nmf", [.3, .5, .4]).measured
    assert not flags_of(Card("planted", "nmf", "ours", seeds=3), rows)
