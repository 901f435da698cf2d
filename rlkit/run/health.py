"""Whether what was learned is still worth keeping."""

from __future__ import annotations

import torch
from torch import nn

from rlkit.config.schema import OptimConfig


class Diverged(RuntimeError):
    """The weights are no longer numbers."""

    complete = True  # the message says everything: the command line offers no traceback


def require_finite(model: nn.Module, step: int, optim: OptimConfig) -> None:
    """Raise Diverged where what a model saves, a weight or a running statistic, is NaN or infinite."""
    saved = [x for x in model.state_dict().values() if x.is_floating_point()]
    if not torch.stack([torch.isfinite(x).all() for x in saved]).all():
        raise Diverged(
            f"at step {step:,} the policy's weights are no longer finite numbers. To resume would repeat it; type a "
            f"smaller optim.lr (it was {optim.lr:g}) or optim.clip_norm (it was {optim.clip_norm:g}), or change them "
            "in the run's config.yaml and resume"
        )
