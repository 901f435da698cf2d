"""Eyes: what an agent sees is what the model says of the frames, stacks included, wherever lanes are stepped."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rlkit
from rlkit import checkpoint
from rlkit.cli.main import main
from rlkit.collect.eyes import SEEN, Eyes, see
from rlkit.config.compose import compose
from rlkit.config.registry import algorithm, open_eyes
from rlkit.config.schema import RunConfig
from rlkit.envs.make import make_vec
from rlkit.files import named
from rlkit.play.saved import build_policy
from rlkit.run.build import Built
from rlkit.run.console import Console
from rlkit.run.kinds import kind_of
from rlkit.run.resume import resume
from rlkit.run.start import train
from rlkit.spaces import MASK, Box, Dict, MultiBinary, describe
from rlkit.types import EnvSpec, EnvStep, Lanes
from tests.helpers.runs import digest
from tests.helpers.sights import ID, OPTIONS

TASK: dict[str, Any] = {
    "data": "tests.helpers.sights:sights", "network.encoder": "mlp", "network.hidden": [12], "epochs": 1, "threads": 1,
    "log.tensorboard": False, "precision": "float32",
}  # fmt: skip
SHARED = {key: value for key, value in OPTIONS.items() if not key.startswith("agent.")}
REPLAY = {
    "agent.replay.warmup": 16, "agent.replay.capacity": 64, "agent.replay.batch": 8, "agent.replay.ratio": 0.25,
    "total_steps": 48,
}  # fmt: skip
AGENTS: dict[str, dict[str, Any]] = {
    "ppo": {"agent": "ppo", **OPTIONS},
    "ppo-lstm": {"agent": "ppo", **OPTIONS, "network": "lstm", "network.core_size": 8, "agent.sequence": 8},
    "ppo-thread": {"agent": "ppo", **OPTIONS, "source": "thread"},
    "reinforce": {"agent": "reinforce", **SHARED, "agent.steps": 8, "agent.episodes": 2, "total_steps": 64},
    "dqn": {"agent": "dqn", **SHARED, **REPLAY},
    "ddpg": {"agent": "ddpg", **SHARED, **REPLAY, "env.kwargs": {"continuous": True}},
}  # fmt: skip


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A task that read two frames, one that reads one and says the state, an agent of the state, one of two frames."""
    folder = tmp_path_factory.mktemp("sources")
    where = {"dir": str(folder)}
    state = {**OPTIONS, "env.kwargs": {"view": "vector"}, "env.stack": 1}
    return {
        "seg": train(task="segment", name="seg", stack=2, **TASK, **where),
        "reg": train(task="regress", name="reg", **TASK, **where),
        "ppo": train("ppo", ID, name="ppo", **OPTIONS, **where),
        "vector": train("ppo", ID, name="vector", **state, **where),
    }  # fmt: skip


def parts_of(run: Path) -> Any:
    return checkpoint.read(named(run) / "best", "policy")["policy"]


def eyes_of(run: Path, gives: str = "features") -> Eyes:
    return open_eyes({"source": parts_of(run), "gives": gives})


def begun(tmp_path: Path, **options: Any) -> tuple[Built, RunConfig, list[str]]:
    """A run before its first update, and what was said."""
    said: list[str] = []
    tmp_path.mkdir(exist_ok=True)
    config = compose(values={"env": ID, **options}).config
    assert isinstance(config, RunConfig)
    plan = kind_of(config).check(config)
    console = Console(1, "x")
    console.say = said.append  # type: ignore[method-assign]
    built = kind_of(plan.config).build(plan, named(tmp_path), console)
    return built, plan.config, [*plan.notes, *said]


