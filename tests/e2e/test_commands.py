"""What a person types, from the first training to an agent in their own loop: real processes, real files.

Every verb is once a new interpreter (fresh=True), so that an import that it lacks is noticed.
"""

from __future__ import annotations

import csv
import os
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import rlkit as package
from rlkit import checkpoint
from rlkit.metrics import read_metrics
from rlkit.options import ConfigError
from rlkit.play.evaluate import evaluate_policy
from rlkit.play.video import VideoWriter
from rlkit.run.folder import run_config
from tests.helpers.processes import all_gone, children
from tests.helpers.runs import launch, rlkit, wait_for

OWN = '''
import gymnasium, numpy as np
from gymnasium import spaces

class Line(gymnasium.Env):
    """Points in a space; each step draws a new one. Reward: the coordinate that the action names."""
    def __init__(self, length=20):
        self.length = length
        self.observation_space = spaces.Box(-1, 1, (3,), np.float32)
        self.action_space = spaces.Discrete(3, start=5)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.draw(), {}
    def draw(self):
        self.x = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return self.x
    def step(self, action):
        assert 5 <= action <= 7
        reward = float(self.x[action - 5])
        self.t += 1
        return self.draw(), reward, False, self.t == self.length, {}

class Pictures(Line):
    """The same point as gray levels; rewards are of the point before, so only a stack of frames knows them."""
    def __init__(self, length=20):
        super().__init__(length)
        self.observation_space = spaces.Box(0, 255, (36, 36), np.uint8)
    def draw(self):
        self.x = getattr(self, "new", np.zeros(3)) if self.t else np.zeros(3)
        self.new = self.np_random.uniform(-1, 1, 3)
        return np.repeat(np.repeat(np.uint8(127 * (1 + self.new)), 12)[:, None], 36, 1)

class Mixed(Line):
    """A point, a mode and a picture."""
    def __init__(self, length=20):
        super().__init__(length)
        self.observation_space = spaces.Dict(
            point=self.observation_space,
            inner=spaces.Dict(mode=spaces.Discrete(4, start=2), flags=spaces.MultiBinary((2, 2))),
            camera=spaces.Box(0, 255, (36, 36, 3), np.uint8),
        )
    def draw(self):
        inner = {"mode": 2 + self.np_random.integers(4), "flags": self.np_random.integers(0, 2, (2, 2), np.int8)}
        camera = self.np_random.integers(0, 256, (36, 36, 3), np.uint8)
        return {"point": super().draw(), "inner": inner, "camera": camera}
'''
SHORT = ["train", "env=cartpole", "env.backend=inprocess", "evaluate.episodes=2"]
LONG = [*SHORT, "total_steps=1e8", "checkpoint.every=1000", "evaluate.every=1e8"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where someone has trained CartPole, run `a`, for a few seconds."""
    folder = tmp_path_factory.mktemp("home")
    code, output = rlkit(
        folder, *SHORT, "total_steps=8000", "seed=1", "name=a", "video.every=4000", "log.tensorboard=false",
        fresh=True,
    )  # fmt: skip
    assert code == 0, output
    (folder / "output").write_text(output)
    return folder


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with environments of the user's own in own.py."""
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own", raising=False)
    return tmp_path


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def set_option(run: Path, old: str, new: str) -> None:
    """Edit a run's config.yaml by hand."""
    path = run / "config.yaml"
    text = path.read_text()
    assert text.count(old) == 1, text
    path.write_text(text.replace(old, new))


def test_training_says_what_it_chose_and_what_to_type_next(home: Path) -> None:
    output, run = (home / "output").read_text(), home / "runs" / "a"
    for words in (
        "preset: ppo-cartpole",
        "device: ",
        "evaluated return: ",
        "rlkit watch runs/a",
        "rlkit evaluate runs/a",
    ):
        assert output.count(words) == 1, output
    assert {path.name for path in run.iterdir()} == {
        ".lock", "best", "checkpoints", "config.yaml", "metrics.csv", "videos",
    }  # fmt: skip
    assert len(list((run / "videos").iterdir())) == 2  # video.every=4000 of 8000 steps, nothing half-written
    assert read_metrics(run / "metrics.csv")[-1]["step"] >= 8000


def test_list_runs(home: Path) -> None:
    code, output = rlkit(home, "list", "runs", fresh=True)
    assert code == 0
    assert [line.split()[0] for line in output.splitlines()] == ["run", "runs/a"]
    assert "CartPole-v1" in output and "complete" in output


def test_evaluate_is_held_out_and_repeatable(home: Path) -> None:
    code, output = rlkit(home, "evaluate", "runs/a", "--episodes", "7", fresh=True)
    assert code == 0, output
    path = home / "runs" / "a" / "eval" / "best-greedy-seed1000000-7.csv"
    assert str(path.relative_to(home)) in output
    first = path.read_text()
    episodes = rows(path)
    assert [int(row["episode"]) for row in episodes] == list(range(7))
    assert all(2**30 <= int(row["seed"]) < 2**31 for row in episodes)  # training's seeds are below 2^30
    assert len({row["seed"] for row in episodes}) == 7
    mean = np.mean([float(row["return"]) for row in episodes])
    assert any(line.split()[:2] == ["mean", f"{mean:.2f}"] for line in output.splitlines()), output
    path.unlink()
    set_option(home / "runs" / "a", "lanes: 8", "lanes: 3")
    try:
        code, output = rlkit(home, "evaluate", "runs/a", "--episodes", "7")
    finally:
        set_option(home / "runs" / "a", "lanes: 3", "lanes: 8")
    assert code == 0, output
    assert path.read_text() == first  # whatever the number of lanes


def test_evaluate_in_another_environment(home: Path) -> None:
    """CartPole-v0 is CartPole cut at 200 steps instead of 500."""
    evaluation = ("evaluate", "runs/a", "--episodes", "4")
    code, output = rlkit(home, *evaluation, "env.time_limit=5")
    assert code == 0, output
    path = home / "runs" / "a" / "eval" / "best-env.time_limit=5-greedy-seed1000000-4.csv"
    assert [float(row["return"]) for row in rows(path)] == [5.0] * 4
    code, output = rlkit(home, "evaluate", "runs/a", "env=CartPole-v0", "env.time_limit=7", "--episodes", "4")
    assert code == 0, output
    assert "4 greedy episodes of CartPole-v0" in output
    assert [line.split() for line in output.splitlines() if line.startswith("highest")] == [
        ["highest", "7.0000"]
    ]
    for command, message in (
        ("env=acrobot", "env=acrobot: its observation space is "),
        (
            "agent.clip=0.1",
            "agent.clip=0.1: the agent is as it was trained; allowed: env=NAME and env.KEY=VALUE",
        ),
        ("env.lane=3", "env.lane=3: no such option; did you mean env.lanes?"),
        ("env.stack=2", "env.stack=2: changes nothing once the agent is trained; allowed: env=NAME"),
        ("env.stuck_after=9", "env.stuck_after=9: changes nothing once the agent is trained"),
    ):
        code, output = rlkit(home, *evaluation, command)
        assert code == 2 and message in output, output


def test_watch_writes_a_film_of_the_episode(home: Path) -> None:
    import imageio_ffmpeg

    film = ["--video", "films/x.mp4", "--seed", "3", "env.time_limit=60"]
    code, output = rlkit(home, "watch", "runs/a", *film, fresh=True)
    assert code == 0, output
    assert "ALSA" not in output
    steps = int(output.partition(" steps")[0].rpartition(" ")[2])
    reader: Any = imageio_ffmpeg.read_frames(str(home / "films" / "x.mp4"))
    size = next(reader)["size"]
    frames = [np.frombuffer(frame, np.uint8) for frame in reader]
    assert size == (600, 400)  # CartPole's own
    assert len(frames) == steps + 1
    moved = [float(np.abs(frame.astype(float) - frames[0]).max()) for frame in frames[1:]]
    assert max(moved) > 100  # the pole moves, black on white
    assert [path.name for path in (home / "films").iterdir()] == ["x.mp4"]


def test_a_film_made_elsewhere_is_named_after_that_place(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    code, output = rlkit(home, "watch", "runs/a", "env.time_limit=5")
    assert code == 0 and "no display here, so a video is written instead" in output, output
    assert (home / "runs" / "a" / "videos" / "watch-best-env.time_limit=5-seed0.mp4").is_file()


def test_a_loaded_policy_plays_cartpole_as_evaluate_says(home: Path) -> None:
    """The loop of the README, in plain Gymnasium, from the same seeds: the same returns."""
    run = home / "runs" / "a"
    config = run_config(run)
    lone = replace(config, env=replace(config.env, lanes=1))
    policy = package.load(run)
    expected = evaluate_policy(policy.policy, lone, 3, seed=5, device=torch.device("cpu"))
    env = gymnasium.make("CartPole-v1")
    for episode in expected:
        assert play(policy, env, episode.seed) == (episode.result, episode.length)
    assert (
        np.mean([episode.result for episode in expected]) > 60
    )  # 8000 steps are enough for that; chance is 22


def play(policy: Any, env: Any, seed: int, remember: bool = True) -> tuple[float, int]:
    """(return, length) of one episode by hand; remember=False gives every observation as an episode's first."""
    obs, _ = env.reset(seed=seed)
    state, total, length, ended = None, 0.0, 0, False
    while not ended:
        action, state = policy(obs, state if remember else None)
        obs, reward, terminated, truncated, _ = env.step(action)
        total, length, ended = total + float(reward), length + 1, terminated or truncated
    return total, length


@pytest.mark.parametrize(
    ("name", "options"),
    [("Pictures", {"env.stack": 3, "network": "cnn"}), ("Mixed", {})],
    ids=["stacked-pixels", "dict"],
)
def test_a_loaded_policy_acts_as_in_training(workplace: Path, name: str, options: dict[str, Any]) -> None:
    run = package.train(
        "ppo", f"own:{name}", total_steps=1000, preset="none", dir=str(workplace / "runs"), **options, threads=1,
        **{"env.lanes": 8, "agent.steps": 64, "evaluate.episodes": 1, "precision": "float32", "optim.lr": 1e-3},
    )  # fmt: skip
    config = run_config(run)
    lone = replace(config, env=replace(config.env, lanes=1))
    policy = package.load(run, "last")
    expected = evaluate_policy(policy.policy, lone, 3, seed=5, device=torch.device("cpu"))
    env = getattr(__import__("own"), name)()
    for episode in expected:
        total, length = play(policy, env, episode.seed)
        assert length == episode.length
        assert total == pytest.approx(episode.result, abs=1e-5)  # rows hold rewards as float32
    if policy.spec.stack > 1:
        assert play(policy, env, expected[0].seed, remember=False)[0] != pytest.approx(
            expected[0].result, abs=1e-3
        )
    other = np.zeros((5, 5), np.uint8)
    with pytest.raises(ValueError, match=r"has shape \(5, 5\); this policy reads shape \(36, 36"):
        policy({"point": np.zeros(3), "inner": {"mode": 2, "flags": np.zeros((2, 2), np.int8)}, "camera": other}
               if name == "Mixed" else other)  # fmt: skip


def test_an_environment_of_ones_own(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Typing it is consent, remembered here; on another machine (another state folder) it must be given again."""
    small = [
        "agent.steps=64",
        "evaluate.episodes=2",
        "agent.minibatch=100000",
    ]  # a batch larger than a rollout
    code, output = rlkit(workplace, "train", "env=own:Line", "total_steps=1000", "name=mine", *small)
    assert code == 0, output
    run = workplace / "runs" / "mine"
    code, output = rlkit(workplace, "resume", "runs/mine")
    assert code == 0 and "is complete" in output
    set_option(run, "total_steps: 1000", "total_steps: 2000")  # as that message advises
    code, output = rlkit(workplace, "resume", "runs/mine")
    assert code == 0, output
    assert "resuming from" in output
    assert read_metrics(run / "metrics.csv")[-1]["step"] >= 2000
    monkeypatch.setenv("XDG_STATE_HOME", str(workplace / "elsewhere"))
    shutil.copytree(run, workplace / "copied")
    for verb in ("resume", "evaluate", "watch"):
        code, output = rlkit(workplace, verb, "copied")
        assert code == 2, output
        assert output.endswith("add --trust own:Line\n"), output
    code, output = rlkit(workplace, "evaluate", "copied", "--trust", "own:Line", "--episodes", "2")
    assert code == 0, output


def test_functions_of_rlkit_are_no_environments(workplace: Path) -> None:
    """A run folder must not reach code through rlkit.run.session.train(env="other:Code") either."""
    code, output = rlkit(
        workplace, "train", "env=own:Line", "total_steps=100", "name=mine", "evaluate.episodes=1"
    )
    assert code == 0, output
    set_option(workplace / "runs" / "mine", "id: own:Line", "id: rlkit.run.session:train")
    (workplace / "evil.py").write_text("open('touched', 'w')")
    set_option(workplace / "runs" / "mine", "kwargs: {}", "kwargs: {env: 'evil:X'}")
    code, output = rlkit(workplace, "evaluate", "runs/mine")
    assert code == 2 and "--trust rlkit.run.session:train" in output
    assert not (workplace / "touched").exists()


def test_stop_reward_and_stop_minutes(tmp_path: Path) -> None:
    code, output = rlkit(
        tmp_path, *SHORT, "total_steps=1e8", "stop.reward=30", "evaluate.every=1e8", "name=good"
    )
    assert code == 0, output
    metrics = read_metrics(tmp_path / "runs" / "good" / "metrics.csv")
    assert metrics[-1]["return/mean"] >= 30 and metrics[-1]["episodes"] >= 100
    code, output = rlkit(tmp_path, "resume", "runs/good")
    assert code == 0 and "reached stop.reward=30" in output
    code, output = rlkit(
        tmp_path, *SHORT, "total_steps=1e8", "stop.minutes=0.01", "evaluate.every=1e8", "name=over"
    )
    assert code == 0, output
    _, _, parts = checkpoint.newest(tmp_path / "runs" / "over" / "checkpoints", "state", say=print)
    assert parts["state"]["clock"]["stop_reason"] == "stop.minutes=0.01 are over"
    assert parts["state"]["clock"]["seconds"] >= 0.6
    code, output = rlkit(tmp_path, "list", "runs")
    assert output.count("complete") == 2, output


def test_source_thread_is_one_update_behind(tmp_path: Path) -> None:
    code, output = rlkit(tmp_path, *SHORT, "total_steps=1500", "source=thread", "name=t")
    assert code == 0, output
    _, _, parts = checkpoint.newest(tmp_path / "runs" / "t" / "checkpoints", "state", say=print)
    source = parts["state"]["feed"]["source"]
    assert source["version"] == parts["state"]["clock"]["update"] > 3
    assert source["version"] - source["acting"] == 1


def test_names(tmp_path: Path) -> None:
    """A name that nobody typed is made unique; one that was typed is not taken twice."""
    tiny = [*SHORT, "total_steps=100", "evaluate.episodes=1"]
    for expected in ("ppo-cartpole-0", "ppo-cartpole-0-2"):
        code, output = rlkit(tmp_path, *tiny)
        assert code == 0, output
        assert f"rlkit watch runs/{expected}\n" in output
    before = (tmp_path / "runs" / "ppo-cartpole-0" / "metrics.csv").read_bytes()
    code, output = rlkit(tmp_path, *tiny, "name=ppo-cartpole-0")
    assert code == 2
    assert "rlkit resume runs/ppo-cartpole-0" in output
    assert (tmp_path / "runs" / "ppo-cartpole-0" / "metrics.csv").read_bytes() == before


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="children are found in /proc")
@pytest.mark.parametrize(
    "signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=["ctrl-c", "term", "kill"]
)
def test_workers_end_with_their_run(tmp_path: Path, signum: signal.Signals) -> None:
    """env.backend=workers runs them; however the run ends, none is left. Ctrl-C saves first, within 5 s."""
    process = launch(tmp_path, *LONG, "env.backend=workers", "env.workers=2", "name=w")
    run = tmp_path / "runs" / "w"
    wait_for(lambda: bool(checkpoint.steps(run / "checkpoints")), process)
    workers = children(process.pid)
    assert len(workers) == 2
    code, output = rlkit(tmp_path, "resume", "runs/w")
    assert code == 2 and "in use by another process" in output
    code, output = rlkit(tmp_path, "list", "runs")
    assert "running" in output
    begin = time.monotonic()
    os.kill(process.pid, signum)
    output, _ = process.communicate(timeout=30)
    seconds = time.monotonic() - begin
    assert all_gone(workers, 10.0)
    step, _, _ = checkpoint.newest(run / "checkpoints", "policy", "state", say=print)
    logged = read_metrics(run / "metrics.csv")[-1]["step"]
    if signum == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 128 + signum, output
        assert "saved. Continue with: rlkit resume runs/w" in output
        assert step >= logged  # saved at the end, not only every 1000 steps
        assert seconds < 5


def test_train_from_python_refuses_like_the_command_line() -> None:
    with pytest.raises(ConfigError, match=r"agent\.clip=-1: too small; allowed: a number above 0"):
        package.train("ppo", "cartpole", **{"agent.clip": -1})


def test_films_of_odd_pictures(tmp_path: Path) -> None:
    """H.264 wants even sizes: the last row and column are repeated, the rest stays as it is."""
    import imageio_ffmpeg

    video = VideoWriter(tmp_path / "odd.mp4")
    picture = np.zeros((63, 75, 3), np.uint8)
    picture[:, 40:] = 255
    for _ in range(4):
        video.add(picture)
    assert not (tmp_path / "odd.mp4").exists()  # not before it is complete
    video.close()
    reader: Any = imageio_ffmpeg.read_frames(str(tmp_path / "odd.mp4"))
    assert next(reader)["size"] == (76, 64)
    frames = [np.frombuffer(frame, np.uint8).reshape(64, 76, 3) for frame in reader]
    assert len(frames) == 4
    assert frames[2][:, :36].max() < 30 and frames[2][:, 44:].min() > 225
    assert [path.name for path in tmp_path.iterdir()] == ["odd.mp4"]
