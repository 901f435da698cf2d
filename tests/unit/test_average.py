"""evaluate.average: the moving mean of the weights, evaluated and kept instead of the last ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rlkit.config.compose import compose
from rlkit.learn.trainer import Clock
from rlkit.play.evaluate import evaluate_policy
from rlkit.play.saved import load
from rlkit.run.console import Console
from rlkit.run.hooks import AverageHook
from rlkit.run.session import Session
from rlkit.run.start import prepare

OPTIONS = [
    "agent=ppo", "env=cartpole", "preset=none", "total_steps=3000", "env.lanes=4", "agent.steps=64", "agent.epochs=2",
    "env.backend=inprocess", "network.normalize=true", "evaluate.every=1000000", "evaluate.episodes=2",
    "log.tensorboard=false",
]  # fmt: skip


def trained(folder: Path, *options: str) -> tuple[Session, list[Tensor]]:
    """A run, and the policy's weights after each of its updates."""
    folder.mkdir()
    run = prepare(compose([*OPTIONS, *options]).config, folder, Console(3000, "test", plain=True))
    seen: list[Tensor] = []
    learn = run.learner.learn

    def recorded(batch: object, progress: float) -> dict[str, Tensor]:
        metrics: dict[str, Tensor] = learn(batch, progress)
        seen.append(run.learner.optim.flat.detach().clone())
        return metrics

    run.learner.learn = recorded
    run.train()
    return run, seen


def flat(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()])


def test_by_hand() -> None:
    policy, module = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    hook, clock = AverageHook(policy, module, decay=0.6), Clock(10)
    found = []
    for value in (1.0, 2.0, 6.0, 4.0):
        with torch.no_grad():
            policy.weight.fill_(value)
            policy.running_mean.fill_(10 * value)  # type: ignore[union-attr]
        clock.advance(1)
        hook.after_update(clock, {})
        found.append(module.weight.item())
    # 1; (1 + 2) / 2; 1.5 + 0.4 * 4.5; 3.3 + 0.4 * 0.7
    assert found == pytest.approx([1.0, 1.5, 3.3, 3.58])
    assert module.running_mean.item() == 40.0  # type: ignore[union-attr]
    assert policy.weight.item() == 4.0


def test_best_is_the_mean_and_training_is_as_without(tmp_path: Path) -> None:
    run, seen = trained(tmp_path / "a", "evaluate.average=0.99")  # fewer than 100 updates: their plain mean
    plain, weights = trained(tmp_path / "b")
    assert 10 < len(seen) < 100
    assert all(torch.equal(x, y) for x, y in zip(seen, weights, strict=True))
    kept, last = load(tmp_path / "a", "best").policy, load(tmp_path / "a", "last").policy
    torch.testing.assert_close(flat(kept), torch.stack(seen).mean(0), rtol=1e-4, atol=1e-6)
    assert torch.equal(flat(last), seen[-1])
    assert torch.equal(flat(load(tmp_path / "b", "best").policy), seen[-1])
    buffers = zip(kept.named_buffers(), run.model.named_buffers(), strict=True)
    assert all(name == other and torch.equal(x, y) for (name, x), (other, y) in buffers)
    assert "average" not in plain.built.state

    def score(policy: nn.Module) -> float:
        found = evaluate_policy(policy, run.config, 2, seed=run.config.seed, device=torch.device("cpu"))
        return sum(episode.result for episode in found) / len(found)

    # the means are told apart by their scores, and the mean's is the one that was reported
    assert run.built.state["evaluation"].best == score(kept) != score(last)