def played(run: Path, actions: torch.Tensor, seed: int, stack: int) -> list[torch.Tensor]:
    """What a policy's eyes make of the frames that an environment without eyes shows, by hand: [N, F] of each row."""
    config = compose(values={"env": ID, **SHARED}).config
    assert isinstance(config, RunConfig)
    vector, eyes = make_vec(config.env, seed), eyes_of(run)
    row = vector.restore(np.zeros(2, np.int64), [np.zeros(0)] * 2)
    frames, found = [row.obs.clone()] * stack, []
    for action in [*actions, None]:
        # the first frame of an episode stands for those before it
        new = row.first[:, None, None]
        frames = [torch.where(new, row.obs, each) for each in frames[1:]] + [row.obs.clone()]
        found.append(eyes.look(torch.stack(frames, 1) if stack > 1 else row.obs.clone()))
        if action is not None:
            row = vector.step(action)
    vector.close()
    return found


@pytest.mark.parametrize(("source", "stack"), [("seg", 2), ("reg", 1), ("ppo", 2)])
def test_rollouts_hold_what_eyes_make_of_the_frames(
    tmp_path: Path, sources: dict[str, Path], source: str, stack: int
) -> None:
    """Bit for bit, over the ends and starts of episodes, of a task's model and of an agent's."""
    options = {**OPTIONS, "env.stack": stack, "eyes": str(sources[source]), "agent.steps": 24}
    built, config, said = begun(tmp_path, agent="ppo", **options)
    rollout, _ = built.feed.source.get()  # type: ignore[attr-defined]
    assert rollout.obs.shape == (25, 2, 12) and rollout.obs.dtype == torch.float32 and rollout.first.sum() > 4
    wanted = played(sources[source], built.model.to_env(rollout.action), config.seed, stack)  # type: ignore[operator]
    assert torch.equal(rollout.obs, torch.stack(wanted))
    assert any(line.startswith("eyes: the agent sees Box") and "frozen" in line for line in said)
    built.close()


def test_replay_holds_what_eyes_make_of_the_frames(tmp_path: Path, sources: dict[str, Path]) -> None:
    options = {
        **AGENTS["dqn"],
        "eyes": str(sources["seg"]),
        "agent.replay.warmup": 24,
        "agent.replay.n_step": 1,
    }
    built, config, _ = begun(tmp_path, **options)
    for _ in range(8):  # fewer rows than the ring holds
        replay, _ = built.feed.next()
    count = min(replay.written, 30)
    seen, actions = (torch.from_numpy(replay.ring.fields[name][:count]) for name in ("obs/", "action"))
    wanted = torch.stack(played(sources["seg"], actions[:-1], config.seed, 2))
    assert count > 20 and seen.shape == (count, 2, 12) and torch.equal(seen, wanted)
    built.close()


@pytest.mark.parametrize("agent", AGENTS)
def test_every_agent_learns_through_eyes_that_do_not(
    tmp_path: Path, sources: dict[str, Path], agent: str
) -> None:
    """Two updates and more; the eyes' weights are those of their source, and neither policy nor optimiser has them."""
    options = {**AGENTS[agent], "eyes": str(sources["seg"])}
    built, _, _ = begun(tmp_path / "x", **options)
    eyes = built.model.eyes
    held = {id(x) for x in built.model.parameters()}
    assert not any("eyes" in name for name in built.model.state_dict())
    own = [x for module in (eyes.look.__closure__ or ()) if isinstance(module.cell_contents, torch.nn.Module)
           for x in module.cell_contents.parameters()]  # fmt: skip
    assert own and not any(id(x) in held or x.requires_grad for x in own)
    built.close()
    run = train(name="run", dir=str(tmp_path), **{"env": ID, **options})
    _, _, parts = checkpoint.newest(named(run) / "checkpoints", "policy", "state", say=print)
    begin = parts_of(sources["seg"])
    assert parts["policy"]["eyes"]["gives"] == "features"
    for name, value in parts["policy"]["eyes"]["source"]["weights"].items():
        assert torch.equal(value, begin["weights"][name])
    assert parts["state"]["clock"]["update"] >= 2
    start = begun(tmp_path / "y", **options)[0]
    start.close()
    untrained = start.model.state_dict()
    assert any(not torch.equal(value, untrained[name]) for name, value in parts["policy"]["weights"].items())


