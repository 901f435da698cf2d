"""From a policy to graphs in the ONNX format: one trace of the agent that acts, cut into what each use needs.

    policy.onnx     obs, first, memory -> greedy action, memory (and value)
    sample.onnx     obs, first, noise, memory -> sampled action, memory; noise: uniforms in (0, 1)

Nothing here knows an algorithm: what is traced is `AgentPolicy.act`, the call that acts everywhere else.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rlkit.options import ConfigError
from rlkit.play.saved import AgentPolicy
from rlkit.spaces import Dict, leaves, row_dtype
from rlkit.types import Obs, State, tree_leaves, tree_map

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 20
MEMORY_AFTER, SAMPLED_AFTER = "memory_out.", "sampled_memory_out."  # after a greedy step, after a sampled one
EXAMPLE = 3  # lanes of the example that is traced; graphs take any number
# erfinv(x) = x p(w - 2.5) where w = -log(1 - x^2) < 5, else x p(sqrt(w) - 3): coefficients of Giles (2010)
CENTRE = (
    1.50140941, 0.246640727, -0.00417768164, -0.00125372503, 0.00021858087, -4.39150654e-06, -3.5233877e-06,
    3.43273939e-07, 2.81022636e-08,
)  # fmt: skip
TAIL = (
    2.83297682, 1.00167406, 0.00943887047, -0.0076224613, 0.00573950773, -0.00367342844, 0.00134934322,
    0.000100950558, -0.000200214257,
)  # fmt: skip


def names_of(agent: AgentPolicy) -> list[str]:
    """The graph's names of the entries of an observation."""
    return [f"obs.{name}" if name else "obs" for name, _ in leaves(agent.reader.space)]


def memory_of(state: State) -> list[Tensor]:
    """The parts of a memory that hold a number."""
    return [part for part in tree_leaves(state) if part[0].numel()]


def expected(agent: AgentPolicy, obs: Obs, first: Tensor, state: State) -> Tensor:
    """The return that the agent expects where it sees obs [lanes, ...]: [lanes]. Raises ValueError: it learns none."""
    if agent.policy.eyes is not None:  # whose memory stands beside the policy's own
        state, frames = cast(tuple[State, Tensor], state)
        obs, _ = agent.policy.eyes(obs, first, frames)
    return agent.policy.value(tree_map(lambda x: x[None], obs), first[None], state)[0]


class Acting(nn.Module):
    """All that a policy answers, as a function of tensors alone."""

    def __init__(self, agent: AgentPolicy, wanted: Collection[str]) -> None:
        super().__init__()
        self.policy, self.agent, self.wanted = agent.policy, agent, wanted
        self.opening = agent.opening(1)
        self.names = [name for name, _ in leaves(agent.reader.space)]
        self.single = not isinstance(agent.reader.space, Dict)

    def state(self, memory: list[Tensor], first: Tensor) -> State:
        """The parts of a memory in their places; those without a number are made."""
        left = iter(memory)
        return tree_map(
            lambda x: next(left) if x.numel() else x.expand(first.shape[0], *x.shape[1:]), self.opening
        )

    def forward(
        self, entries: list[Tensor], first: Tensor, noise: Tensor, memory: list[Tensor]
    ) -> tuple[Tensor, ...]:
        obs: Obs = entries[0] if self.single else dict(zip(self.names, entries, strict=True))
        found: list[Tensor] = []
        for name, uniforms in (("action", None), ("sampled", noise)):
            if name in self.wanted:
                action, after = self.agent.act(obs, first, self.state(memory, first), uniforms)
                found += [action, *memory_of(after)]
        if "value" in self.wanted:
            found.append(expected(self.agent, obs, first, self.state(memory, first)))
        return tuple(found)


class Exportable(TorchFunctionMode):
    """Functions without an operator in the format, or in ONNX Runtime, in terms of others."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function in (torch.erfinv, torch.Tensor.erfinv):
            return _erfinv(args[0])
        if function in (torch.atanh, torch.Tensor.atanh) and args[0].dtype == torch.float64:
            return 0.5 * torch.log((1 + args[0]) / (1 - args[0]))
        return function(*args, **(kwargs or {}))


def _erfinv(x: Tensor) -> Tensor:
    w = -torch.log((1 - x) * (1 + x))
    near = w < 5
    z = torch.where(near, w - 2.5, torch.sqrt(w) - 3)
    p = torch.full_like(x, 0.0)
    for centre, tail in zip(reversed(CENTRE), reversed(TAIL), strict=True):
        p = p * z + torch.where(near, centre, tail)
    return p * x


def example(agent: AgentPolicy) -> tuple[list[Tensor], Tensor, Tensor, list[Tensor]]:
    """What is traced: entries of an observation, first, noise, memory; of `EXAMPLE` lanes."""
    entries = [
        torch.zeros((EXAMPLE, *leaf.shape), dtype=getattr(torch, row_dtype(leaf)))
        for _, leaf in leaves(agent.reader.space)
    ]
    first = torch.tensor([True] + [False] * (EXAMPLE - 1))
    return (
        entries,
        first,
        torch.full((EXAMPLE, agent.policy.noise_size), 0.5),
        memory_of(agent.opening(EXAMPLE)),
    )


@torch.no_grad()
def trace(agent: AgentPolicy, wanted: Collection[str] = ("action", "sampled")) -> ModelProto:
    """The graph of everything that is wanted: "action" (outputs action, memory_out.i), "sampled" (outputs sampled,
    sampled_memory_out.i), "value" (one output).

    Raises ConfigError where the network uses what no operator of the format computes.
    """
    acting = Acting(agent, wanted).eval()
    given = example(agent)
    lanes = torch.export.Dim.DYNAMIC
    entries, _, _, memory = given
    shapes = ([{0: lanes} for _ in entries], {0: lanes}, {0: lanes}, [{0: lanes} for _ in memory])
    numbers = range(len(memory))
    outputs = []
    for name, after in (("action", MEMORY_AFTER), ("sampled", SAMPLED_AFTER)):
        outputs += [name, *(f"{after}{i}" for i in numbers)] if name in wanted else []
    outputs += ["value"] if "value" in wanted else []
    with _quiet():
        try:
            with Exportable():
                program = torch.export.export(acting, given, dynamic_shapes=shapes, strict=False)
            made = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=[*names_of(agent), "first", "noise", *(f"memory.{i}" for i in numbers)],
                output_names=outputs,
                verbose=False,
            )
        except Exception as error:  # torch's own classes, and whatever the policy raises
            raise ConfigError(_reason(error)) from error
    assert made is not None, "of dynamo=True"
    return made.model_proto


def _reason(error: Exception) -> str:
    """One line about a policy that cannot be traced."""
    text = str(error)
    operator = re.search(r"OpOverload\(op='([\w.:]+)'", text)
    if operator:
        return (
            f"the network computes {operator[1]}, for which ONNX has no operator; write it with others in the encoder "
            "or core that uses it"
        )
    if isinstance(error, ValueError) and "\n" not in text:  # of the policy: no value is learned, for example
        return text
    return f"the policy cannot be traced: {type(error).__name__}: {' '.join(text.split())[:300]}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of torch's exporter about packages that are not needed here."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
