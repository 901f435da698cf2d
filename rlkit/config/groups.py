"""The YAML groups of rlkit.configs, laid over one another by Hydra."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from rlkit.config import registry
from rlkit.config.edits import read_plain
from rlkit.options import ConfigError, Plain

CHOICES = {  # option that chooses a YAML file -> (what `rlkit list` calls them, one of them)
    "agent": ("agents", "agent"),
    "env": ("environments", "environment"),
    "network": ("networks", "network"),
    "source": ("sources", "source"),
    "exploration": ("explorations", "exploration"),
    "preset": ("presets", "preset"),
}
# groups for programs of Hydra's own; reading them would be a third of the time to compose
HYDRAS = ("output", "launcher", "sweeper", "help", "hydra_help", "hydra_logging", "job_logging")
LEFT_OUT = [f"~hydra/{group}" for group in HYDRAS]


def defaults() -> dict[str, str]:
    """What config.yaml chooses; its preset is "auto": the one of the pair, where there is one."""
    defaults = read_plain(registry.config_folder() / "config.yaml")["defaults"]
    entries = [entry for entry in defaults if isinstance(entry, dict)]
    chosen = {key: name for entry in entries for key, name in entry.items()}
    return {key: chosen[key] for key in CHOICES if key != "preset"} | {"preset": "auto"}


def changed(folder: Path) -> int:
    """When the newest of the YAML files in a folder was written, in ns."""
    return max(file.stat().st_mtime_ns for file in folder.rglob("*.yaml"))


@lru_cache(maxsize=64)
def compose_groups(choices: tuple[str, ...], folder: Path, changed: int) -> Plain:
    """Hydra's composition of the folder's config.yaml with these choices; of the files as they were at `changed`."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    outer = GlobalHydra.instance().hydra  # a program that uses Hydra itself keeps its state
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(folder), version_base="1.3"):
            composed = hydra_compose("config", overrides=[*choices, *LEFT_OUT])
        plain: Plain = OmegaConf.to_container(composed, resolve=False)  # type: ignore[assignment]
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(f"{' '.join(choices)}: {' '.join(str(error).split())}") from error
    finally:
        GlobalHydra.instance().hydra = outer
    plain.pop("preset", None)
    return plain
