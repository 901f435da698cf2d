"""The engine computes what torch computes: numbers, operations, products, steps and whole losses."""

from __future__ import annotations

import math
import os
import platform
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from rlkit.config.compose import compose
from rlkit.config.schema import OptimConfig
from rlkit.engine import rules, scalars
from rlkit.engine.layout import Unsupported
from rlkit.engine.program import Program
from rlkit.learn import audit
from rlkit.learn.optim import Optimiser
from rlkit.options import ConfigError
from rlkit.run.console import Console
from rlkit.run.start import prepare

F = torch.nn.functional


def program(function: Any, *inputs: Tensor) -> Program:
    """The program of a function that returns a list of tensors."""
    graph = make_fx(function)(*inputs)
    graph.graph.eliminate_dead_code()
    return Program(graph, inputs)


def check(function: Any, *inputs: Tensor, tolerance: float = 2e-6) -> None:
    """The program's outputs == torch's, NaN and infinity included."""
    for found, right in zip(program(function, *inputs)(*inputs), function(*inputs), strict=True):
        assert found.dtype == right.dtype and found.shape == right.shape
        torch.testing.assert_close(found, right, rtol=tolerance, atol=tolerance, equal_nan=True)


NUMBERS = torch.tensor(
    [0.0, -0.0, 1e-30, -1e-6, 0.3, 0.5, -0.7, 1.0, -1.0, 1.5, -2.5, 7.9, -8.1, 20.5, 87.0, -87.0, 88.5, 89.0, -104.0,
     3e7, 1e30, -1e30, math.inf, -math.inf, math.nan]
)  # fmt: skip
ONE = {
    "neg": torch.neg, "abs": torch.abs, "exp": torch.exp, "log": torch.log, "log1p": torch.log1p, "sqrt": torch.sqrt,
    "tanh": torch.tanh, "sigmoid": torch.sigmoid, "relu": torch.relu, "sign": torch.sign, "floor": torch.floor,
    "trunc": torch.trunc, "erf": torch.erf, "softplus": F.softplus, "silu": F.silu, "gelu": F.gelu,
    "square": torch.square, "reciprocal": torch.reciprocal, "rsqrt": torch.rsqrt, "truth": lambda x: x.bool(),
    "not": lambda x: ~x.bool(),
}  # fmt: skip
TWO = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "minimum": torch.minimum,
    "maximum": torch.maximum, "lt": torch.lt, "le": torch.le, "gt": torch.gt, "ge": torch.ge, "eq": torch.eq,
    "ne": torch.ne, "pow": torch.pow,
}  # fmt: skip


@pytest.mark.parametrize("name", ONE)
def test_functions_of_a_number(name: str) -> None:
    """Every number that is special to a float32, and NaN and infinity pass through as in torch."""
    # torch's own gelu of infinity is NaN
    check(lambda x: [ONE[name](x)], NUMBERS[:22] if name == "gelu" else NUMBERS)


def test_erfinv() -> None:
    check(lambda x: [torch.erfinv(x)], torch.linspace(-0.9999, 0.9999, 1001), tolerance=3e-6)
    assert scalars.erfinv.py_func(np.float32(0)) == 0


@pytest.mark.parametrize("name", TWO)
def test_functions_of_two_numbers(name: str) -> None:
    """Every pair of them."""
    check(lambda x, y: [TWO[name](x, y)], NUMBERS[:, None].contiguous(), NUMBERS)


