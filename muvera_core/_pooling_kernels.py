"""Ward's clustering of unit vectors."""

from __future__ import annotations

import numpy as np

from muvera_core._jit import jit


@jit
def ward(tokens, dots, out):
    """Clusters (n, d) unit ``tokens`` into as many clusters as ``out`` has rows, and writes their unit means there.

    Args:
        tokens: (n, d).
        dots: (n, n) dot products; overwritten.
        out: (clusters, d), in the order of clusters' first tokens.

    A merge of clusters a and b raises the sum of squared distances to the centres by
    |a| |b| / (|a| + |b|) * (distance of the centres) ** 2; the cheapest is made, and the costs of the others follow
    (Lance and Williams). Each row's cheapest partner to its right is kept, so a merge costs O(n) as a rule.
    """
    n = len(tokens)
    costs = dots
    for i in range(n):
        for j in range(n):
            costs[i, j] = 1 - dots[i, j]  # two single tokens: half of their squared distance
    sizes = np.ones(n, np.float32)
    owner = np.arange(n)
    nearest = np.zeros(n, np.int64)
    for i in range(n - 1):
        nearest[i] = _cheapest(costs, sizes, i)
    for _ in range(n - len(out)):
        a = -1
        for i in range(n - 1):
            if sizes[i] > 0 and nearest[i] >= 0 and (a < 0 or costs[i, nearest[i]] < costs[a, nearest[a]]):
                a = i
        b = nearest[a]
        size_a, size_b, merged = sizes[a], sizes[b], costs[a, b]
        sizes[b] = 0
        for k in range(n):
            if sizes[k] > 0 and k != a:
                cost = (
                    (size_a + sizes[k]) * costs[a, k] + (size_b + sizes[k]) * costs[b, k] - sizes[k] * merged
                ) / (size_a + size_b + sizes[k])
                costs[a, k] = cost
                costs[k, a] = cost
        sizes[a] = size_a + size_b
        for t in range(n):
            if owner[t] == b:
                owner[t] = a
        nearest[a] = _cheapest(costs, sizes, a)
        for k in range(b):
            if sizes[k] == 0 or k == a:
                continue
            if nearest[k] == a or nearest[k] == b:
                nearest[k] = _cheapest(costs, sizes, k)
            elif k < a:
                kept = costs[k, nearest[k]]
                if costs[k, a] < kept or (costs[k, a] == kept and a < nearest[k]):
                    nearest[k] = a
    row = 0
    for c in range(n):  # a cluster is called by its first token
        if sizes[c] == 0:
            continue
        mean = np.zeros(tokens.shape[1], np.float32)
        for t in range(c, n):
            if owner[t] == c:
                mean += tokens[t]
        square = (mean * mean).sum()
        out[row] = mean / np.sqrt(square) if square > 0 else tokens[c]  # opposite tokens: the first stands for all
        row += 1


@jit
def _cheapest(costs, sizes, i):
    """The cheapest cluster right of i, the first of equals; -1 where there is none."""
    best = -1
    for j in range(i + 1, len(sizes)):
        if sizes[j] > 0 and (best < 0 or costs[i, j] < costs[i, best]):
            best = j
    return best
