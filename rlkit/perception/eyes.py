"""Opens the eyes of an agent: a saved policy or model, and which of its numbers are seen."""

from __future__ import annotations

import torch
from torch import Tensor

from rlkit.collect.eyes import Eyes
from rlkit.contracts import Saved
from rlkit.nn.network import Network
from rlkit.options import ConfigError
from rlkit.perception.saved import build_model
from rlkit.play.saved import build_policy
from rlkit.spaces import Box, Dict
from rlkit.types import EnvSpec, Obs


def open_eyes(parts: Saved, device: torch.device | str = "cpu") -> Eyes:
    """Eyes of {"source": part `policy` of a run, "gives": "features" or "prediction"}. Raises ConfigError."""
    source = parts["source"]
    spec = EnvSpec.from_json(source["spec"])
    if isinstance(spec.observation, Dict) and spec.stack > 1:
        raise ConfigError("eyes: only single observations are stacked")
    if parts["gives"] == "prediction":
        if "task" not in source or "agent" in source:
            raise ConfigError("eyes.gives=prediction: of the run of a task alone; type eyes.gives=features")
        model = build_model(source).to(device).requires_grad_(False)

        def predicted(obs: Obs) -> Tensor:
            """What the model says, in the dtype of its label."""
            found: Tensor = model.predict(obs)["label"]
            return found

        return Eyes(predicted, spec, spec.action, parts)
    body = build_policy(source) if "agent" in source else build_model(source)
    body.to(device).requires_grad_(False)
    encoder = next(each.encoders[0] for each in body.modules() if isinstance(each, Network))
    features = int(encoder.features)  # type: ignore[arg-type]

    def encoded(obs: Obs) -> Tensor:
        """The features of the first encoder, as float32."""
        found: Tensor = encoder(obs)
        return found.float()

    return Eyes(encoded, spec, Box((features,), "float32"), parts)
