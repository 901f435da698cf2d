"""EnvConfig: one-line errors with the field's path; every committed configuration is valid."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from rlkit.config import registry
from rlkit.envs.config import EnvConfig

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "env").glob("*.yaml"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("skip", 0),
        ("lanes", 0),
        ("lanes", True),
        ("size", -1),
        ("stack", 0),
        ("reward_scale", 0.0),
        ("reward_scale", float("nan")),
        ("check", "some"),
        ("backend", "ray"),
        ("deadline", 0.0),
        ("time_limit", -5),
        ("gray", 1),
    ],
)
def test_values_out_of_range_name_the_field(field, value):
    with pytest.raises(ValueError, match=rf"^env\.{field}=.*allowed: ") as caught:
        EnvConfig(id="CartPole-v1", **{field: value}).validate()
    assert "\n" not in str(caught.value)


def test_missing_id_and_wrappers_around_a_native_vector_are_refused():
    with pytest.raises(ValueError, match=r"env\.id: missing"):
        EnvConfig().validate()
    with pytest.raises(ValueError, match=r"env\.skip=2: env\.backend=native takes its environment as it is"):
        EnvConfig(id="CartPole-v1", backend="native", skip=2).validate()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_committed_configurations(path):
    plain = yaml.safe_load(path.read_text())
    values = plain.get("env", plain)  # of a file that sets more than the environment
    assert "name" not in values  # it is the file's
    defaults = asdict(EnvConfig())
    assert not [key for key, value in values.items() if defaults[key] == value], "YAML repeats a default"
    if path.stem == "gymnasium":
        assert values["id"] == "???"
        values["id"] = "CartPole-v1"
    values.setdefault("id", registry.environment_ids()[path.stem])  # that of what it is built upon
    if "*" in values["id"]:  # of a family
        with pytest.raises(ValueError, match="stands for many"):
            EnvConfig(**values).validate()
        values["id"] = values["id"].replace("*", "Pong")
    EnvConfig(**values).validate()
    assert EnvConfig(**json.loads(json.dumps(asdict(EnvConfig(**values))))) == EnvConfig(**values)


def test_config_and_package_import_neither_torch_nor_gymnasium():
    code = (
        "import sys, rlkit.envs, rlkit.envs.config, rlkit.envs.backends.faults; "
        "print([name for name in ('torch', 'gymnasium', 'pygame') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_lanes_and_workers_children_import_no_torch():
    code = (
        "import sys, rlkit.envs.backends.lane, rlkit.envs.make, rlkit.envs.backends.worker; "
        "print([name for name in ('torch', 'pygame', 'cv2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
