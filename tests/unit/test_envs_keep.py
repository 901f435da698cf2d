"""Hidden entries of a vector observation: seen ones are the environment's own, and errors name the option."""

import numpy as np
import pytest
import torch

from rlkit.envs import EnvConfig, make_env, make_vec, probe
from rlkit.spaces import Box


@pytest.mark.parametrize("backend", ["inprocess", "workers"])
def test_kept_entries_are_those_of_the_whole_observation(backend):
    whole = make_vec(EnvConfig(id="CartPole-v1", lanes=2, backend="inprocess"), 5)
    part = make_vec(EnvConfig(id="CartPole-v1", lanes=2, backend=backend, keep=(2, 0)), 5)
    try:
        rows = [vector.restore(np.zeros(2, np.int64), [np.zeros(0)] * 2) for vector in (whole, part)]
        for t in range(60):  # several episodes
            assert torch.equal(rows[1].obs, rows[0].obs[:, [2, 0]])
            rows = [vector.step(torch.tensor([t % 2, 1])) for vector in (whole, part)]
    finally:
        whole.close()
        part.close()


def test_the_space_keeps_the_bounds():
    space = probe(EnvConfig(id="Pendulum-v1", keep=(2, 1))).spec.observation
    assert isinstance(space, Box) and (space.shape, space.dtype) == ((2,), "float32")
    assert np.array_equal(space.low, [-8, -1]) and np.array_equal(space.high, [8, 1])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (EnvConfig(id="CartPole-v1", keep=(0, 4)), r"env\.keep=\[0, 4\]: the observation has 4 entries"),
        (EnvConfig(id="CartPole-v1", keep=(1, 1)), r"env\.keep=\[1, 1\].*different numbers from 0 to 3"),
        (
            EnvConfig(id="CarRacing-v3", keep=(0,)),
            r"env\.keep=\[0\]: observations are Box.*type env\.keep=\[\]",
        ),
    ],
)
def test_entries_that_are_not_there_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        make_env(config)


def test_a_native_vector_keeps_everything():
    with pytest.raises(
        ValueError, match=r"env\.keep=\(0,\): env\.backend=native takes its environment as it is"
    ):
        EnvConfig(id="CartPole-v1", backend="native", keep=(0,)).validate()
