"""What is tried before a run is put together: one environment of it, and its precision."""

from __future__ import annotations

import traceback
from dataclasses import replace

import torch

from rlkit.config import registry
from rlkit.config.schema import Common, RunConfig
from rlkit.contracts import Probe
from rlkit.device import choose_precision
from rlkit.nn.precision import TOLERATED, gradient_error
from rlkit.options import ConfigError
from rlkit.spaces import Box, leaves
from rlkit.types import EnvSpec


def probe_env(config: RunConfig, *, render: bool = False, distributed: bool = False) -> Probe:
    """What one environment of the run tells about all of them; render: that it can be filmed, too.

    distributed: its lanes are spread over processes anyway, so that env.backend=auto means inprocess in each of them.
    Raises ConfigError where it cannot be made or filmed, EnvFault where it fails at work.
    """
    package, env = registry.env_package(), config.env
    if distributed and (unknown := package.unknown(env.id)):
        raise ConfigError(f"source=ray: {unknown}, or type source=sync")
    try:
        if distributed and env.backend == "auto" and not package.is_batched(env):
            env = replace(env, backend="inprocess")
        probe: Probe = package.probe(env, render=render)
        return probe
    except ValueError as error:
        raise ConfigError(str(error)) from error
    except Exception as error:  # the environment's own code
        if hasattr(error, "trace"):  # an EnvFault, which says where
            raise
        place = [
            each for each in traceback.extract_tb(error.__traceback__) if not each.filename.startswith("<")
        ][-1]
        raise ConfigError(
            f"environment {config.env.id} cannot be made: {type(error).__name__}: {error} "
            f"({place.filename}:{place.lineno}; --traceback shows the way there)"
        ) from error


def tested_precision(config: Common, spec: EnvSpec, device: torch.device, notes: list[str]) -> torch.dtype:
    """The precision of a run, after bfloat16 was tried on the shapes at hand; `notes` hear of the choice.

    Where its gradients are wrong, auto falls back to float32. Raises ConfigError where bfloat16 was typed.
    """
    said: list[str] = []
    precision = choose_precision(config.precision, device, has_pixels(spec), said.append)
    if precision == torch.bfloat16:
        error = gradient_error(spec, config.network, device, precision)
        if not error <= TOLERATED:
            wrong = (
                f"gradients in bfloat16 are wrong here for these observations (by {error:.2g} of their norm)"
            )
            if config.precision != "auto":
                raise ConfigError(f"precision={config.precision}: {wrong}; type precision=float32")
            said, precision = [f"precision: float32, because {wrong}"], torch.float32
    notes += said
    return precision


def has_pixels(spec: EnvSpec) -> bool:
    """Whether an observation holds an image."""
    return any(isinstance(leaf, Box) and leaf.image for _, leaf in leaves(spec.observation))
