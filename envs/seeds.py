"""Seeds of episodes as `rlkit.seeding` draws them, by machine code: many short episodes begin in a second.

    of(lane, episode)    the first word of numpy.random.SeedSequence([seed, lane, episode]), 30 bits of it in training,
                         with the bit 2^30 set in evaluation, where (lane, episode) is (0, episode * lanes + lane)

    draw_uniforms        what numpy.random.default_rng(seed).uniform draws first

SeedSequence is M. E. O'Neill's seed_seq_fe with a pool of four words ("Developing a seed_seq alternative", 2015),
default_rng her generator PCG XSL RR 128/64 ("PCG: a family of simple fast space-efficient statistically good algorithms
for random number generation", 2014), whose numbers of 128 bits are two of 64 here.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from rlkit.envs.compiled import compiled
from rlkit.spaces import Array

Bools: TypeAlias = npt.NDArray[np.bool_]
Ints: TypeAlias = npt.NDArray[np.int64]

INIT_A, MULTIPLY_A, INIT_B, MULTIPLY_B = 0x43B0D7E5, 0x931E8875, 0x8B51F9DD, 0x58F38DED
LEFT, RIGHT = 0xCA01F9DD, 0x4973F715
WORD = 0xFFFFFFFF  # arithmetic is modulo 2^32, in integers of 64 bits
TRAINING = 1 << 30  # rlkit.seeding.EVALUATION_BIT
Wide = np.uint64  # arithmetic modulo 2^64, with others of this type alone
FACTOR_HIGH, FACTOR_LOW = Wide(0x2360ED051FC65DA4), Wide(0x4385DF649FCCF645)
HALF, LOWER, ONE = Wide(32), Wide(WORD), Wide(1)


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
            out[lane] = _sequence(entropy, 1)[0] % TRAINING + (TRAINING if evaluation else 0)


@compiled
def draw_uniforms(
    opening: Bools, seed: Ints, low: npt.NDArray[np.float64], width: npt.NDArray[np.float64], out: Array
) -> None:
    """Rows of out [N, k] that are `opening`: default_rng(seed[n]).uniform(low, low + width); low, width: [k]."""
    for lane in range(len(out)):
        if opening[lane]:
            word = _sequence(np.array([seed[lane]]), 8)
            high, state = _joined(word[1], word[0]), _joined(word[3], word[2])
            step_high, step = _joined(word[5], word[4]), _joined(word[7], word[6])
            step_high, step = step_high << ONE | step >> Wide(63), step << ONE | ONE
            # from 0: a step, the seed is added, another step
            state, high = step + state, step_high + high + Wide(step + state < step)
            high, state = _stepped(high, state, step_high, step)
            for i in range(len(low)):
                high, state = _stepped(high, state, step_high, step)
                mixed, turn = high ^ state, high >> Wide(58)
                mixed = mixed >> turn | mixed << (Wide(64) - turn & Wide(63))
                out[lane, i] = low[i] + width[i] * (np.float64(mixed >> Wide(11)) * 2.0**-53)


@compiled
def _joined(high: int, low: int) -> np.uint64:
    """Two words as one of 64 bits."""
    return Wide(high) << HALF | Wide(low)


@compiled
def _stepped(high: Any, low: Any, step_high: Any, step: Any) -> Any:
    """The generator's state (high, low) times FACTOR, plus step."""
    # the upper half of low * FACTOR_LOW, in halves of the halves
    a, b, c, d = low >> HALF, low & LOWER, FACTOR_LOW >> HALF, FACTOR_LOW & LOWER
    middle = (b * d >> HALF) + (a * d & LOWER) + (b * c & LOWER)
    carried = a * c + (a * d >> HALF) + (b * c >> HALF) + (middle >> HALF)
    product = low * FACTOR_LOW
    total = product + step
    return carried + high * FACTOR_LOW + low * FACTOR_HIGH + step_high + Wide(total < product), total


@compiled
def _sequence(entropy: Ints, count: int) -> Ints:
    """SeedSequence(entropy).generate_state(count), entropy being 32-bit words."""
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
    out, constant = np.empty(count, np.int64), INIT_B
    for i in range(count):
        word = pool[i % 4] ^ constant
        constant = constant * MULTIPLY_B & WORD
        word = word * constant & WORD
        out[i] = word ^ word >> 16
    return out
