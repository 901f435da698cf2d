"""The optimiser: one flat parameter vector, one flat gradient, one fused step.

    g <- grad loss(theta)                          (over all ranks, see rlkit.ranks)
    g <- g min(1, c / |g|)                         (clip_norm c; 0 turns clipping off)
    theta <- theta - lr(progress) step(g)          (Adam, AdamW, RMSprop or SGD)

All parameters of a module become views of one vector, so clipping and stepping are a handful of operations however
many layers there are, and a checkpoint's or another process's weights are one copy. With `compile` loss and gradient
become one function in machine code, from minibatch to flat gradient; by the engine the whole step does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TypeAlias

import torch
from torch import Tensor, nn

from rlkit import ranks
from rlkit.compile import Compiled, from_flat, refuse, to_flat
from rlkit.config.schema import OptimConfig
from rlkit.contracts import Saved
from rlkit.engine.layout import Unsupported
from rlkit.learn.audit import Audit
from rlkit.learn.steps import Adam, make_step, require_own
from rlkit.machine import How
from rlkit.nn.shift import Shift

Loss: TypeAlias = Callable[..., tuple[Tensor, Tensor]]  # (*batch) -> loss, vector of metrics (detached)


def schedule(kind: str, progress: float) -> float:
    """The factor in [0, 1] by which a scheduled value has fallen at `progress` = step / total_steps.

    constant: 1; linear: 1 - p; cosine: (1 + cos(pi p)) / 2.
    """
    progress = min(max(progress, 0.0), 1.0)
    if kind == "linear":
        return 1.0 - progress
    if kind == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    assert kind == "constant", f"unknown schedule {kind!r}"
    return 1.0


class Optimiser:
    """Minimises losses over the parameters of `module` (which must already be on its device).

    reads: a module around `module` whose other tensors (target networks, a critic in the actor's loss) the loss reads
    too; they are not stepped, and a loss that would leave a gradient in them must not let it flow there. Networks in it
    shift images where network.augment says so.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Loss,
        config: OptimConfig,
        *,
        precision: torch.dtype,
        compile: How,
        reads: nn.Module | None = None,
    ) -> None:
        self.config = config
        self.loss = loss
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.flat, self.gradient = flatten(module)
        self.lr = config.lr
        self._checked = False
        self.vector = self.flat.detach()  # the same memory
        self.step = make_step(self.flat, self.vector, self.parameters, config)
        self.shifts = [each for each in (reads or module).modules() if isinstance(each, Shift)]
        self.autocast = torch.autocast(self.flat.device.type, precision, enabled=precision != torch.float32)
        self._how, self._descent, self._audit = compile, None, None
        if compile in ("auto", "engine"):
            self._audit = Audit(loss, self.parameters)
            self._descent = self.step.descent(config.clip_norm) if isinstance(self.step, Adam) else None
        self._compiled = (
            Compiled(reads or module, loss, compile, self.parameters, self._descent) if compile else None
        )

    def set_progress(self, progress: float) -> None:
        """Set the learning rate that belongs to this share of the run."""
        self.lr = self.config.lr * schedule(self.config.lr_schedule, progress)

    def minimise(self, *batch: object) -> tuple[Tensor, Tensor]:
        """One step on loss(*batch); returns the loss's metrics and the gradient's norm before clipping.

        The loss is a mean over this rank's share of a minibatch, and the step is on the mean over the ranks.
        """
        if self._whole(1, *batch):
            assert self._compiled is not None
            norm, metrics = self._compiled(*batch)
            return metrics, norm
        gradient, metrics = ranks.all_mean(*self._differentiate(*batch))
        return metrics, self._descend(gradient)

    def minimise_each(
        self, batch: object, takes: Sequence[Tensor], *more: object
    ) -> list[tuple[Tensor, Tensor]]:
        """`minimise(batch, take, *more)` for every take, in order."""
        results: list[tuple[Tensor, Tensor]] = []
        for _, group in groupby(takes, lambda take: take.shape):
            equal = list(group)
            if self._whole(len(equal), batch, equal[0], *more):
                assert self._compiled is not None
                norms, metrics = self._compiled.each(equal, batch, *more)
                results += zip(metrics, norms, strict=True)
            else:
                results += [self.minimise(batch, take, *more) for take in equal]
        return results

    def _whole(self, steps: int, *batch: object) -> bool:
        """Whether the engine makes the next steps, the first of them on `batch`, as a whole; they are set up."""
        if self._descent is None or ranks.size() > 1 or not self._agreed(steps, *batch):
            return False
        self._descent.settings[0] = self.lr
        return True

    def _agreed(self, steps: int, *batch: object) -> bool:
        """Whether a function in machine code gives the gradients of the next steps; the engine's are audited."""
        if not self._checked:
            self._checked = require_own(self.flat, self.parameters)
        if self._compiled is None or self._audit is None:
            return self._compiled is not None
        try:
            agreed = self._audit.passes(self._compiled.differentiate, steps, *batch)
        except Unsupported as why:
            refuse(self._how, why)
            agreed = False
        if not agreed:
            self._compiled = self._descent = None
        return agreed

    def minimise_sum(self, batches: Iterable[tuple[object, ...]]) -> tuple[Tensor, Tensor]:
        """One step on the sum of the losses of batches, of which one at a time is in memory; sums of the metrics.

        A batch is this rank's share of a sum, and the step is on the sum over the ranks.
        """
        total, metrics = torch.zeros_like(self.gradient), []
        for batch in batches:
            gradient, each = self._differentiate(*batch)
            total += gradient
            metrics.append(each)
        total, sums = ranks.all_sum(total, torch.stack(metrics).sum(0))
        return sums, self._descend(total)

    def _differentiate(self, *batch: object) -> tuple[Tensor, Tensor]:
        """The gradient of loss(*batch), valid until the next call, and its metrics."""
        compiled = self._compiled if self._agreed(1, *batch) else None
        with self.learning():
            if compiled is not None:
                return compiled.differentiate(*batch)
            loss, metrics = self.loss(*batch)
        self.gradient.zero_()
        loss.backward(inputs=self.parameters)  # type: ignore[no-untyped-call]
        return self.gradient, metrics

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Compute a loss, or targets for one, inside: in the chosen precision, and with the networks' random shifts."""
        for stream, shift in enumerate(self.shifts):
            shift.begin(stream)
        try:
            with self.autocast:
                yield
        finally:
            for shift in self.shifts:
                shift.end()

    @torch.no_grad()
    def _descend(self, gradient: Tensor) -> Tensor:
        """Clip and step; returns |g| before clipping."""
        norm: Tensor = torch.linalg.vector_norm(gradient)
        limit = self.config.clip_norm
        # g <- g / max(1, |g| / c)
        self.step(gradient, self.lr, ((norm + 1e-6) / limit).clamp_(min=1.0) if limit > 0 else None)
        return norm

    def state_dict(self) -> Saved:
        """Moments, step count, and what shifts follow from; the parameters belong to the module."""
        return {name: value.clone() for name, value in (self.step.state | self._keys).items()}

    @property
    def _keys(self) -> dict[str, Tensor]:
        """The keys of the shifts, by the names under which they are saved."""
        return {f"shift/{i}": shift.key for i, shift in enumerate(self.shifts)}

    def load_state_dict(self, state: Saved) -> None:
        """Continue from `state_dict`'s value."""
        keys = self._keys
        for name in keys.keys() & state.keys():
            keys[name].copy_(state[name])
        self.step.load(
            {
                name: value.to(self.flat.device if value.dim() else value.device, copy=True)
                for name, value in state.items()
                if not name.startswith("shift/")
            }
        )


@torch.no_grad()
def soft_update(target: Tensor, source: Tensor, tau: float) -> None:
    """theta' <- theta' + tau (theta - theta'), for two flat parameter vectors; tau = 1 copies."""
    target.lerp_(source, tau)


def flatten(module: nn.Module) -> tuple[nn.Parameter, Tensor]:
    """Turn every parameter of `module` (and its .grad) into a view of one vector; returns vector and gradient.

    Convolution weights [O, I, H, W] lie channels-last, as [O, H, W, I].
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    flat = torch.cat([to_flat(p.detach()) for p in parameters])
    gradient = torch.zeros_like(flat)
    start = 0
    for p in parameters:
        piece = slice(start, start + p.numel())
        p.data, p.grad = from_flat(flat[piece], p.shape), from_flat(gradient[piece], p.shape)
        start += p.numel()
    vector = nn.Parameter(flat)
    vector.grad = gradient
    return vector, gradient
