"""Topologies of decentralized training: the groups of ranks that average their weights in each step. No torch.

A topology is a short cycle of rounds; step t uses round t modulo their number. In a round, every rank belongs to one
group, and the m ranks of a group take their mean with weights 1/m, which preserves the mean over all ranks.
The groups are those of the decent-dp package (https://github.com/WangZesen/Decent-DP).
"""

from __future__ import annotations

from common.errors import ConfigError, counted

Round = list[tuple[int, ...]]
DEFAULT = "one_peer_exp"  # works for any distribution of ranks over nodes


def complete(nodes: int, per_node: int) -> list[Round]:
    """All ranks together, in every step."""
    return [[tuple(range(nodes * per_node))]]


def ring(nodes: int, per_node: int) -> list[Round]:
    """Pairs of neighbors on a ring: with the next rank, then with the previous one."""
    n = nodes * per_node
    return [[tuple(sorted((i, (i + way) % n))) for i in range(0, n, 2)] for way in (1, -1)]


def one_peer_exp(nodes: int, per_node: int) -> list[Round]:
    """Pairs at distance 1, 2, 4, ...: after log2(n) steps every rank has received every other rank's weights."""
    n = nodes * per_node
    return [_pairs(n, 2**k) for k in range(n.bit_length() - 1)]


def alternating_exp_ring(nodes: int, per_node: int) -> list[Round]:
    """Alternately the ranks of two nodes and those of one node; the nodes are at distance 1, 2, 4, ...

    In each step, half of the pairs of nodes use the slow link between nodes, the other half only the fast one within.
    """
    cycle: list[Round] = []
    number = 0
    for k in range(nodes.bit_length() - 1):
        one: Round = []
        other: Round = []
        for j, t in _pairs(nodes, 2**k):
            here, there = (tuple(range(node * per_node, (node + 1) * per_node)) for node in (j, t))
            apart, together = ([here, there], [here + there])
            one += together if number % 2 else apart
            other += apart if number % 2 else together
            number += 1
        cycle += [one, other]
    return cycle


def _pairs(n: int, distance: int) -> Round:
    """Pair up range(n) at a distance; n and the distance are powers of two."""
    return [(i, i + distance) for i in range(n) if not i & distance]


TOPOLOGIES = {topology.__name__: topology for topology in (complete, ring, one_peer_exp, alternating_exp_ring)}


def rounds(topology: str, nodes: int, per_node: int) -> list[Round]:
    """Return the rounds of a topology; a ConfigError, with the nearest numbers, if it does not fit the ranks."""
    if problem := misfit(topology, nodes, per_node):
        raise ConfigError(problem)
    return TOPOLOGIES[topology](nodes, per_node)


def misfit(topology: str, nodes: int, per_node: int, key: str = "") -> str | None:
    """Explain why a topology does not fit the ranks, with the nearest numbers that do; None if it fits.

    `key` is that of the algorithm in a YAML.
    """
    if _fits(topology, nodes, per_node):
        return None
    n, word = nodes * per_node, f"{key}.topology".lstrip(".")
    if topology == "alternating_exp_ring":
        rule, nearest = "2, 4, 8, ... nodes (a power of two)", _near(nodes)
    elif n == 1:
        rule = "at least 2 ranks, and this run has 1; start it with: composer -n 2 main.py ..."
        return f"{word}: {topology} needs {rule}"
    elif topology == "ring":
        rule, nearest = "an even number of ranks", [n - 1, n + 1]
    else:
        rule, nearest = "2, 4, 8, ... ranks (a power of two)", _near(n)
    given = f"{counted(n, 'rank', 'ranks')} on {counted(nodes, 'node', 'nodes')}"
    near = f"the nearest {'are' if len(nearest) > 1 else 'is'} {' and '.join(map(str, nearest))}"
    others = " or ".join(name for name in TOPOLOGIES if _fits(name, nodes, per_node))
    instead = f", or set {word}={others}" if others else ""
    return f"{word}: {topology} needs {rule}, and this run has {given}; {near}{instead}"


def _fits(topology: str, nodes: int, per_node: int) -> bool:
    n = nodes * per_node
    if topology == "alternating_exp_ring":
        return _is_power(nodes)
    return n >= 2 and (topology != "ring" or n % 2 == 0) and (topology != "one_peer_exp" or _is_power(n))


def _is_power(n: int) -> bool:
    return n >= 2 and n & (n - 1) == 0


def _near(n: int) -> list[int]:
    """Return the powers of two, at least 2, below and above a number that is not one."""
    above = 1 << n.bit_length()
    return [above // 2, above] if above > 2 else [2]