def operations() -> dict[str, tuple[Any, ...]]:
    """A function and its inputs: shapes that are no multiples of a vector, strides that are no rows."""
    torch.manual_seed(0)
    x, y = torch.randn(7, 5, 19), torch.randn(7, 5, 19)
    wide, index = torch.randn(3, 300), torch.tensor([[4, 0, 2], [1, 1, 3]])
    truth = torch.rand(7, 5, 19) < 0.5
    return {
        "turned": (lambda x, y: [x.transpose(0, 2) * y.transpose(0, 2), x.permute(1, 2, 0).reshape(19, -1)], x, y),
        "spread": (lambda x, y: [x + y[:, :1], x * y[:, :, :1], x - y[0, 0], x / 3, 2 - x], x, y),
        "long rows and one number": (lambda x: [x * x[:, :1], x[:1, :1] + x, torch.where(x > 0, x[:, :1], 0.5)], wide),
        "cut": (lambda x: [x[1:6:2, :, 3:], x.select(1, 2), torch.cat([x[:2], x[5:]], 0), torch.stack([x, x], 1)], x),
        "split": (lambda x: [*x.split(3, 2), *x.unbind(1)], x),
        "sums": (lambda x: [x.sum(), x.sum(0), x.sum((0, 2), True), x.mean(1), x.mean(-1, True), x[0].sum(1)], x),
        "best": (lambda x: [x.amax(2), x.amin((0, 1)), x.argmax(1), x.argmax(), x.amax((1,), True)], x),
        "softmax": (lambda x: [F.log_softmax(x, -1), F.softmax(x, 1), x.cumsum(1)], x),
        "gather": (lambda x, i: [x.gather(-1, i), x.gather(0, i)], torch.randn(5, 6), index),
        "scatter": (
            lambda x, i: [torch.zeros(2, 6).scatter_add(1, i, x), x.scatter_add(1, i, x)],
            torch.randn(6, 2).t(), torch.tensor([[4, 0, 2, 4, 5, 5]] * 2),
        ),
        "take": (
            lambda x, i: [x[i], x[:, i.flatten()[:3]], x.index_select(2, i[0]), F.embedding(i, x[0])], x, index
        ),
        "types": (
            lambda b, i, u: [b.float(), ~b, i.float() * 2, u.float() / 255, i > 2, i == 1, b[0, :2, :3] & (i > 2)],
            truth, index, torch.randint(0, 256, (3, 3), dtype=torch.uint8),
        ),
        "written over": (lambda x: [torch.empty_like(x).fill_(2.0).sub_(x).mul_(x), (x * 1).neg_().add_(1)], x),
        "masks": (lambda x, b: [x.masked_fill(b, -1.0), torch.where(b, x, torch.finfo(torch.float32).min)], x, truth),
        "bounds": (lambda x, y: [x.clamp(-0.5, 0.5), x.clamp(max=0.1), x.clamp(y - 1, y), x.clamp_min(0)], x, y),
        "whole numbers": (lambda i: [i.div(2, rounding_mode="floor"), i % 3, (i * 2.6).long()], index),
        "huber": (lambda x, y: [F.huber_loss(x, y, reduction="none"), torch.addcmul(x, y, y, value=0.5)], x, y),
        "empty": (lambda x: [x[:0].sum(1), x[:, :0].sum(1)], x),
    }  # fmt: skip


@pytest.mark.parametrize("name", operations())
def test_operations(name: str) -> None:
    check(*operations()[name], tolerance=1e-5)


@pytest.mark.parametrize("m", [1, 2, 3, 8, 17, 130])
@pytest.mark.parametrize("n", [1, 2, 15, 16, 33, 64, 100])
def test_products(m: int, n: int) -> None:
    """All ways in which two matrices may lie, with rows, columns and depths that fill no tile; against float64."""
    torch.manual_seed(0)
    for k in (1, 5, 64, 130, 300):
        a, b, c = torch.randn(m, k), torch.randn(k, n), torch.randn(n)
        at, bt = a.t().contiguous(), b.t().contiguous()

        def every(a: Tensor, b: Tensor, c: Tensor, at: Tensor, bt: Tensor) -> list[Tensor]:
            return [
                a @ b,
                a @ bt.t(),
                at.t() @ b,
                at.t() @ bt.t(),
                torch.addmm(c, a, b),
                torch.addmm(c, at.t(), bt.t()),
            ]

        right = a.double() @ b.double()
        for number, found in enumerate(program(every, a, b, c, at, bt)(a, b, c, at, bt)):
            expected = right + c.double() if number > 3 else right
            torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5 * k**0.5)


