"""The learning-rate search as a function of outcomes: what it asks for next, and what it finds."""

from itertools import count

import pytest

from pretrain.compare.search import Grid, Trial, centred, search, trial_named, wanted_trials


def test_a_grid_is_a_factor_of_2_apart_around_its_middle():
    assert centred(1e-3, 5) == (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3)
    assert centred(1e-3, 4) == (5e-4, 1e-3, 2e-3, 4e-3)
    assert centred(1e-3, 1) == (1e-3,)


def test_every_rate_of_the_grid_comes_first():
    found = search(Grid((1.0, 2.0, 4.0), 9), {2.0: 3.0})
    assert found.wanted == (1.0, 4.0) and not found.is_settled


def test_a_best_rate_inside_the_grid_settles_it():
    found = search(Grid((1.0, 2.0, 4.0), 9), {1.0: 3.0, 2.0: 2.0, 4.0: 2.5})
    assert (found.best, found.wanted, found.at_edge, found.is_settled) == (2.0, (), False, True)


@pytest.mark.parametrize(("scores", "next_rate"), [({1.0: 2.0, 2.0: 3.0}, 0.5), ({1.0: 3.0, 2.0: 2.0}, 4.0), ({1.0: 2.0, 2.0: None}, 0.5)])
def test_the_grid_grows_where_its_best_rate_lies_at_an_edge(scores: dict, next_rate: float):
    assert search(Grid((1.0, 2.0), 9), scores).wanted == (next_rate,)


def test_rates_that_diverge_are_never_the_best_and_where_all_do_it_goes_on_below():
    assert search(Grid((1.0, 2.0, 4.0), 9), {1.0: 3.0, 2.0: 2.0, 4.0: None}).best == 2.0
    found = search(Grid((1.0, 2.0), 3), {1.0: None, 2.0: None})
    assert found.wanted == (0.5,) and found.best is None
    found = search(Grid((1.0, 2.0), 3), {0.5: None, 1.0: None, 2.0: None})
    assert found.best is None and found.wanted == () and not found.is_settled


def test_of_equal_losses_the_lower_rate_is_the_best():
    assert search(Grid((1.0, 2.0, 4.0, 8.0), 9), {1.0: 3.0, 2.0: 2.0, 4.0: 2.0, 8.0: 3.0}).best == 2.0


def test_a_grid_that_may_not_grow_says_that_its_best_rate_lies_at_the_edge():
    found = search(Grid((1.0, 2.0), 3), {0.5: 1.0, 1.0: 2.0, 2.0: 3.0})
    assert (found.best, found.at_edge, found.is_settled) == (0.5, True, True)


def test_the_search_ends_at_the_optimum_wherever_it_lies_and_asks_for_each_rate_once():
    for optimum in (1e-5, 3e-4, 1e-3, 0.5):
        grid, scores, asked = Grid(centred(1e-3, 5), 40), {}, []
        for rounds in count():
            wanted = search(grid, scores).wanted
            if not wanted:
                break
            asked += wanted
            scores |= {rate: abs(rate - optimum) / max(rate, optimum) for rate in wanted}
        found = search(grid, scores)
        assert found.is_settled and not found.at_edge and optimum / 2 < found.best < optimum * 2
        assert len(asked) == len(set(asked)) == len(scores)


def test_the_other_seeds_run_at_the_best_rate_alone_once_it_is_found():
    grids = {"came": Grid((1.0, 2.0, 4.0), 9), "adamw": Grid((1.0, 2.0, 4.0), 9)}
    outcomes = {Trial("came", rate, 7): abs(rate - 2.0) for rate in (1.0, 2.0, 4.0)} | {Trial("adamw", 1.0, 7): 3.0}
    assert wanted_trials(grids, (7, 8, 9), outcomes) == [
        Trial("came", 2.0, 8),
        Trial("came", 2.0, 9),
        Trial("adamw", 2.0, 7),
        Trial("adamw", 4.0, 7),
    ]
    done = outcomes | {Trial("came", 2.0, seed): 0.1 for seed in (8, 9)} | {Trial("adamw", 2.0, 7): 2.0, Trial("adamw", 4.0, 7): 4.0}
    assert wanted_trials(grids, (7, 8, 9), done) == [Trial("adamw", 2.0, 8), Trial("adamw", 2.0, 9)]
    assert not wanted_trials(grids, (7, 8, 9), done | {Trial("adamw", 2.0, seed): None for seed in (8, 9)})


def test_a_runs_name_says_which_trial_it_is():
    for trial in (Trial("came", 1e-4, 0), Trial("adamw_beta2_0.95", 5e-05, 12), Trial("my-own", 0.1, 3)):
        assert trial_named(trial.name) == trial
    assert trial_named("demo") is None and trial_named("came-lr_x-seed_1") is None and trial_named("came-lr_1e-4-seed_0") is None