CASES = {
    "ppo": {**AGENTS["ppo"], "total_steps": 64},
    "dqn": {**AGENTS["dqn"], "total_steps": 64},
    "ppo-thread": {**AGENTS["ppo-thread"], "total_steps": 64},
    "snapshot": {
        **AGENTS["ppo"], "env": "rlkit/Maze", "env.kwargs": {"size": 5, "view": "picture"}, "env.backend": "auto",
        "total_steps": 64,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def maze(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An agent that saw two frames of pictures of mazes, whose environments are saved, not replayed."""
    options = {
        key: value for key, value in CASES["snapshot"].items() if key not in ("agent", "env", "total_steps")
    }
    return train(
        "ppo", "rlkit/Maze", name="maze", dir=str(tmp_path_factory.mktemp("maze")), total_steps=16, **options
    )


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_is_continued_is_the_same(
    tmp_path: Path, sources: dict[str, Path], maze: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The eyes' frames are part of the state: in the middle of an episode, and the source is gone."""
    shutil.copytree(maze if case == "snapshot" else sources["seg"], tmp_path / "source")
    options = {"env": ID, **CASES[case], "eyes": str(tmp_path / "source"), "dir": str(tmp_path)}
    options |= {"checkpoint.every": 10_000, "evaluate.every": 40, "log.every": 1}
    whole = train(name="whole", **options)
    agent = algorithm(CASES[case]["agent"]).Agent
    learned, count = agent.learn, [0]

    def dying(self: Any, batch: Any, progress: float) -> Any:
        count[0] += 1
        if count[0] > 2:
            raise KeyboardInterrupt
        return learned(self, batch, progress)

    with monkeypatch.context() as patch:
        patch.setattr(agent, "learn", dying)
        with pytest.raises(BaseException):  # noqa: B017, PT011
            train(name="cut", **options)
    shutil.rmtree(tmp_path / "source")
    said: list[str] = []
    monkeypatch.setattr(Console, "say", lambda self, text: said.append(text))
    resume(tmp_path / "cut")
    assert digest(tmp_path / "cut") == digest(whole)
    assert not any("warning" in line for line in said), said


def test_without_its_source_an_agent_is_played(tmp_path: Path, sources: dict[str, Path]) -> None:
    """evaluate, a film, and one observation after the other, which see what training saw."""
    shutil.copytree(sources["seg"], tmp_path / "source")
    run = train("ppo", ID, name="run", dir=str(tmp_path), **{**OPTIONS, "eyes": str(tmp_path / "source")})
    shutil.rmtree(tmp_path / "source")
    assert main(["evaluate", str(run), "episodes=3"]) == 0
    assert main(["watch", str(run), "episodes=1", "--video", str(tmp_path / "film.mp4")]) == 0
    assert (tmp_path / "film.mp4").stat().st_size > 500
    agent = rlkit.load(run)
    assert describe(agent.spec.observation) == describe(Box((8, 8), "uint8", 0.0, 255.0))
    policy, eyes = build_policy(parts_of(run)), eyes_of(sources["seg"])
    generator, state, frames = np.random.default_rng(0), None, list[Any]()
    memory = policy.initial_state(Lanes(1))
    for t in range(5):
        frame = generator.integers(0, 255, (8, 8), dtype=np.uint8)
        action, state = agent(frame, state)
        frames = [*(frames or [frame]), frame][-2:]
        stacked = torch.from_numpy(np.stack(frames))[None]
        with torch.no_grad():
            wanted, memory, _ = policy.act(eyes.look(stacked), torch.tensor([t == 0]), memory, None)
        assert action == policy.to_env(wanted)[0]
    with pytest.raises(ValueError, match=r"observation has shape \(3,\); this policy reads shape \(8, 8\)"):
        agent(np.zeros(3))


def test_an_agent_of_the_state_acts_through_an_estimator(
    sources: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """`rlkit evaluate RUN env=NAME eyes=ESTIMATOR`; an estimator of something else is refused in one line."""
    words = ["evaluate", str(sources["vector"]), f"env={ID}", "env.kwargs.view=picture", "episodes=2"]
    assert main([*words, f"eyes={sources['reg']}"]) == 0
    assert "2 greedy episodes" in capsys.readouterr().out
    for source, says in (
        ("seg", "its model says Box"),
        ("ppo", "eyes.gives=prediction: of the run of a task alone"),
    ):
        assert main([*words, f"eyes={sources[source]}"]) == 2
        line = capsys.readouterr().err.strip()
        assert says in line and "\n" not in line, line


def test_predictions_are_seen_too(tmp_path: Path, sources: dict[str, Path]) -> None:
    """The state that a model says, with the bounds of its label."""
    built, _, said = begun(
        tmp_path,
        agent="ppo",
        **{**OPTIONS, "env.stack": 1, "eyes": str(sources["reg"]), "eyes.gives": "prediction"},
    )
    rollout, _ = built.feed.source.get()  # type: ignore[attr-defined]
    assert rollout.obs.shape == (9, 2, 2) and any(
        "the agent sees Box(2,) of float32 in [-1, 1]" in line for line in said
    ), said
    built.close()


class Shown:
    """A vector of one frame per step."""

    exact, fps, picture_rate, lanes, device = "replay", 1.0, 1.0, 4, torch.device("cpu")
    spec = EnvSpec("t", Dict((("image", Box((2,), "float32")), (MASK, MultiBinary(3)))), Box((1,), "float32"))

    def step(self, action: Any) -> EnvStep:
        flags = torch.zeros(4, dtype=torch.bool)
        obs = {"image": torch.arange(8.0).view(4, 2), MASK: torch.ones(4, 3, dtype=torch.int8)}
        return EnvStep(obs, torch.zeros(4), ~flags, flags, flags)


def test_masks_stand_beside_what_is_seen_and_groups_are_seen_on_their_own() -> None:
    sizes: list[int] = []

    def look(obs: Any) -> torch.Tensor:
        sizes.append(len(obs))
        return obs.sum(1, keepdim=True)

    eyes = Eyes(look, EnvSpec("t", Box((2,), "float32"), Box((1,), "float32")), Box((1,), "float32"), {})
    policy: Any = type("P", (), {"eyes": eyes})
    for group, wanted in ((0, [4]), (2, [2, 2]), (1, [1] * 4)):
        sizes.clear()
        env = see(Shown(), policy, group)  # type: ignore[arg-type]
        assert describe(env.spec.observation).startswith(f"Dict({SEEN}: Box") and env.spec.stack == 1
        row = env.step(None)  # type: ignore[arg-type]
        assert sizes == wanted and row.obs[SEEN][:, 0].tolist() == [1.0, 5.0, 9.0, 13.0]
        assert row.obs[MASK].shape == (4, 3)


def test_labels_beside_an_observation_are_not_asked_for_again(tmp_path: Path) -> None:
    """An agent trained with env.labels reads what it read; its network is the one of a run without labels."""
    options = {**OPTIONS, "env.stack": 1, "env.labels": ["mask", "vector"]}
    run = train("ppo", ID, name="run", dir=str(tmp_path), **options)
    agent = rlkit.load(run)
    frame = np.full((8, 8), 9, np.uint8)
    assert agent({"image": frame})[0] in (0, 1, 2)
    with pytest.raises(ValueError, match="has no 'image'; this policy reads a Dict.image: Box"):
        agent({"picture": frame})
    vector = {**options, "env.kwargs": {"view": "vector"}}
    counts = []
    for labels in (["mask"], []):
        built = begun(tmp_path / str(len(labels)), agent="ppo", **{**vector, "env.labels": labels})[0]
        counts.append(sum(x.numel() for x in built.model.parameters()))
        built.close()
    assert counts[0] == counts[1]  # a mask beside numbers makes no pictures of them


def test_an_encoder_of_images_gives_way_where_numbers_are_seen(
    tmp_path: Path, sources: dict[str, Path]
) -> None:
    """As the presets of environments that show pictures choose one."""
    options = {**AGENTS["ppo"], "network.encoder": "small_cnn"}
    built, config, said = begun(tmp_path, env=ID, eyes=str(sources["seg"]), **options)
    built.close()
    assert config.network.encoder == "auto"
    assert any("network.encoder: auto, because encoder small_cnn reads images" in line for line in said)
