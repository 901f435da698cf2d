"""What goes wrong is said in one line on stderr, with a non-zero exit code, and nothing is lost."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rlkit import checkpoint
from rlkit.metrics import read_metrics
from tests.helpers.runs import launch, rlkit, wait_for

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
OWN = """
import gymnasium, numpy as np
from gymnasium import spaces

class Line(gymnasium.Env):
    def __init__(self, fault=""):
        self.fault, self.episodes = fault, 0
        self.observation_space = spaces.Box(-1, 1, (3,), np.float32)
        self.action_space = spaces.Discrete(3)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.episodes = 0, self.episodes + 1
        return np.zeros(3, np.float32), {}
    def step(self, action):
        self.t += 1
        obs, reward = np.full(3, self.t / 20, np.float32), 1.0
        if self.episodes == 9 and self.t == 7:
            if self.fault == "raise":
                raise OSError("sensor unplugged")
            obs[1] = float("nan") if self.fault == "bad" else 0
        return obs, reward, False, self.t == 20, {}

class Composite(Line):
    def __init__(self):
        super().__init__()
        self.action_space = spaces.Dict(gear=spaces.Discrete(2), wheel=spaces.Box(-1, 1, (1,)))

class Unlicensed(Line):
    def __init__(self):
        raise RuntimeError("no licence")
"""
REFUSED = [  # what is typed, and what the one line must hold
    ("train agnt=ppo", "agnt=ppo: no such option; did you mean agent?"),
    ("train agent.clp=0.1", "agent.clp=0.1: no such option; did you mean agent.clip?"),
    (
        "train colour=red",
        "colour=red: no such option; allowed: agent, checkpoint, compile, device, dir, env, ",
    ),
    ("train agent.clip=wide", "agent.clip=wide: not a number; allowed: a number above 0"),
    ("train agent.clip=-1", "agent.clip=-1: too small; allowed: a number above 0"),
    ("train optim.name=adm", "optim.name=adm: no such choice, did you mean adam; allowed: adam, adamw, "),
    ("train total_steps=many", "total_steps=many: not a whole number"),
    ("train env.lanes=0", "env.lanes=0: too small; allowed: a whole number from 1 "),
    ("train --seed=3", "--seed=3: options have no dashes; type seed=VALUE"),
    ("train agent=ppp", "agent=ppp: no such agent; did you mean ppo?"),
    ("train env=cartpol", "env=cartpol: no such environment; did you mean cartpole?"),
    ("train env=CartPoll-v1", "no such environment; nearest: CartPole-v1"),
    ("train network=impla", "network=impla: no such network; did you mean impala?"),
    ("train device=tpu", "device=tpu: no such device; allowed: auto, cpu, cuda, cuda:N"),
    ("train name=a/b", "name=a/b: not the name of a folder"),
    ("train dir=file", "dir=file: file is not a folder"),
    ("train dir=file/deeper/still", "dir=file/deeper/still: file is not a folder"),
    ("train dir=nowhere", "dir=nowhere: nowhere is not a folder"),  # a link to a folder that is not there
    ("train dir=/proc/runs", "dir=/proc/runs: cannot make /proc/runs/ppo-cartpole-0 ("),
    ("train env=nomodule:Env", "there is no module nomodule"),
    ("train env=own:Lime", "own has no Lime; nearest: Line"),
    ("train env=typo:Env", "environment typo:Env cannot be made: SyntaxError: "),
    ("train env=needy:Env", "needy needs the package surely_not_installed"),
    (
        "train agent=dqn env=own:Composite",
        "dqn acts in Discrete, MultiDiscrete, MultiBinary; type agent=ppo or agent=reinforce",
    ),
    ("train agent=td3 env=cartpole", "ddpg acts in Box; type agent=dqn, agent=ppo or agent=reinforce"),
    ("train env=own:Unlicensed", "own:Unlicensed cannot be made: RuntimeError: no licence ("),
    ("train env=own:Line video.every=100", "environment own:Line draws no pictures for a video ("),
    ("resume nothing", "nothing does not exist; rlkit list runs"),
    ("watch file", "file is not a run folder (no config.yaml in it)"),
    ("evaluate .", ". is not a run folder (no config.yaml in it)"),
    ("evaluate . --episodes none", "argument --episodes: none: allowed: a whole number of at least 1"),
    ("watch . --video film.avi", "--video film.avi: allowed: a file that ends in .mp4"),
    ("resume", "the following arguments are required: RUN; rlkit resume --help"),
]


def outcome(folder: Path, command: str) -> tuple[int, str]:
    """(exit code, stderr) of one command."""
    return rlkit(folder, *command.split(), errors_only=True)


def refused(folder: Path, command: str) -> str:
    """The one line that a refused command says."""
    code, text = outcome(folder, command)
    assert code in (1, 2), (code, text)
    assert text.startswith("rlkit: ") and text.count("\n") == 1, text
    return text


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run with three checkpoints and best/."""
    folder = tmp_path_factory.mktemp("trained")
    code, output = rlkit(
        folder, "train", "env=cartpole", "env.backend=inprocess", "total_steps=1000", "checkpoint.every=250",
        "checkpoint.keep=3", "evaluate.episodes=1", "evaluate.every=500", "name=r", "log.tensorboard=false",
    )  # fmt: skip
    assert code == 0, output
    assert len(checkpoint.steps(folder / "runs" / "r" / "checkpoints")) == 3
    return folder / "runs" / "r"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of that run to be damaged, `r` in the current folder, with more steps to go."""
    shutil.copytree(trained, tmp_path / "r")
    config = tmp_path / "r" / "config.yaml"
    config.write_text(config.read_text().replace("total_steps: 1000", "total_steps: 1500"))
    return tmp_path / "r"


def damage(path: Path) -> None:
    """Change one byte in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but the lock."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_what_cannot_be_used_is_refused_in_one_line_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "nowhere").symlink_to("gone")
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "typo.py").write_text("def broken(:\n")
    (tmp_path / "needy.py").write_text("import surely_not_installed\n")
    cases = [*REFUSED]
    if not torch.cuda.is_available():
        cases.append(("train device=cuda", "device=cuda: "))
    for command, words in cases:
        code, text = outcome(tmp_path, command)
        assert code == 2, (command, code, text)
        assert text.startswith("rlkit: ") and text.count("\n") == 1, (command, text)
        assert words in text, (command, text)
    assert not (tmp_path / "runs").exists()


