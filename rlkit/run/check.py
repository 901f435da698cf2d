"""CHECK"""

from __future__ import annotations

import traceback

from rlkit.config import registry
from rlkit.config.schema import RunConfig
from rlkit.options import ConfigError
from rlkit.spaces import Box, leaves
from rlkit.types import EnvSpec


def has_pixels(spec: EnvSpec) -> bool:
    """Whether an observation holds an image."""
    return any(isinstance(leaf, Box) and leaf.image for _, leaf in leaves(spec.observation))


def spec_of(config: RunConfig) -> EnvSpec:
    """What the environment shows and takes; ConfigError where it cannot be made."""
    try:
        spec: EnvSpec = registry.env_package().probe(config.env)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    except Exception as error:  # the environment's own code
        place = [
            each for each in traceback.extract_tb(error.__traceback__) if not each.filename.startswith("<")
        ][-1]
        raise ConfigError(
            f"environment {config.env.id} cannot be made: {type(error).__name__}: {error} "
            f"({place.filename}:{place.lineno}; --traceback shows the way there)"
        ) from error
    return spec


def check_pair(config: RunConfig) -> EnvSpec:
    """`spec_of`, and ConfigError where the agent cannot handle the environment's spaces."""
    spec = spec_of(config)
    try:
        registry.agent_module(config.agent_name).check(spec, config.agent)
    except ValueError as error:
        raise ConfigError(
            f"agent={config.alias or config.agent_name} cannot act in {spec.id}: {error}"
        ) from error
    return spec
