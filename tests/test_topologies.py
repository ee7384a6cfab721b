"""Topologies: the published package's groups, exact averages, and errors for rank counts that do not fit."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from decent_dp.topo import TopologyReg

from config import ConfigError, check_world, load
from main import cli
from recipes.topologies import TOPOLOGIES, misfit, rounds
from tests.runs import ROOT

FITTING = [
    *(("complete", 1, n) for n in (2, 3, 7)),
    *(("ring", nodes, n) for nodes in (1, 3) for n in (2, 6)),
    *(("one_peer_exp", 1, n) for n in (2, 4, 8, 32)),
    *(("alternating_exp_ring", nodes, n) for nodes in (2, 4, 8) for n in (1, 2, 3, 8)),
]
DIGITS = str(ROOT / "yamls/digits.yaml")


def mixing(groups: list[tuple[int, ...]], n: int) -> np.ndarray:
    """Return a round's mixing matrix, [n, n]: each row holds the weights of a rank's mean."""
    matrix = np.zeros((n, n))
    for group in groups:
        matrix[np.ix_(group, group)] = 1 / len(group)
    return matrix


@pytest.mark.parametrize(("topology", "nodes", "per_node"), FITTING)
def test_groups_are_those_of_decent_dp(topology: str, nodes: int, per_node: int) -> None:
    """Same order, same weights, and every rank in exactly one group per round."""
    cls = TopologyReg.registry[topology.replace("_", "-")]
    published = object.__new__(cls)  # __init__ would create process groups
    published._world_size, published._local_world_size, published._n_nodes = nodes * per_node, per_node, nodes
    theirs = published._get_topo_edges()
    ours = rounds(topology, nodes, per_node)
    assert [sorted(tuple(edge.ranks) for edge in edges) for edges in theirs] == [sorted(groups) for groups in ours]
    assert all(edge.weight == pytest.approx(1 / len(edge.ranks)) for edges in theirs for edge in edges)
    assert all(sorted(rank for group in groups for rank in group) == [*range(nodes * per_node)] for groups in ours)


@pytest.mark.parametrize(("topology", "nodes", "per_node"), FITTING)
def test_a_cycle_averages_over_all_ranks(topology: str, nodes: int, per_node: int) -> None:
    """Exactly for complete and one_peer_exp; the others converge, and each round preserves the mean."""
    n = nodes * per_node
    cycle = [mixing(groups, n) for groups in rounds(topology, nodes, per_node)]
    assert all(np.allclose(matrix.sum(axis=0), 1) for matrix in cycle)
    product = np.linalg.multi_dot([np.eye(n), *cycle, np.eye(n)])
    if topology in ("complete", "one_peer_exp"):
        assert np.allclose(product, 1 / n, atol=1e-12)
    assert np.allclose(np.linalg.matrix_power(product, 400), 1 / n, atol=1e-6)


@pytest.mark.parametrize(
    ("topology", "nodes", "per_node", "sentence"),
    [
        ("complete", 1, 1, "needs at least 2 ranks, and this run has 1; start it with: composer -n 2"),
        ("ring", 1, 5, "an even number of ranks, and this run has 5 ranks on 1 node; the nearest are 4 and 6, or set"),
        ("one_peer_exp", 3, 2, "a power of two), and this run has 6 ranks on 3 nodes; the nearest are 4 and 8, or set"),
        ("one_peer_exp", 1, 6, "algorithms.decentralized.topology=complete or ring"),
        ("alternating_exp_ring", 1, 4, "nodes (a power of two), and this run has 4 ranks on 1 node; the nearest is 2"),
        ("alternating_exp_ring", 3, 4, "12 ranks on 3 nodes; the nearest are 2 and 4, or set"),
    ],
)
def test_misfits_name_the_rule_and_the_nearest(topology: str, nodes: int, per_node: int, sentence: str) -> None:
    problem = misfit(topology, nodes, per_node, "algorithms.decentralized")
    assert problem is not None and problem.startswith("algorithms.decentralized.topology: ")
    assert sentence in problem
    with pytest.raises(ConfigError, match=r"^topology: "):
        rounds(topology, nodes, per_node)


@pytest.mark.parametrize("ranks", range(2, 9))
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_what_a_sentence_recommends_fits(topology: str, ranks: int) -> None:
    problem = misfit(topology, 1, ranks)
    if problem is None:
        assert rounds(topology, 1, ranks)
    elif "say" in problem:
        for other in problem.split("topology=")[1].split(" or "):
            assert rounds(other, 1, ranks)


@pytest.mark.slow
def test_the_recipe_on_one_process() -> None:
    """One sentence with the command to type, before torch is imported; a dry run still works."""
    code = "import sys, main; status = main.cli(sys.argv[1:]); assert 'torch' not in sys.modules; sys.exit(status)"
    words = [sys.executable, "-c", code, DIGITS, "recipe_name=decentralized"]
    refused = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 2
    (sentence,) = refused.stderr.strip().splitlines()
    assert sentence.endswith("this run has 1; start it with: composer -n 2 main.py ...")
    shown = subprocess.run([*words, "dry_run=true"], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "decentralized(topology=one_peer_exp, lockstep=false)" in shown.stdout


def test_a_run_on_the_wrong_number_of_ranks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Exit status 2 before anything is built, from the launcher's variables; evaluation works with any number."""
    words = [DIGITS, "algorithms.decentralized.topology=one_peer_exp", "train_dataset.batch_size=60"]
    words += ["eval_dataset.batch_size=60"]
    set_by_a_launcher = {"WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "3", "RANK": "0", "LOCAL_RANK": "0"}
    for name, value in (set_by_a_launcher | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "7501"}).items():
        monkeypatch.setenv(name, value)
    assert cli(words) == 2
    assert "6 ranks on 2 nodes; the nearest are 4 and 8" in capsys.readouterr().err
    config = load(words).config
    with pytest.raises(ConfigError, match="do not divide into nodes"):
        check_world(config, 6, 4)
    config.is_train = False
    check_world(config, 6, 3)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["algorithms.decentralized.topology=exp"], "unknown value 'exp'"),
        (["algorithms.decentralized.topology=1"], "unknown value '1'"),
        (["algorithms.decentralized.topolgy=ring"], "topolgy: decentralized has no such argument; did you mean"),
        (["algorithms.decentralized={}", "algorithms.sam={}"], "averaged between its two gradients"),
        (["algorithms.decentralized={}", "algorithms.swa={}"], "ends with those of rank 0"),
        (["optimizer={name: accum_adam, lr: 0.001, accum_iter: 0}"], "accum_iter: 0 given, but it must be at least 1"),
        (["optimizer={name: accum_adam, lr: 0.001, accum_iter: 2.5}"], "must be a whole number"),
    ],
)
def test_conflicting_settings_are_rejected(words: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError) as fault:
        load([DIGITS, *words])
    assert sentence in str(fault.value)


def test_ema_goes_before_decentralized() -> None:
    """Wherever it was named: evaluation uses what was averaged over the ranks."""
    config = load([DIGITS, "recipe_name=decentralized", "algorithms.ema={}"]).config
    order = list(config.algorithms)
    assert order.index("ema") < order.index("decentralized")