def test_a_missing_package_is_named_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shim = tmp_path / "shim"
    for name in ("ale_py", "mujoco"):
        (shim / name).mkdir(parents=True)
        (shim / name / "__init__.py").write_text(
            f"raise ModuleNotFoundError('No module named {name}', name='{name}')"
        )
    monkeypatch.setenv("PYTHONPATH", str(shim))
    for env, module, extra in (("ALE/Pong-v5", "ale_py", "atari"), ("halfcheetah", "mujoco", "mujoco")):
        line = refused(tmp_path, f"train env={env}")
        assert f'needs the package {module}; type: pip install "rlkit[{extra}]"' in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(not ROOT, reason="only root can mount")
def test_a_read_only_disk(tmp_path: Path, run: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=4m", "none", str(disk))
    try:
        shutil.copytree(run, disk / "r")
        mount("-o", "remount,ro", str(disk))
        assert "disk/new" in refused(tmp_path, "train env=cartpole dir=disk name=new")
        assert "disk/r: cannot write there (Read-only file system)" in refused(tmp_path, "resume disk/r")
        code, text = outcome(tmp_path, "watch disk/r --video film.mp4")
        assert code == 0, text
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def mount(*arguments: str) -> None:
    if subprocess.run(["mount", *arguments], check=False, capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")


def test_a_run_without_checkpoints(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    shutil.rmtree(run / "best")
    assert "no checkpoint in r/checkpoints: the run ended before its first one" in refused(
        run.parent, "resume r"
    )
    assert "r holds no checkpoint" in refused(run.parent, "evaluate r")
    assert "r holds no checkpoint" in refused(run.parent, "watch r")


def test_a_damaged_newest_checkpoint_is_replaced_by_the_one_before(run: Path) -> None:
    (newest, path), (before, _), _ = checkpoint.steps(run / "checkpoints")
    damage(path / "state.safetensors")
    damage(path / "policy.safetensors")
    code, text = outcome(run.parent, "evaluate r --checkpoint last --episodes 2")
    assert code == 0
    assert text.count("\n") == 1
    assert f"r/checkpoints/{path.name}/policy.safetensors is damaged" in text
    assert f"using the checkpoint before it, step-{before:09d}" in text
    (run / "checkpoints" / f"damaged-{path.name}").mkdir()  # set aside by an earlier resume
    code, output = rlkit(run.parent, "resume", "r")
    assert code == 0, output
    assert f"{path.name}/policy.safetensors is damaged" in output
    assert f"resuming from r/checkpoints/step-{before:09d}" in output
    assert read_metrics(run / "metrics.csv")[-1]["step"] >= 1500 > newest
    assert (run / "checkpoints" / f"damaged-{path.name}" / "manifest.json").is_file()


def test_damaged_checkpoints_without_another(run: Path) -> None:
    damage(run / "best" / "policy.json")
    assert "r/best/policy.json is damaged" in refused(run.parent, "evaluate r --checkpoint best")
    code, text = outcome(run.parent, "watch r --video film.mp4")  # the newest one stands in for best
    assert code == 0
    assert "r/best/policy.json is damaged" in text and "using the checkpoint before it" in text
    for _, path in checkpoint.steps(run / "checkpoints"):
        (path / "manifest.json").write_text("{")
    before = contents(run)
    for command, tried in (("evaluate r", 4), ("resume r", 3)):
        code, text = outcome(run.parent, command)
        last = text.splitlines()[-1]
        assert code == 1
        assert last.startswith("rlkit: no checkpoint in r") and f"is whole ({tried} tried)" in last
        assert "Traceback" not in text
    assert contents(run) == before


def test_a_checkpoint_of_a_later_version(run: Path) -> None:
    _, newest = checkpoint.steps(run / "checkpoints")[0]
    manifest = newest / "manifest.json"
    manifest.write_text(json.dumps(checkpoint.sealed(json.loads(manifest.read_text()) | {"format": 3})))
    before = contents(run)
    for command in ("resume r", "evaluate r --checkpoint last"):
        line = refused(run.parent, command)
        assert "has format 3, newer than format 2 that this rlkit reads; upgrade it" in line
    assert contents(run) == before


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("agent:", "\x00\x01", "r/config.yaml: not a YAML file"),
        ("seed: 0", "sede: 0", "r/config.yaml: sede=0: no such option; did you mean seed?"),
        ("agent:", "x: !!python/object/apply:os.mkdir [hacked]\nagent:", "r/config.yaml: not a YAML file"),
        ("hidden:\n  - 64\n", "hidden:\n  - 32\n", "r/config.yaml describes another network or environment"),
    ],
    ids=["binary", "unknown-key", "hostile", "changed"],
)
def test_a_damaged_configuration(run: Path, old: str, new: str, words: str) -> None:
    config = run / "config.yaml"
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new, 1))
    before = contents(run)
    assert words in refused(run.parent, "resume r")
    assert contents(run) == before
    assert not (run.parent / "hacked").exists()


