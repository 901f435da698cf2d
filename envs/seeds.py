"""Seeds of episodes as `rlkit.seeding` draws them, by machine code: many short episodes begin in a second.

    of(lane, episode)    the first word of numpy.random.SeedSequence([seed, lane, episode]), 30 bits of it in training,
                         with the bit 2^30 set in evaluation, where (lane, episode) is (0, episode * lanes + lane)

SeedSequence is M. E. O'Neill's seed_seq_fe with a pool of four words ("Developing a seed_seq alternative", 2015).
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from rlkit.envs.compiled import compiled

Bools: TypeAlias = npt.NDArray[np.bool_]
Ints: TypeAlias = npt.NDArray[np.int64]

INIT_A, MULTIPLY_A, INIT_B, MULTIPLY_B = 0x43B0D7E5, 0x931E8875, 0x8B51F9DD, 0x58F38DED
LEFT, RIGHT = 0xCA01F9DD, 0x4973F715
WORD = 0xFFFFFFFF  # arithmetic is modulo 2^32, in integers of 64 bits
TRAINING = 1 << 30  # rlkit.seeding.EVALUATION_BIT


def words(number: int) -> Ints:
    """A seed as 32-bit words, the lowest first."""
    found = [number & WORD]
    while number >> 32:
        number >>= 32
        found.append(number & WORD)
    return np.array(found)


@compiled
def draw_seeds(
    opening: Bools,
    low: int,
    high: int,
    seed: Ints,
    evaluation: bool,
    first_lane: int,
    episode: Ints,
    out: Ints,
) -> None:
    """out [N]: the seeds of the present episodes of the lanes low .. high - 1 that are `opening`; seed: `words`."""
    entropy = np.empty(len(seed) + 2, np.int64)
    entropy[: len(seed)] = seed
    for lane in range(low, high):
        if opening[lane]:
            if evaluation:
                entropy[len(seed)], entropy[len(seed) + 1] = 0, episode[lane] * len(out) + lane
            else:
                entropy[len(seed)], entropy[len(seed) + 1] = first_lane + lane, episode[lane]
            out[lane] = _first_word(entropy) % TRAINING + (TRAINING if evaluation else 0)


@compiled
def _first_word(entropy: Ints) -> int:
    """SeedSequence(entropy).generate_state(1), entropy being 32-bit words."""
    pool, constant = np.zeros(4, np.int64), INIT_A
    for i in range(4):
        word = (entropy[i] if i < len(entropy) else 0) ^ constant
        constant = constant * MULTIPLY_A & WORD
        word = word * constant & WORD
        pool[i] = word ^ word >> 16
    for i in range(max(len(entropy), 4)):
        for j in range(4):
            if i != j:
                word = (pool[i] if i < 4 else entropy[i]) ^ constant
                constant = constant * MULTIPLY_A & WORD
                word = word * constant & WORD
                word ^= word >> 16
                mixed = LEFT * pool[j] - RIGHT * word & WORD
                pool[j] = mixed ^ mixed >> 16
    word = (pool[0] ^ INIT_B) * (INIT_B * MULTIPLY_B & WORD) & WORD
    return int(word ^ word >> 16)