def test_nothing_is_written_beside_a_product() -> None:
    """Sizes that fill no vector leave what lies behind them as it is."""
    for n in (1, 3, 15, 17, 31):
        a, b = torch.randn(5, 7), torch.randn(7, n)
        whole = torch.full((5 * n + 64,), 7.0)
        made = program(lambda a, b: [a @ b], a, b)
        table = made.table([[a, b]], [[whole[: 5 * n].view(5, n)]])
        made.run(table.ctypes.data)
        torch.testing.assert_close(whole[: 5 * n].view(5, n), a @ b)
        assert (whole[5 * n :] == 7).all()


def test_a_row_has_the_same_bits_among_any_number_of_rows_and_twice() -> None:
    w, x = torch.randn(40, 33), torch.randn(23, 33)
    whole = program(lambda x, w: [x @ w.t()], x, w)
    (first,), (second,) = whole(x, w), whole(x, w)
    assert torch.equal(first, second)
    for rows in (3, 4, 9, 16):
        assert torch.equal(program(lambda x, w: [x @ w.t()], x[:rows], w)(x[:rows], w)[0], first[:rows])


@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_a_step_is_torch_s(name: str, clip: float) -> None:
    """50 whole steps beside those of torch, from the same state; and the state is the same one."""
    config = OptimConfig(name=name, lr=3e-3, clip_norm=clip, weight_decay=0.1)  # type: ignore[arg-type]
    x, y = torch.randn(31, 5), torch.randn(31, 3)
    made: list[tuple[torch.nn.Module, Optimiser]] = []
    for how in ("engine", False):
        torch.manual_seed(1)
        net = torch.nn.Sequential(torch.nn.Linear(5, 9), torch.nn.Tanh(), torch.nn.Linear(9, 3))

        def loss(x: Tensor, y: Tensor, net: torch.nn.Module = net) -> tuple[Tensor, Tensor]:
            value = (net(x) - y).square().mean()
            return value, value.detach()[None]

        made.append((net, Optimiser(net, loss, config, precision=torch.float32, compile=how)))  # type: ignore[arg-type]
    (_, ours), (_, theirs) = made
    start = ours.flat.detach().clone()
    for step in range(50):
        (found, norm), (right, expected) = ours.minimise(x, y), theirs.minimise(x, y)
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(norm, expected, rtol=1e-4, atol=1e-6)
        if step == 20:  # checkpoints of both are interchangeable
            state = ours.state_dict()
            ours.load_state_dict(theirs.state_dict())
            theirs.load_state_dict(state)
    assert (ours.flat - start).abs().max() > 0.05
    torch.testing.assert_close(ours.flat, theirs.flat, rtol=1e-4, atol=2e-6)
    assert ours.state_dict()["step"] == 50


def test_nan_is_not_hidden() -> None:
    """A NaN in a batch reaches the weights, where the run looks for it."""
    net = torch.nn.Linear(3, 2)
    loss = lambda x: ((v := net(x).square().mean()), v.detach()[None])  # noqa: E731
    optimiser = Optimiser(net, loss, OptimConfig(), precision=torch.float32, compile="engine")
    optimiser.minimise(torch.randn(4, 3))
    assert torch.isfinite(optimiser.flat).all()
    optimiser.minimise(torch.tensor([[1.0, math.nan, 0.0]] * 4))
    assert torch.isnan(optimiser.flat).any()


AGENTS = {
    "choices": "agent=ppo env=cartpole",
    "gaussian": "agent=ppo env=pendulum agent.value_clip=0.2 network.activation=silu",
    "tanh": "agent=ppo env=pendulum agent.distribution=tanh agent.entropy_coef=0.01 network.activation=gelu",
    "reinforce": "agent=reinforce env=cartpole agent.steps=16 agent.episodes=4",
    "dqn": "agent=dqn env=cartpole agent.dueling=true agent.noisy=true agent.replay.n_step=3 agent.replay.alpha=0.6",
    "quantiles": "agent=dqn env=cartpole agent.quantiles=5 agent.epsilon_spread=7 network.activation=relu",
    "td3": "agent=td3 env=pendulum network.hidden=[17,33]",
    "several": "agent=ppo env=simple_spread network.normalize=true",
}


