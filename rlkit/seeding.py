"""Random numbers that depend on what they are for, never on who draws them or when.

Episode seeds are hashes of (seed, lane, episode); action noise is a counter-based generator keyed by (seed, lane) and
counted by (step, component): Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
So results depend neither on how lanes are split over workers nor on the transport.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

EVALUATION_BIT = 1 << 30  # training seeds lie in [0, 2^30), evaluation seeds in [2^30, 2^31): never the same


def episode_seed(seed: int, lane: int, episode: int, evaluation: bool = False) -> int:
    """The seed of reset for one episode, in [0, 2^31).

    Evaluation seeds share no value with training seeds, whatever `seed` is.
    """
    word = int(np.random.SeedSequence([seed, lane, episode]).generate_state(1)[0])
    return (word % EVALUATION_BIT) | (EVALUATION_BIT if evaluation else 0)


def philox(
    counter: npt.NDArray[np.uint32], key: tuple[npt.NDArray[np.uint32], int]
) -> npt.NDArray[np.uint32]:
    """Philox-4x32-10.

    counter [4, ...] and key ([...] , int), both 32-bit words; returns [4, ...] random words.
    """
    c0, c1, c2, c3 = (word.astype(np.uint64) for word in counter)
    k0, k1 = key[0].astype(np.uint64), np.uint64(key[1])
    low = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    for _ in range(10):
        p0, p1 = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (p1 >> shift) ^ c1 ^ k0, p1 & low, (p0 >> shift) ^ c3 ^ k1, p0 & low
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
    return np.stack([c0, c1, c2, c3]).astype(np.uint32)


def uniforms(
    seed: int, lanes: npt.NDArray[np.int64], start: int, steps: int, size: int
) -> npt.NDArray[np.float32]:
    """Noise for `steps` steps from global step `start` of the lanes: [steps, len(lanes), size] float32 in (0, 1).

    u = (k + 1/2) 2^-23 with k of 23 random bits: every value is exact in float32, none is 0 or 1.
    """
    blocks = -(-size // 4)  # one call of the generator gives four words
    step, lane, block = np.meshgrid(
        np.arange(start, start + steps, dtype=np.uint64),
        lanes.astype(np.uint64),
        np.arange(blocks, dtype=np.uint64),
        indexing="ij",
    )  # each [steps, lanes, blocks]
    low = np.uint64(0xFFFFFFFF)
    counter = np.stack([step & low, step >> np.uint64(32), block, np.zeros_like(block)]).astype(np.uint32)
    words = philox(counter, (lane.astype(np.uint32), seed & 0xFFFFFFFF))  # [4, steps, lanes, blocks]
    words = np.moveaxis(words, 0, -1).reshape(steps, len(lanes), 4 * blocks)[..., :size]
    return ((words >> np.uint32(9)).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-23)


@dataclass(frozen=True)
class Seeds:
    """Which seed opens an episode of a lane (lanes count from 0 within this vector environment).

    Training: keyed by the lane's number in the whole run. Evaluation: by the episode's number among all
    lanes', so that the first E episodes are the same ones whatever the number of lanes.
    """

    seed: int
    evaluation: bool
    first_lane: int
    lanes: int

    def making(self, lane: int) -> int:
        """The seed of what the constructor of a lane's environment draws, which no episode has."""
        return self.of(lane, 2**40)

    def of(self, lane: int, episode: int) -> int:
        if self.evaluation:
            return episode_seed(self.seed, 0, episode * self.lanes + lane, True)
        return episode_seed(self.seed, self.first_lane + lane, episode)
