"""What `fit` calls for a supervised task: a model, its optimiser, one gradient step per batch."""

from __future__ import annotations

import torch
from torch import Tensor

from rlkit.config.schema import OptimConfig
from rlkit.contracts import Saved
from rlkit.learn.optim import Optimiser
from rlkit.machine import How
from rlkit.perception.model import Model, Rows


class TaskLearner:
    """Minimises a model's loss over the batches of a table."""

    def __init__(self, model: Model, optim: OptimConfig, *, precision: torch.dtype, compile: How) -> None:
        self.model = model
        self.optim = Optimiser(model, model.loss, optim, precision=precision, compile=compile)

    def learn(self, batch: Rows, progress: float) -> dict[str, Tensor]:
        """One step on a batch; `progress` = step / total_steps drives the learning rate."""
        self.optim.set_progress(progress)
        metrics, norm = self.optim.minimise(batch)
        return dict(zip(self.model.METRICS, metrics, strict=True)) | {"gradient_norm": norm}

    def state_dict(self) -> Saved:
        """What learning depends on beside the model's weights."""
        return {"optim": self.optim.state_dict()}

    def load_state_dict(self, state: Saved) -> None:
        """Continue from `state_dict`'s value."""
        self.optim.load_state_dict(state["optim"])
