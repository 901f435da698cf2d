"""Imitation with a memory, and rounds in which the learner acts itself."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rlkit
from rlkit.config import registry, trust
from rlkit.config.compose import compose
from rlkit.config.registry import env_config
from rlkit.config.schema import OptimConfig, TaskRun
from rlkit.options import ConfigError
from rlkit.perception import run as runs
from rlkit.perception.collect import CollectConfig, collect
from rlkit.perception.columns import spec_of
from rlkit.perception.drivers import DriverConfig
from rlkit.perception.feed import Reader, TableFeed
from rlkit.perception.learner import TaskLearner
from rlkit.perception.model import Model
from rlkit.perception.saved import Scorer, new_model
from rlkit.perception.table import Table, Writer, from_arrays, open_table
from rlkit.run.resume import resume
from rlkit.run.start import start, train
from rlkit.spaces import Box, Discrete
from rlkit.types import Lanes
from tests.helpers.runs import digest
from tests.helpers.sights import ID, OPTIONS, Sights, sights

CPU = torch.device("cpu")
SMALL = [
    "task=imitate", "agent=ppo", "network.encoder=mlp", "network.hidden=[32]", "threads=1", "log.tensorboard=false",
    "seed=1", "batch=32", "precision=float32",
]  # fmt: skip


def config(*words: str) -> TaskRun:
    found = compose([*SMALL, *words]).config
    assert isinstance(found, TaskRun)
    return found


def opened(table: Table, *words: str) -> tuple[Model, Reader]:
    given = config("data=x", *words)
    label = registry.task("imitate").label(table, given.task)
    torch.manual_seed(0)
    model = new_model(spec_of(table, table.columns[label], given.stack), given)
    return model, Reader.of(table, model, label, CPU)


ROWS = 3  # of an episode


def recall(episodes: int = 100) -> Table:
    """Episodes of three rows; the first one shows 1 or -1, which says what is to be done in the last one."""
    generator = np.random.default_rng(0)
    sign = generator.integers(2, size=episodes)
    obs = np.zeros((episodes, ROWS, 2), np.float32)
    obs[:, 0, 0] = 2 * sign - 1
    obs[:, :, 1] = np.arange(ROWS) / 2
    action = np.zeros((episodes, ROWS), np.int64)
    action[:, -1] = 1 + sign
    first = np.zeros((episodes, ROWS), bool)
    first[:, 0] = True
    return from_arrays(
        "recall",
        {
            "obs": (obs.reshape(-1, 2), Box((2,), "float32")),
            "action": (action.ravel(), Discrete(3)),
            "first": (first.ravel(), None),
            "group": (np.repeat(np.arange(episodes, dtype=np.uint64), ROWS), None),
        },
    )


@pytest.mark.parametrize("core", ["lstm", "identity"])
def test_what_was_seen_before_is_remembered(core: str) -> None:
    """With a memory the last action is right; without, in half of the episodes. Sequences begin in mid-episode."""
    torch.set_num_threads(1)
    table = recall()
    model, reader = opened(table, f"network.core={core}", "network.core_size=16", "task.length=8")
    training = reader.part("training")
    learner = TaskLearner(model, OptimConfig(lr=1e-2), precision=torch.float32, compile=False)
    feed = TableFeed(reader, training, 60, 0, 0, config("data=x").augment)
    assert reader.length == (1 if core == "identity" else 8) and len(training) % reader.length == 0
    for _ in range(100):
        batch, count = feed.next()
        assert count == len(batch["obs"]) and (core == "identity" or batch["first"].dtype == torch.bool)  # type: ignore[union-attr]
        learner.learn(batch, 0.0)
    held_out = reader.part("validation")
    scores = Scorer(model, reader).scores(held_out)
    # a sequence begins at every eighth row: a last row whose episode began before that cannot be known
    last = held_out % ROWS == ROWS - 1
    asked = last & (np.arange(len(held_out)) % 8 >= ROWS - 1)
    known = scores[asked].mean()
    assert known < 0.8 if core == "identity" else known == 1
    assert scores[~last].mean() == 1


@pytest.mark.parametrize("core", ["lstm", "gru", "transformer"])
def test_a_sequence_is_what_the_policy_sees_step_by_step(core: str) -> None:
    """Actions and log pi of a batch of sequences, against acting row by row; an episode opens with an empty memory."""
    table = recall()
    model, reader = opened(table, f"network.core={core}", "network.core_size=8", "task.length=7")
    index = reader.part("training")[:21]
    batch = reader.rows(index)
    said = Scorer(model, reader).predictions(index)["label"]
    policy, total = model.body, 0.0
    for sequence in index.reshape(3, 7):
        state = policy.initial_state(Lanes(1))  # type: ignore[operator]
        for row in sequence:
            obs, first = (
                torch.from_numpy(table["obs"][row : row + 1]),
                torch.tensor([bool(table["first"][row])]),
            )
            pi, _, _ = policy.evaluate(obs[None], first[None], state)  # type: ignore[operator]
            total -= float(pi.log_prob(torch.tensor([[int(table["action"][row])]])).detach())
            action, state, _ = policy.act(obs, first, state, None)  # type: ignore[operator]
            assert int(action) == said[list(index).index(row)]
    assert float(model.loss(batch)[0].detach()) == pytest.approx(total / 21, abs=1e-5)


def test_rows_that_do_not_follow_each_other_are_nothing_to_remember() -> None:
    table = recall()
    loose = Table("loose", {n: c for n, c in table.columns.items() if n != "first"}, table.data)
    with pytest.raises(
        ConfigError, match="loose: its rows do not follow each other .*type network.core=identity"
    ):
        opened(loose, "network.core=lstm")


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of the expert, all of them in columns 4 and beyond."""
    folder = tmp_path_factory.mktemp("half")
    env = env_config()(id=ID, lanes=3, backend="inprocess")
    given = CollectConfig(env, DriverConfig(name="seeker"), ("expert",), 1500, 5, str(folder / "all"))
    table = collect(given, say=lambda text: None)
    opens = np.flatnonzero(table["first"])
    right = [  # the dot of the frame that opens an episode lies in the first line
        row for start, end in zip(opens, [*opens[1:], table.rows], strict=True)
        for row in range(start, end) if table["image"][start][0].argmax() >= 4
    ]  # fmt: skip
    writer = Writer(folder / "half", table.columns, table.made)
    writer.append({name: table[name][right] for name in table.columns})
    writer.close()
    return folder / "half"


