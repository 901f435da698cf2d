"""One flat step equals torch's own many; the compiled gradient equals the eager one."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import nn

from rlkit.agents.ppo import Agent, Config, Policy
from rlkit.compile import Compiled
from rlkit.config.schema import OptimConfig
from rlkit.device import choose_device, choose_precision
from rlkit.learn.optim import Optimiser, flatten
from rlkit.learn.steps import AdamOfTensors, make_step
from rlkit.machine import How
from rlkit.nn.config import NetworkConfig
from rlkit.options import ConfigError
from rlkit.perception.learner import TaskLearner
from rlkit.perception.tasks import classify
from rlkit.spaces import Box, Discrete
from rlkit.types import EnvSpec, Lanes


def make_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))


def torch_optimiser(config: OptimConfig, net: nn.Module) -> torch.optim.Optimizer:
    if config.name == "sgd":
        return torch.optim.SGD(net.parameters(), config.lr, momentum=config.momentum)
    if config.name == "rmsprop":
        return torch.optim.RMSprop(net.parameters(), config.lr, eps=config.eps, momentum=config.momentum)
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(
        net.parameters(), config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay
    )


@pytest.mark.parametrize(
    "config",
    [
        OptimConfig("adam", lr=0.01),
        OptimConfig("adamw", lr=0.01, weight_decay=0.1, clip_norm=0.0),
        OptimConfig("rmsprop", lr=0.01, momentum=0.9),
        OptimConfig("sgd", lr=0.1, momentum=0.9, clip_norm=0.05),
    ],
    ids=lambda config: config.name,
)
def test_equals_torch_with_its_own_clipping(config: OptimConfig) -> None:
    """In float64, where the kernels take it: how float32 sums of the same numbers differ depends on the processor."""
    kind = torch.float32 if config.name == "adam" else torch.float64
    ours, theirs = make_net().to(kind), make_net().to(kind)
    x, y = torch.randn(32, 3).to(kind), torch.randn(32, 2).to(kind)

    def loss(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value = (ours(x) - y).square().mean()
        return value, value.detach()[None]

    optimiser = Optimiser(ours, loss, config, precision=torch.float32, compile=False)
    reference = torch_optimiser(config, theirs)
    for _ in range(20):
        _, norm = optimiser.minimise(x, y)
        reference.zero_grad()
        (theirs(x) - y).square().mean().backward()
        limit = config.clip_norm or float("inf")
        assert torch.allclose(norm, nn.utils.clip_grad_norm_(theirs.parameters(), limit), rtol=1e-5)
        reference.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "weight_decay": 0.01}], ids=["plain", "momentum"])
@pytest.mark.parametrize("name", ["sgd", "rmsprop"])
def test_steps_on_one_vector_are_those_of_torch_to_the_last_bit(name: str, options: dict[str, float]) -> None:
    """Continued from what is saved after five of ten steps, too."""
    config = OptimConfig(name, lr=0.01, **options)  # type: ignore[arg-type]
    start = torch.randn(37)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    step = make_step(ours, ours.detach(), [ours], config)
    fused = {"fused": True} if name == "sgd" else {"eps": config.eps}
    reference = {"sgd": torch.optim.SGD, "rmsprop": torch.optim.RMSprop}[name](
        [theirs], 0.01, **options, **fused
    )
    for k in range(10):
        theirs.grad = torch.randn(37)
        with torch.no_grad():
            step(theirs.grad * 2, 0.01, torch.tensor(2.0))
        reference.step()
        assert torch.equal(ours, theirs)
        if k == 4:
            saved = {key: value.clone() for key, value in step.state.items()}
            step = make_step(ours, ours.detach(), [ours], config)
            step.load(saved)


def test_adam_of_tensors_is_that_of_torch_to_the_last_bit() -> None:
    ours, theirs = make_net(), make_net()
    step, reference = AdamOfTensors(ours.parameters(), 0.01), torch.optim.Adam(theirs.parameters(), 0.01)
    for k in range(10):
        x = torch.randn(5, 3)
        step(ours(x).square().mean())
        reference.zero_grad()
        theirs(x).square().mean().backward()
        reference.step()
        assert all(map(torch.equal, ours.parameters(), theirs.parameters()))
        if k == 4:
            saved = {str(i): {key: x.clone() for key, x in each.items()} for i, each in enumerate(step.state)}
            step = AdamOfTensors(ours.parameters(), 0.01)
            step.load(saved)


def test_parameters_and_gradients_are_views_of_one_vector() -> None:
    net = make_net()
    before = copy.deepcopy(net.state_dict())
    flat, gradient = flatten(net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    net.load_state_dict({name: value + 1 for name, value in before.items()})
    assert torch.equal(flat[:24].view(8, 3), before["0.weight"] + 1)
    net(torch.ones(4, 3)).sum().backward()
    assert gradient[-2:].tolist() == [4, 4]


@pytest.mark.parametrize("kind", ["vector", "pixels"])
def test_compiled_learning_equals_eager(kind: str) -> None:
    """The same gradient from the graph as from autograd: buffers, gathers, frame stacks and random shifts included."""
    space = Box((20, 20), "uint8", 0.0, 255.0) if kind == "pixels" else Box((3,), "float32")
    spec = EnvSpec("test", space, Discrete(3), stack=2)
    torch.manual_seed(0)
    config = Config(entropy_coef=0.01)
    policy = Policy(
        spec, NetworkConfig(normalize=True, augment="shift" if kind == "pixels" else "none"), config
    )
    shift = policy.network.augment
    rows = torch.randint(0, 255, (16, *space.shape)).to(torch.uint8 if kind == "pixels" else torch.float32)
    policy.network.observe(rows[:, None])
    batch = {
        "rows": {
            "obs": rows[None], "first": torch.zeros(1, 16, dtype=torch.bool),
            "cores": policy.initial_state(Lanes(1))[1:],
            "frames": rows, "history": torch.randint(0, 16, (16, 1)),
        },
        "action": torch.randint(0, 3, (1, 16)), "log_prob": torch.randn(1, 16) - 1, "weight": torch.rand(1, 16),
        "advantage": torch.randn(1, 16), "target": torch.randn(1, 16), "value": torch.randn(1, 16),
    }  # fmt: skip
    index, clip = torch.randperm(16)[:8], torch.tensor(0.2)
    eager = Agent(policy, config, OptimConfig(lr=1e-9, clip_norm=0.0), compile=False)
    gradient, _ = eager.optim._differentiate(batch, index, clip)
    gradient = gradient.clone()
    expected, norm = eager.optim.minimise(batch, index, clip)
    if shift is not None:
        shift.key -= 2  # the same shifts for the same two losses
    compiled = Agent(policy, config, OptimConfig(lr=1e-9, clip_norm=0.0), compile=True)
    found_gradient, _ = compiled.optim._differentiate(batch, index, clip)
    assert torch.allclose(found_gradient, gradient, atol=1e-5)
    found, compiled_norm = compiled.optim.minimise(batch, index, clip)
    assert torch.allclose(found, expected, atol=1e-5)
    assert norm > 0.01 and torch.allclose(norm, compiled_norm, rtol=1e-4)


@pytest.mark.parametrize("compile", [False, True])
def test_a_loss_may_read_what_is_not_stepped(compile: bool) -> None:
    """An actor's loss through a critic: the actor moves, the critic stays, and its newest weights count."""
    torch.manual_seed(0)
    actor, critic = nn.Linear(3, 2), nn.Linear(2, 1)
    both = nn.ModuleDict({"actor": actor, "critic": critic})

    def loss(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value = -critic(actor(x).tanh()).mean()
        return value, value.detach()[None]

    config = OptimConfig("sgd", lr=0.1, clip_norm=0.0)
    optimiser = Optimiser(actor, loss, config, precision=torch.float32, compile=compile, reads=both)
    x = torch.randn(5, 3)
    for change in range(2):
        with torch.no_grad():
            critic.weight.add_(change)
        weight, bias = actor.weight.detach().clone().requires_grad_(), actor.bias.detach().clone()
        value = -critic(torch.nn.functional.linear(x, weight, bias).tanh()).mean()
        gradient = torch.autograd.grad(value, weight)[0]
        before = critic.weight.clone()
        metrics, _ = optimiser.minimise(x)
        assert torch.allclose(metrics, value.detach()[None], atol=1e-6)
        assert torch.allclose(actor.weight, weight - 0.1 * gradient, atol=1e-6)
        assert torch.equal(critic.weight, before) and critic.weight.grad is None


def test_compiled_acting_follows_the_weights() -> None:
    """Weights and normalizers are inputs of the graph, not constants in it."""
    spec = EnvSpec("test", Box((3,), "float32"), Box((2,), "float32", -1.0, 1.0))
    policy = Policy(spec, NetworkConfig(normalize=True), Config())
    act = Compiled(policy, policy.act, True)
    obs, first, noise = torch.randn(8, 3), torch.zeros(8, dtype=torch.bool), torch.rand(8, 2)
    with torch.no_grad():
        for change in range(3):
            for parameter in policy.parameters():
                parameter.add_(0.1 * change)
            policy.network.observe(torch.randn(1, 50, 3) * (1 + change))
            action, state, extra = act(obs, first, policy.initial_state(Lanes(8)), noise)
            expected, _, expected_extra = policy.act(obs, first, policy.initial_state(Lanes(8)), noise)
            assert torch.allclose(action, expected, atol=1e-5)
            assert torch.allclose(extra["value"], expected_extra["value"], atol=1e-5)
            assert state == policy.initial_state(Lanes(8))


@pytest.mark.parametrize("how", [True, "engine"])
def test_a_function_follows_weights_that_are_moved(how: How) -> None:
    """A policy in another process is laid out as its learner's, after its actor was made and before it has acted."""
    net = torch.nn.Linear(3, 2)
    function = Compiled(net, lambda x: net(x), how)
    x = torch.randn(4, 3)
    for _ in range(2):  # before the first call, and after it
        for p in net.parameters():
            p.data = torch.randn(p.shape)
        assert torch.allclose(function(x), net(x), atol=1e-6)


def test_a_graph_that_was_compiled_before_is_read_from_disk() -> None:
    """A later start of the same run compiles nothing, whatever its weights; another function gets another graph."""
    from torch._dynamo.utils import counters

    net = make_net().requires_grad_(False)

    def loss(power: int, x: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = net(x).pow(power).sum(0)
        return value

    for change, power, known in ((0.0, 2, False), (0.5, 2, True), (0.0, 3, False)):
        for parameter in net.parameters():
            parameter.add_(change)
        x = torch.randn(4, 3)
        function = partial(loss, power)
        counters.clear()
        assert torch.allclose(Compiled(net, function, True)(x), function(x), atol=1e-5)
        assert counters["inductor"]["fxgraph_cache_hit"] == 1 or not known


def test_choices_say_why() -> None:
    said: list[str] = []
    device = choose_device("auto", said.append)
    assert len(said) == 1 and said[0].startswith(f"device: {device.type}")
    assert choose_precision("auto", torch.device("cpu"), False, said.append) == torch.float32
    assert choose_precision("bfloat16", torch.device("cpu"), False, said.append) == torch.bfloat16


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_cuda_never_falls_back() -> None:
    with pytest.raises(ConfigError, match="device=cuda: .*type device=cpu"):
        choose_device("cuda", print)


def test_a_compiled_task_is_the_eager_one() -> None:
    found = []
    for compile in (False, True):
        torch.manual_seed(0)
        spec = EnvSpec("t", Box((3,), "float32"), Discrete(2))
        model = classify.Model(spec, NetworkConfig(encoder="mlp", hidden=(4,)), classify.Config())
        rows = {"obs": torch.randn(6, 3), "label": torch.tensor([0, 1, 1, 0, 1, 0])}
        learner = TaskLearner(model, OptimConfig(lr=1e-2), precision=torch.float32, compile=compile)
        metrics = [learner.learn(rows, 0.0) for _ in range(3)]
        found.append((metrics[-1]["loss/classes"], learner.optim.vector.clone()))
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


def test_two_optimisers_of_the_same_weights_are_told() -> None:
    """An encoder below two heads, each with an optimiser: the first one would step a copy that nobody reads."""
    encoder, heads = nn.Linear(3, 4), (nn.Linear(4, 1), nn.Linear(4, 2))

    def made(number: int) -> Optimiser:
        both = nn.Sequential(encoder, heads[number])

        def loss(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            value = both(x).square().mean()
            return value, value.detach()[None]

        return Optimiser(both, loss, OptimConfig(), precision=torch.float32, compile=False)

    first, second = made(0), made(1)
    with pytest.raises(
        ConfigError, match="two optimisers step the same weights, .*; put both losses into one"
    ):
        first.minimise(torch.ones(2, 3))
    second.minimise(torch.ones(2, 3))
