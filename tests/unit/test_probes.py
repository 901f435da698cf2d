"""The self-test finds every agent healthy, and each planted bug with the probe that is made for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlkit import probes
from rlkit.agents import ddpg, dqn, ppo, reinforce
from rlkit.cli.main import main
from rlkit.envs.toys import probes as toys
from rlkit.nn.recurrent import Recurrent
from rlkit.options import ConfigError
from rlkit.probes import PROBES, Probe, Result, configure, run_all, run_probe
from rlkit.types import Batch

BY_NAME = {probe.name: probe for probe in PROBES}
Plant = Callable[[pytest.MonkeyPatch], None]


def shorter(probe: Probe, agent: str) -> Probe:
    """Half as long, which is enough for agents without a bug, but for DDPG."""
    return probe if agent.startswith("ddpg") else replace(probe, steps=probe.steps // 2)


def result_of(name: str, agent: str, *overrides: str) -> Result:
    probe = shorter(BY_NAME[name], agent)
    return run_probe(probe, configure(probe, [f"agent={agent}", *overrides]))


@pytest.mark.parametrize("agent", ["ppo", "reinforce", "dqn", "ddpg"])
def test_agents_are_healthy(agent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "PROBES", [shorter(probe, agent) for probe in PROBES])
    results = list(run_all([f"agent={agent}"]))
    verdicts = {result.probe.name: result.verdict for result in results}
    assert verdicts == {name: "SKIP" if probe.memory else "PASS" for name, probe in BY_NAME.items()}, results
    assert "network=lstm probes one that does" in results[-1].text


@pytest.mark.parametrize(("agent", "network"), [("reinforce", "gru"), ("dqn", "lstm")])
def test_memory_is_healthy(agent: str, network: str) -> None:
    for name in ("memory", "reset"):
        result = result_of(name, agent, f"network={network}")
        assert result.verdict == "PASS", result


def frozen(module: Any, name: str) -> Plant:
    """No gradient of a loss."""
    true = getattr(module.Agent, name)

    def loss(self: Any, *args: Any) -> Any:
        value, metrics = true(self, *args)
        return 0 * value, metrics

    return lambda patch: patch.setattr(module.Agent, name, loss)


def detached(module: Any) -> Plant:
    """No gradient of the value, the policy's stays."""
    true = module.Policy.evaluate

    def evaluate(self: Any, *args: Any) -> Any:
        pi, value, state = true(self, *args)
        return pi, value.detach(), state

    return lambda patch: patch.setattr(module.Policy, "evaluate", evaluate)


def returns(module: Any, name: str, change: Callable[..., tuple[Any, ...]]) -> Plant:
    """Other arguments for the function of rlkit.returns that an on-policy agent calls."""
    true = getattr(module, name)
    return lambda patch: patch.setattr(module, name, lambda *args: true(*change(*args)))


def discount(module: Any, of: Callable[[Batch, float], Tensor]) -> Plant:
    """Another discount of the rows that a replay agent learns from."""
    true = module.bootstrapped

    def bootstrapped(batch: Batch, value: Tensor, gamma: float, n: int) -> Tensor:
        y: Tensor = true(replace(batch, discount=of(batch, gamma)), value, gamma, n)
        return y

    return lambda patch: patch.setattr(module, "bootstrapped", bootstrapped)


def negated(patch: pytest.MonkeyPatch) -> None:
    """The actor walks downhill."""
    true = ddpg.Agent.actor_loss

    def loss(self: Any, *rows: Any) -> tuple[Tensor, Tensor]:
        value, metrics = true(self, *rows)
        return -value, metrics

    patch.setattr(ddpg.Agent, "actor_loss", loss)


def forgets_nothing(patch: pytest.MonkeyPatch) -> None:
    """Memory goes on from one episode to the next."""
    true = Recurrent.forward
    patch.setattr(
        Recurrent, "forward", lambda self, x, first, state: true(self, x, torch.zeros_like(first), state)
    )


def remembers_nothing(patch: pytest.MonkeyPatch) -> None:
    """Every row is taken for the opening of an episode."""
    true = Recurrent.forward
    patch.setattr(
        Recurrent, "forward", lambda self, x, first, state: true(self, x, torch.ones_like(first), state)
    )


def ones(batch: Batch, gamma: float) -> Tensor:
    return (batch.discount != 0).float()


def endless(batch: Batch, gamma: float) -> Tensor:
    return torch.full_like(batch.reward, gamma)


def unterminated(
    reward: Tensor, value: Tensor, terminated: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Any]:
    return reward, value, torch.zeros_like(terminated), *rest  # type: ignore[return-value]


