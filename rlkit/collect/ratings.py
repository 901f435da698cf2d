"""Elo ratings of players from the results of their games: the model of Bradley and Terry (Biometrika, 1952).

    P(i beats j) = 1 / (1 + 10^((R_j - R_i) / 400)),    a draw is half a win

The ratings are those under which all results together are the most likely. Each pair that has met counts one more win
of either side, without which a player that lost no game would have no finite rating. One player's rating is 0.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Table = npt.NDArray[np.float64]
SCALE = np.log(10) / 400


def ratings(points: Table, games: Table, anchor: int = 0) -> Table:
    """[M]: points [M, M] that player i won against j in games [M, M]; nan for who has not played (a way to) `anchor`.

    games is symmetric, points + points.T == games.
    """
    met = games > 0
    known = np.zeros(len(games), np.bool_)
    known[anchor] = True
    while True:  # whoever is connected with the anchor by games
        further = known | met[known].any(0)
        if (further == known).all():
            break
        known = further
    found = np.full(len(games), np.nan)
    found[anchor] = 0.0
    free = np.flatnonzero(known & (np.arange(len(games)) != anchor))
    if not len(free):
        return found
    points, games = np.where(met, points + 1, 0.0), np.where(met, games + 2, 0.0)
    r = np.zeros(len(games))
    for _ in range(100):  # Newton's method: the likelihood is concave
        p = 1 / (1 + np.exp(-SCALE * (r[:, None] - r[None, :])))
        gradient = SCALE * (points - games * p).sum(1)
        weight = SCALE**2 * games * p * (1 - p)
        hessian = np.diag(weight.sum(1)) - weight
        step = np.linalg.solve(hessian[np.ix_(free, free)], gradient[free])
        step *= min(1.0, 200 / max(np.abs(step).max(), 1e-12))
        r[free] += step
        if np.abs(step).max() < 1e-9:
            break
    found[free] = r[free]
    return found