@pytest.mark.parametrize(
    ("fault", "backend"), [("raise", "inprocess"), ("raise", "workers"), ("bad", "inprocess")]
)
def test_an_environment_that_fails_in_training(tmp_path: Path, fault: str, backend: str) -> None:
    """Every lane fails in step 7 of its episode 8, which is step 167 of each; repaired, the run goes on."""
    (tmp_path / "own.py").write_text(OWN)
    line = refused(
        tmp_path,
        f"train env=own:Line env.kwargs.fault={fault} env.backend={backend} env.lanes=2 env.workers=2 name=r "
        "agent.steps=32 total_steps=600 checkpoint.every=1000000 evaluate.every=1000000 evaluate.episodes=1",
    )
    assert "environment own:Line, lane " in line and ", episode 8 (seed " in line and ", step 7: " in line
    if fault == "raise":
        assert "OSError('sensor unplugged') (" in line and f"{tmp_path}/own.py:19;" in line
    else:
        assert "obs: entry [1] is nan" in line
    assert "the run is saved: rlkit resume runs/r continues from step " in line
    (tmp_path / "own.py").write_text(OWN.replace("self.episodes == 9", "False"))
    code, output = rlkit(tmp_path, "resume", "runs/r")
    assert code == 0, output
    assert read_metrics(tmp_path / "runs" / "r" / "metrics.csv")[-1]["step"] >= 600


def test_a_run_that_diverges_ends_with_the_last_weights_that_were_numbers(tmp_path: Path) -> None:
    line = refused(
        tmp_path, "train agent=ppo env=cartpole preset=none optim.lr=1e30 total_steps=50000 name=r threads=1"
    )
    assert "weights are no longer finite" in line and "optim.lr (it was 1e+30)" in line
    _, _, parts = checkpoint.newest(tmp_path / "runs" / "r" / "checkpoints", "policy", say=print)
    assert all(torch.isfinite(x).all() for x in parts["policy"]["weights"].values())


def test_an_environment_that_fails_at_once_leaves_no_run(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN.replace("super().reset(seed=seed)", "raise OSError('no robot')"))
    line = refused(tmp_path, "train env=own:Line")
    assert "environment own:Line, lane 0, episode 0" in line and "OSError('no robot')" in line
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=2m", "none", str(folder))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))


@pytest.mark.skipif(not ROOT, reason="only root can mount")
def test_a_full_disk(tmp_path: Path, disk: Path) -> None:
    """Training ends with a line that says so; when there is space again it goes on."""
    process = launch(
        tmp_path, "train", "env=cartpole", "env.backend=inprocess", "dir=disk", "name=r", "total_steps=8000",
        "checkpoint.every=500", "evaluate.every=1e8", "evaluate.episodes=1",
    )  # fmt: skip
    wait_for(lambda: bool(checkpoint.steps(disk / "r" / "checkpoints")), process)
    fill(disk / "filler")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    line = output.splitlines()[-1]
    assert line.startswith("rlkit: ") and "Traceback" not in output
    assert "disk is full" in line or "disk full" in line
    assert "the run is saved: rlkit resume disk/r continues from step " in line
    code, output = rlkit(tmp_path, "watch", "disk/r", "--checkpoint", "last", "--video", "disk/film.mp4")
    assert code != 0 and not (disk / "film.mp4").exists(), output
    (disk / "filler").unlink()
    code, output = rlkit(tmp_path, "resume", "disk/r")
    assert code == 0, output
    assert read_metrics(disk / "r" / "metrics.csv")[-1]["step"] >= 8000
    assert not list((disk / "r" / "checkpoints").glob(".*"))