def run(words: str, folder: Path, how: str, steps: int = 700) -> Any:
    """The run of these words after some steps."""
    folder.mkdir(exist_ok=True)
    given = dict(word.split("=", 1) for word in words.split())
    if given["agent"] in ("dqn", "td3"):
        given |= {"agent.replay.warmup": "100", "agent.replay.batch": "37"}
        steps = 300
    values: dict[str, Any] = {
        "preset": "none", "total_steps": steps, "compile": how, "evaluate.every": 10**9, "checkpoint.every": 10**9,
    }  # fmt: skip
    values |= {name: yaml.safe_load(value) for name, value in given.items()}
    made = prepare(compose(values=values).config, folder, Console(10**9, "engine", plain=True))
    try:
        made.train()
    finally:
        made.close()
    return made


@pytest.mark.parametrize("name", AGENTS)
def test_every_gradient_of_an_agent_is_torch_s(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each agent, every step of a short run audited."""
    compare, found = audit.Audit._far, []

    def far(self: audit.Audit, gradient: Tensor, *batch: object) -> str:
        found.append(compare(self, gradient, *batch))
        assert gradient.abs().max() > 0
        return found[-1]

    monkeypatch.setattr(audit, "EVERY", 1)
    monkeypatch.setattr(audit.Audit, "_far", far)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        run(AGENTS[name], tmp_path, "engine")
    assert len(found) > 1 and not any(found)


def test_a_wrong_kernel_is_found_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run goes on with torch and says so; its weights are those of a run without the engine."""
    right = run(AGENTS["choices"], tmp_path / "right", "engine")
    plain = run(AGENTS["choices"], tmp_path / "plain", False)
    monkeypatch.setitem(rules.RULES, "tanh_backward", lambda low, g, y: low.map("mul", g, y))
    with pytest.warns(UserWarning, match="the engine's gradient is not torch's .tensor"):
        wrong = run(AGENTS["choices"], tmp_path / "wrong", "engine")
    flat = [made.learner.optim.flat for made in (right, plain, wrong)]
    # the engine still acts, with the right numbers but for rounding
    assert not torch.equal(flat[0], flat[1])
    torch.testing.assert_close(flat[2], flat[1], rtol=1e-3, atol=1e-3)


def test_a_fault_later_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At an audit after steps were made; the run is saved."""
    monkeypatch.setattr(audit, "EVERY", 7)
    compare, calls = audit.Audit._far, []

    def far(self: audit.Audit, found: Tensor, *batch: object) -> str:
        calls.append(compare(self, found, *batch))
        return "tensor 3 by 0.1" if len(calls) == 3 else calls[-1]

    monkeypatch.setattr(audit.Audit, "_far", far)
    with pytest.raises(
        audit.EngineFault, match=r"after \d+ steps the engine's gradient is not torch's: tensor 3"
    ):
        run(AGENTS["dqn"], tmp_path, "engine")
    assert calls == ["", "", ""] and any((tmp_path / "checkpoints").iterdir())


def test_what_the_engine_cannot_is_said(tmp_path: Path) -> None:
    """Asked for by name it is refused; auto goes on with torch."""
    cumulative = lambda x: x.cumprod(0)  # noqa: E731
    with pytest.raises(Unsupported, match="the operation cumprod"):
        program(lambda x: [cumulative(x)], torch.ones(3))
    net = torch.nn.Linear(3, 2)
    loss = lambda x: ((v := cumulative(net(x)).sum()), v.detach()[None])  # noqa: E731
    x = torch.randn(4, 3)
    made = Optimiser(net, loss, OptimConfig(), precision=torch.float32, compile="engine")
    with pytest.raises(
        ConfigError, match="compile=engine: it has no kernel for .*; type compile=auto or compile=true"
    ):
        made.minimise(x)
    made = Optimiser(net, loss, OptimConfig(), precision=torch.float32, compile="auto")
    before = made.flat.detach().clone()
    with pytest.warns(UserWarning, match="the engine has no kernel for .*, so torch computes"):
        made.minimise(x)
    assert not torch.equal(made.flat, before)
    with pytest.raises(Unsupported, match="a change of what it is given"):
        program(lambda x: [x.add_(1)], torch.ones(3))
    with pytest.raises(Unsupported, match="numbers of type float64"):
        program(lambda x: [x * 2], torch.ones(3, dtype=torch.float64))


def test_a_pass_is_its_steps_one_after_another() -> None:
    """`minimise_each` has the bits of `minimise`, also where sizes differ and an audit is due within the pass."""
    x = torch.randn(90, 5)
    takes = list(torch.arange(90).tensor_split(4))  # 23, 23, 22, 22
    flats = []
    for every in (True, False):
        torch.manual_seed(3)
        net = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))

        def loss(rows: Any, take: Tensor, scale: Tensor, net: Any = net) -> tuple[Tensor, Tensor]:
            value = (net(rows["x"][take]) * scale).square().mean()
            return value, value.detach()[None]

        made = Optimiser(net, loss, OptimConfig(lr=1e-2), precision=torch.float32, compile="engine")
        rows, scale = {"x": x}, torch.tensor(0.5)
        if every:
            results = made.minimise_each(rows, takes, scale)
        else:
            results = [made.minimise(rows, take, scale) for take in takes]
        flats.append((made.flat.detach().clone(), results))
    assert torch.equal(flats[0][0], flats[1][0])
    assert all(
        torch.equal(a, c) and torch.equal(b, d)
        for (a, b), (c, d) in zip(flats[0][1], flats[1][1], strict=True)
    )


VECTORS = """
import numpy as np
from rlkit.engine import tile
assert tile.WIDTH == {width}, tile.WIDTH
rng = np.random.default_rng(0)
for m, n, k in ((1, 1, 1), (7, 19, 5), (13, 64, 33), (9, 100, 200)):
    a, b, c = (rng.standard_normal(shape, np.float32) for shape in ((m, k), (k, n), (m, n)))
    out, square = np.zeros((m, n), np.float32), np.zeros((tile.WIDTH, tile.WIDTH), np.float32)
    address = lambda x: x.ctypes.data
    tile.product(address(a), k, 1, address(b), n, address(c), n, address(out), n, m, n, k)
    assert np.abs(out - (a.astype(float) @ b + c)).max() < 1e-5 * k
given = rng.standard_normal(square.shape, np.float32)
tile.turn(address(given), tile.WIDTH, address(square), tile.WIDTH)
assert (square == given.T).all()
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have vectors of other widths")
@pytest.mark.parametrize(("features", "width"), [("+sse2", 4), ("+sse2,+avx,+avx2,+fma", 8)])
def test_narrower_vectors(features: str, width: int, tmp_path: Path) -> None:
    """Products and turned squares as on processors without AVX-512 and without AVX2."""
    environment = os.environ | {
        "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(tmp_path),
    }  # fmt: skip
    if width == 8 and "avx2" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no AVX2")
    command = [sys.executable, "-c", VECTORS.format(width=width)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


NOWHERE = """
import torch, warnings
from rlkit.config.schema import OptimConfig
from rlkit.learn.optim import Optimiser
net = torch.nn.Linear(3, 2)
loss = lambda x: ((v := net(x).square().mean()), v.detach()[None])
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    made = Optimiser(net, loss, OptimConfig(lr=0.1), precision=torch.float32, compile="auto")
    before = made.flat.detach().clone()
    made.minimise(torch.ones(4, 3))
    assert not torch.equal(made.flat, before)
print(*[str(each.message) for each in said])
"""


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ({"NUMBA_CACHE_DIR": "/proc/nowhere"}, ""),
        ({"NUMBA_DISABLE_JIT": "1"}, "NUMBA_DISABLE_JIT), so torch computes"),
    ],
)
def test_a_machine_without_a_cache_or_a_compiler(variable: dict[str, str], said: str) -> None:
    command = [sys.executable, "-c", NOWHERE]
    done = subprocess.run(command, env=os.environ | variable, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout and bool(said) == bool(done.stdout.strip())
