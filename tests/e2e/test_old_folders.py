"""Run folders of earlier versions: loaded, evaluated and continued under today's option names."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import rlkit
from rlkit.config.compose import compose
from rlkit.metrics import read_metrics
from rlkit.options import ConfigError
from rlkit.run.folder import run_config
from rlkit.run.resume import resume
from rlkit.types import Lanes

OLD = Path(__file__).parents[1] / "data" / "version-0.1.0"
OBS = np.array([0.1, -0.2, 0.03, 0.4], np.float32)


@pytest.mark.parametrize("name", ["ppo", "dqn"])
def test_a_run_of_version_0_1_0_is_loaded_and_continued(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    shutil.copytree(OLD / name, folder)
    config = run_config(folder)
    if name == "ppo":
        assert config.network.normalize and config.agent.normalize_reward and config.env.stuck_after == 50
    else:
        assert config.agent.dueling and config.agent.epsilon_spread == 2
    before = rlkit.load(folder, "last")(OBS)[0]
    text = (folder / "config.yaml").read_text()
    done = config.total_steps
    (folder / "config.yaml").write_text(text.replace(f"total_steps: {done}", f"total_steps: {done + 200}"))
    resume(folder)
    rows = read_metrics(folder / "metrics.csv")
    assert rows[-1]["step"] >= done + 200
    assert all(a["step"] < b["step"] for a, b in pairwise(rows))
    assert before in (0, 1) and rlkit.load(folder, "last")(OBS)[0] in (0, 1)


def test_what_a_policy_of_version_0_1_0_says_is_what_it_said_then() -> None:
    """Its probabilities of both actions, as the version that saved it computed them."""
    import torch

    policy = rlkit.load(OLD / "ppo", "last").policy
    with torch.no_grad():
        pi, value, _ = policy.evaluate(
            torch.from_numpy(OBS)[None, None], torch.tensor([[True]]), policy.initial_state(Lanes(1))
        )
    log_probs = [float(pi.log_prob(torch.tensor([[i]]))) for i in (0, 1)]
    np.testing.assert_allclose(log_probs, EXPECTED["log_prob"], rtol=1e-4)
    np.testing.assert_allclose(float(value), EXPECTED["value"], rtol=1e-4)


EXPECTED = {"log_prob": [-0.785768, -0.608382], "value": -0.383698}


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("agent.normalise_reward=true", "is called agent.normalize_reward; type agent.normalize_reward=true"),
        ("env.patience=9", "is called env.stuck_after; type env.stuck_after=9"),
    ],
)
def test_an_old_name_that_is_typed_is_refused_with_the_new_one(typed: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose([typed])