def trained(tmp_path: Path, half: Path, *words: str) -> Path:
    trust.remember(ID)
    return start(config(f"data={half}", f"dir={tmp_path}", "epochs=2", "rounds.frames=300", *words))


def right_on_the_left(run: Path) -> float:
    """The share of states in columns 0 to 3 in which a run's policy steps to the right, as the expert does."""
    agent, found = rlkit.load(run, "last"), []
    for x in range(4):
        for t in range(7):
            env = Sights()
            env.reset(seed=0)
            env.x, env.t = float(x), t
            found.append(agent(env._seen())[0] == 2)
    return float(np.mean(found))


def test_the_learner_is_taught_where_it_leads(tmp_path: Path, half: Path) -> None:
    """The expert's rows never show the left half; the learner comes there, and is told what to do."""
    with_rounds = trained(tmp_path, half, "name=a", "rounds=2", "epochs=8", "optim.lr=5e-3")
    without = trained(tmp_path, half, "name=b", "epochs=16", "optim.lr=5e-3")
    assert right_on_the_left(without) < 0.5 < 0.95 < right_on_the_left(with_rounds)
    for number in (1, 2):
        table = open_table(with_rounds / "rounds" / str(number))
        assert table.rows == 300 and table.labels == ["expert"]
        assert table.made["driver"] == {"name": f"the learner in round {number}"}
        for row in range(50):
            x = int(table["image"][row][:7].argmax() % 8)
            assert table["label.expert"][row] == np.sign(4 - x) + 1
    first, second = (open_table(with_rounds / "rounds" / n) for n in ("1", "2"))
    assert not set(first.groups) & (set(second.groups) | set(open_table(half).groups))
    # the learner acts: after the second round it does what the expert says more often
    agree = [float((each["action"] == each["label.expert"]).mean()) for each in (first, second)]
    assert agree[0] < agree[1]


