"""Philox against its published vectors, and the promises of rlkit.seeding."""

import numpy as np
import pytest

from rlkit.seeding import EVALUATION_BIT, episode_seed, philox, uniforms


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        # kat_vectors of Random123 1.09: "philox4x32 10"
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),  # digits of pi
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_words(counter, key, expected):
    words = philox(np.array(counter, np.uint32), (np.array(key[0], np.uint32), key[1]))
    assert words.dtype == np.uint32
    assert [hex(w) for w in words] == [hex(w) for w in expected]


def test_uniforms_are_the_documented_function_of_philox():
    # step 3, lane 5, component 6 is word 2 of block 1 under key (lane, seed)
    words = philox(np.array([3, 0, 1, 0], np.uint32), (np.array(5, np.uint32), 9))
    expected = ((int(words[2]) >> 9) + 0.5) * 2.0**-23
    assert uniforms(9, np.array([5]), 3, 1, 7)[0, 0, 6] == expected


def test_lanes_and_steps_can_be_split_anyhow():
    whole = uniforms(7, np.arange(6), 10, 8, 5)
    lanes = np.concatenate([uniforms(7, np.array(part), 10, 8, 5) for part in ([0, 1, 2, 3], [4], [5])], 1)
    steps = np.concatenate([uniforms(7, np.arange(6), start, n, 5) for start, n in ((10, 3), (13, 5))], 0)
    np.testing.assert_array_equal(whole, lanes)
    np.testing.assert_array_equal(whole, steps)
    np.testing.assert_array_equal(whole[..., :2], uniforms(7, np.arange(6), 10, 8, 2))


def test_step_counter_is_wider_than_32_bits():
    start = (1 << 32) - 1
    across = uniforms(0, np.array([0]), start, 2, 4)
    assert not np.array_equal(across[1], uniforms(0, np.array([0]), 0, 1, 4)[0])
    np.testing.assert_array_equal(across[1:], uniforms(0, np.array([0]), 1 << 32, 1, 4))


def test_uniforms_are_inside_the_interval_and_uniform():
    u = uniforms(1, np.arange(40), 0, 500, 5)  # 100,000 numbers
    assert u.dtype == np.float32
    assert 0 < u.min() < 1e-4
    assert 1 - 1e-4 < u.max() < 1
    counts = np.bincount((u * 100).astype(int).ravel(), minlength=100)
    chi2 = ((counts - 1000.0) ** 2 / 1000.0).sum()
    # 99 degrees of freedom: mean 99, the 0.1 % and 99.9 % points are 60.2 and 148.2
    assert 60 < chi2 < 148


def test_neighbours_are_uncorrelated():
    u = uniforms(3, np.arange(50), 0, 400, 4).astype(np.float64) - 0.5
    pairs = {
        "step": (u[:-1], u[1:]),
        "lane": (u[:, :-1], u[:, 1:]),
        "component": (u[..., :-1], u[..., 1:]),
        "seed": (u, uniforms(4, np.arange(50), 0, 400, 4) - 0.5),
    }
    for name, (a, b) in pairs.items():
        correlation = (a * b).mean() * 12  # variance of a uniform is 1/12
        assert abs(correlation) < 4 / np.sqrt(a.size), name


def test_extreme_words_stay_inside():
    # (k + 1/2) 2^-23 at k = 0 and k = 2^23 - 1, as float32
    for k in (0, 2**23 - 1):
        u = (np.float32(k) + np.float32(0.5)) * np.float32(2.0**-23)
        assert 0 < u < 1
        assert float(u) == (k + 0.5) * 2.0**-23


def test_episode_seeds_are_fixed_by_what_they_are_for():
    seeds = {episode_seed(0, lane, episode) for lane in range(20) for episode in range(50)}
    assert len(seeds) == 1000
    assert episode_seed(0, 3, 4) == episode_seed(0, 3, 4) != episode_seed(0, 4, 3)
    assert episode_seed(1, 3, 4) != episode_seed(0, 3, 4)


def test_evaluation_never_meets_training():
    for seed in range(5):
        for lane in range(20):
            assert 0 <= episode_seed(seed, lane, 0) < EVALUATION_BIT
            assert EVALUATION_BIT <= episode_seed(seed, lane, 0, evaluation=True) < 2 * EVALUATION_BIT