BUGS: dict[str, tuple[str, str, Plant]] = {  # agent and options, the probe that must fail, the bug
    "ppo ignores gamma": ("ppo", "discount", returns(ppo, "gae", lambda *a: (*a[:4], 1.0, *a[5:]))),
    "reinforce ignores gamma": ("reinforce", "discount", returns(reinforce, "discounted", lambda *a: (*a[:4], 1.0))),
    "dqn ignores gamma": ("dqn", "discount", discount(dqn, ones)),
    "ddpg ignores gamma": ("ddpg", "discount", discount(ddpg, ones)),
    "ppo ignores termination": ("ppo", "termination", returns(ppo, "gae", unterminated)),
    "reinforce ignores termination": (
        "reinforce", "termination",
        returns(reinforce, "discounted", lambda r, end, *a: (r, torch.zeros_like(end), *a)),
    ),
    "dqn ignores termination": ("dqn", "termination", discount(dqn, endless)),
    "ddpg ignores termination": ("ddpg", "termination", discount(ddpg, endless)),
    "ppo ends at time limits": (
        "ppo", "truncation", returns(ppo, "gae", lambda r, v, end, last, *a: (r, v, last[1:], last, *a)),
    ),
    "ppo's critic is frozen": ("ppo", "constant", detached(ppo)),
    "reinforce's critic is frozen": ("reinforce", "constant", detached(reinforce)),
    "dqn is frozen": ("dqn", "constant", frozen(dqn, "loss")),
    "ddpg's critic is frozen": ("ddpg", "constant", frozen(ddpg, "critic_loss")),
    "dqn's target network is frozen": (
        "dqn", "truncation", lambda patch: patch.setattr(dqn, "soft_update", lambda *a: None),
    ),
    "ppo's advantage is negated": (
        "ppo", "action", lambda patch: patch.setattr(ppo, "gae", lambda *a, true=ppo.gae: -true(*a)),
    ),
    "ddpg's actor walks downhill": ("ddpg", "action", negated),
    "ddpg's actor is frozen": ("ddpg", "policy", frozen(ddpg, "actor_loss")),
    "reinforce's memory is not cleared": ("reinforce network=gru", "reset", forgets_nothing),
    "dqn's memory is not cleared": ("dqn network=lstm", "reset", forgets_nothing),
    "ppo's memory is always cleared": ("ppo network=lstm", "memory", remembers_nothing),
}  # fmt: skip


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, name, plant = BUGS[bug]
    plant(monkeypatch)
    result = result_of(name, *agent.split())
    assert result.verdict == "FAIL", f"{bug}: {result}"
    assert "expected" in result.text and f"-> look at {BY_NAME[name].part}" in result.text


def test_without_a_value_its_probes_are_skipped() -> None:
    result = result_of("discount", "reinforce", "agent.baseline=none")
    assert (result.verdict, result.text) == (
        "SKIP", "agent.baseline=none learns no value; type agent.baseline=value",
    )  # fmt: skip
    assert result_of("action", "reinforce", "agent.baseline=none").verdict == "PASS"
    assert result_of("truncation", "reinforce", "agent.bootstrap=false").verdict == "SKIP"


def test_what_is_typed_goes_over_the_quick_settings() -> None:
    config = configure(BY_NAME["discount"], ["agent=dqn", "optim.lr=1e-4", "agent.replay.batch=16"])
    assert (config.optim.lr, config.agent.replay.batch) == (1e-4, 16)
    assert (config.agent.gamma, config.agent.steps, config.env.lanes) == (0.5, 8, 8)


@pytest.mark.parametrize("option", ["env=cartpole", "agent.gamma=0.9", "total_steps=10", "env.lanes=2"])
def test_what_the_probes_choose_is_refused(option: str) -> None:
    with pytest.raises(ConfigError, match="the probes choose"):
        next(run_all(["agent=ppo", option]))


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, third = PROBES[:3]
    results = [Result(first, "PASS", "V is 1.00"), Result(second, "SKIP", "no value")]
    monkeypatch.setattr(probes, "run_all", lambda overrides: iter(results))
    assert main(["doctor", "agent=ppo"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "PASS  constant     V is 1.00", "SKIP  observation  no value", "every answer is right",
    ]  # fmt: skip
    results.append(Result(third, "FAIL", "V is 2.00, expected 1.33"))
    assert main(["doctor", "agent=ppo"]) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("start with termination: later probes need")
    monkeypatch.undo()
    assert main(["doctor", "agent=pop"]) == 2
    assert "agent=pop: no such agent; did you mean ppo?" in capsys.readouterr().err
    assert main(["doctor", "network=lstm"]) == 2
    assert "rlkit doctor agent=NAME" in capsys.readouterr().err


def test_answers_of_the_probes() -> None:
    """The environments are what the expectations say: mean discounted returns over many episodes."""

    def value(env: toys.Probe, gamma: float, action: Any, opens: float) -> float:
        env.reset(seed=0)
        totals = []
        for _ in range(4000):
            obs, _ = env.reset()
            if obs[0] != opens:
                continue
            total, factor, ended = 0.0, 1.0, False
            while not ended:
                _, reward, terminated, truncated, _ = env.step(action)
                total, factor, ended = total + factor * reward, factor * gamma, terminated or truncated
            totals.append(total)
        return sum(totals) / len(totals)

    assert value(toys.Constant(stop=0.5), 0.5, 0, 0.0) == pytest.approx(4 / 3, abs=0.03)
    assert value(toys.Seen(), 0.5, 0, -1.0) == -1
    assert value(toys.TwoSteps(), 0.5, 0, -1.0) == 0.5
    assert (value(toys.Choice(), 0.0, 1, 1.0), value(toys.Choice(), 0.0, 0, 1.0)) == (1, -1)
    assert value(toys.Choice(seen=True), 0.0, 0, -1.0) == 1
    assert value(toys.Choice(continuous=True), 0.0, [1.0], 1.0) == 0
    assert value(toys.Choice(continuous=True, seen=True), 0.0, [-0.25], -1.0) == -0.0625
    assert (value(toys.Recall(), 1.0, 1, 1.0), value(toys.Recall(), 1.0, 1, -1.0)) == (1, -1)
    assert value(toys.Forget(), 1.0, 0, 1.0) == pytest.approx(1.5, abs=0.05)  # one or two zeros
    assert value(toys.Forget(), 1.0, 0, 0.0) == 0