@pytest.mark.parametrize("at", ["before", "collecting", "after"])
def test_a_run_that_was_stopped_between_rounds_goes_on(
    tmp_path: Path, half: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    words = ["rounds=2", "checkpoint.every=300", "evaluate.every=500"]
    whole = digest(trained(tmp_path, half, *words, "name=a"))
    updates, rows = [0], [0]
    learn, append = TaskLearner.learn, Writer.append

    def learning(self: TaskLearner, batch: Any, progress: float) -> Any:
        updates[0] += 1
        if updates[0] == {"before": 9, "collecting": 10**9, "after": 35}[at]:
            raise KeyboardInterrupt
        return learn(self, batch, progress)

    def appending(self: Writer, *given: Any, **more: Any) -> None:
        rows[0] += 1
        if at == "collecting" and rows[0] == 60:  # in the second round
            raise KeyboardInterrupt
        append(self, *given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(TaskLearner, "learn", learning)
        patch.setattr(Writer, "append", appending)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path, half, *words, "name=b")
    resume(tmp_path / "b")
    assert digest(tmp_path / "b") == whole
    for number in ("1", "2"):
        one, two = (open_table(tmp_path / name / "rounds" / number) for name in "ab")
        assert all(np.array_equal(one[name], two[name]) for name in one.columns)


def test_rounds_that_cannot_be(tmp_path: Path, half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "open_data", lambda name: sights())
    with pytest.raises(
        ConfigError, match="rounds=2: data=x does not say from which environment it is; a table of"
    ):
        runs.check(config("data=x", "rounds=2"))
    table = open_table(half)
    monkeypatch.setattr(runs, "open_data", lambda name: table)
    with pytest.raises(
        ConfigError,
        match=r"rounds=2: new states need answers, and .* has what was done \(action\); collect with labels=\[expert\]",
    ):
        runs.check(config("data=x", "rounds=2", "task.label=action"))
    foreign = Table(table.name, table.columns, table.data, {"env": {"id": "elsewhere.mod:Env"}})
    monkeypatch.setattr(runs, "open_data", lambda name: foreign)
    with pytest.raises(
        ConfigError, match="imports code that was never named on this machine: elsewhere.mod:Env"
    ):
        runs.check(config("data=x", "rounds=2"))


def test_a_round_whose_rows_are_gone_is_missed(tmp_path: Path, half: Path) -> None:
    run = trained(tmp_path, half, "rounds=2", "name=a", "epochs=0.2")
    shutil.rmtree(run / "rounds" / "1")
    path = run / "config.yaml"
    path.write_text(re.sub(r"total_steps: \d+", "total_steps: 9999", path.read_text()))
    with pytest.raises(ConfigError, match="the run has learned from rows that are gone: .*rounds/1"):
        resume(run)


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The run of an agent that sees the true state, and rows of pictures with that as their label."""
    folder = tmp_path_factory.mktemp("driven")
    options = {
        **OPTIONS,
        "env.stack": 1,
        "env.kwargs": {"view": "vector"},
        "total_steps": 512,
        "dir": str(folder),
    }
    agent = train("ppo", ID, name="agent", **options)
    env = env_config()(id=ID, lanes=3, backend="inprocess")
    collect(
        CollectConfig(env, DriverConfig(), ("vector",), 300, 5, str(folder / "rows")), say=lambda text: None
    )
    return agent, folder / "rows"


def estimator(tmp_path: Path, driven: tuple[Path, Path], *words: str) -> TaskRun:
    trust.remember(ID)
    found = compose(
        ["task=regress", f"data={driven[1]}", f"dir={tmp_path}", "rounds=1", "rounds.frames=60", "epochs=2", *SMALL[2:],
         f"rounds.run={driven[0]}", *words]
    ).config  # fmt: skip
    assert isinstance(found, TaskRun)
    return found


def test_an_agent_acts_on_what_an_estimator_says(tmp_path: Path, driven: tuple[Path, Path]) -> None:
    """In a round of an estimator that does not learn: its actions are those of the agent on the estimator's states."""
    run = start(estimator(tmp_path, driven, "name=a", "optim.lr=1e-12"))
    model, agent = rlkit.load(run), rlkit.load(driven[0])
    table = open_table(run / "rounds" / "1")
    for row in range(60):
        said = model(table["image"][row])["vector"]
        assert table["action"][row] == agent(said)[0]
        x, t = int(table["image"][row][:7].argmax() % 8), int(table["image"][row][:7].argmax() // 8)
        true = table["label.vector"][row]
        assert true[0] == x / 4 - 1 and round(10 * true[1]) % 7 == t


def test_a_run_whose_agent_is_gone_goes_on(tmp_path: Path, driven: tuple[Path, Path]) -> None:
    words = ["checkpoint.every=100", "rounds=2"]
    whole = digest(start(estimator(tmp_path, driven, *words, "name=a")))
    agent = shutil.copytree(driven[0], tmp_path / "agent")
    updates, learn = [0], TaskLearner.learn

    def learning(self: TaskLearner, batch: Any, progress: float) -> Any:
        updates[0] += 1
        if updates[0] == 11:
            raise KeyboardInterrupt
        return learn(self, batch, progress)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TaskLearner, "learn", learning)
        with pytest.raises(KeyboardInterrupt):
            start(estimator(tmp_path, (agent, driven[1]), *words, "name=b"))
    shutil.rmtree(agent)
    resume(tmp_path / "b")
    assert digest(tmp_path / "b") == whole


def test_agents_that_cannot_act_on_a_model(tmp_path: Path, driven: tuple[Path, Path]) -> None:
    with pytest.raises(
        ConfigError, match="rounds=1: a model of task=regress does not act; type rounds.run=RUN, an"
    ):
        runs.check(estimator(tmp_path, driven, "rounds.run="))
    other = train("ppo", ID, name="other", **OPTIONS, dir=str(tmp_path))
    with pytest.raises(
        ConfigError, match=r"rounds.run=.*: sees Box\(8, 8\) .*, and the model says Box\(2,\) .*"
    ):
        runs.check(estimator(tmp_path, driven, f"rounds.run={other}"))
    with pytest.raises(ConfigError, match="rounds.run=nothing: nothing does not exist"):
        runs.check(estimator(tmp_path, driven, "rounds.run=nothing"))
