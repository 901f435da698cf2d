"""Tasks: they learn what is there and nothing else, the same each time, and say it again without the data."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rlkit
from rlkit.config import registry
from rlkit.config.compose import compose
from rlkit.config.schema import OptimConfig, TaskRun
from rlkit.files import named
from rlkit.options import ConfigError
from rlkit.perception import run as runs
from rlkit.perception.columns import spec_of
from rlkit.perception.feed import Reader
from rlkit.perception.learner import TaskLearner
from rlkit.perception.model import Model
from rlkit.perception.saved import Scorer, new_model
from rlkit.perception.table import Table, Writer, from_arrays
from rlkit.run.resume import resume
from rlkit.run.start import start
from rlkit.spaces import Box, Discrete
from tests.helpers.runs import digest
from tests.helpers.sights import SIDE, sights

CPU = torch.device("cpu")
DATA = "tests.helpers.sights:sights"
SMALL = [
    "network.encoder=mlp", "network.hidden=[32]", "threads=1", "log.tensorboard=false", "seed=1", "batch=32",
    "precision=float32",
]  # fmt: skip
TASKS = {
    "classify": "task=classify",
    "regress": "task=regress",
    "segment": "task=segment",
    "imitate": "task=imitate agent=ppo",
    "contrast": "task=contrast task.distance=1 task.size=8",
    "contrast-pairs": "task=contrast task.kind=pairs task.distance=1 task.size=8",
    "autoencode": "task=autoencode task.size=8",
    "autoencode-plain": "task=autoencode task.kind=plain task.size=8",
    "autoencode-denoise": "task=autoencode task.kind=denoise task.noise=0.1 task.size=8",
    "semi": "task=semi task.labels=0 task.size=8",
}
GOOD = {  # the score of a batch that was learned by heart
    "classify": 0.99, "regress": -0.02, "segment": 0.95, "imitate": 0.99, "contrast": 0.99,
    "contrast-pairs": 0.95,  # the frame itself is among the others' later ones
    "autoencode": 0.5, "autoencode-plain": -0.01, "autoencode-denoise": -0.01, "semi": 0.99,
}  # fmt: skip


def config(*words: str) -> TaskRun:
    found = compose([f"data={DATA}", *SMALL, *words]).config
    assert isinstance(found, TaskRun)
    return found


def opened(name: str, table: Table, *words: str) -> tuple[Model, Reader]:
    """A new model of a task, and what reads its rows."""
    given = config(*TASKS[name].split(), *words)
    label = registry.task(given.task_name).label(table, given.task)
    spec = spec_of(table, table.columns[label] if label else None, given.stack)
    torch.manual_seed(0)
    model = new_model(spec, given)
    return model, Reader.of(table, model, label, CPU)


def test_every_task_is_asked() -> None:
    assert {name.partition("-")[0] for name in TASKS} == set(registry.tasks())


def learned(model: Model, reader: Reader, index: np.ndarray, updates: int, lr: float = 3e-3) -> None:
    """Learn from the same rows again and again."""
    rows = reader.rows(index)
    model.prepare(rows["obs"], rows.get("label"))
    learner = TaskLearner(model, OptimConfig(lr=lr), precision=torch.float32, compile=False)
    for _ in range(updates):
        if model.noise_size:
            rows["noise"] = torch.rand(len(index), model.noise_size).clamp(1e-6, 1 - 1e-6)
        learner.learn(rows, 0.0)


@pytest.mark.parametrize("name", TASKS)
def test_a_batch_is_learned_by_heart_and_rows_are_on_their_own(name: str) -> None:
    """What the model says of a row depends on no other row."""
    torch.set_num_threads(1)
    table = sights(12)
    model, reader = opened(name, table)
    index = reader.part("training")
    for distance in {0, model.distance}:  # no two alike
        frames = table["image"][index + distance].reshape(len(index), -1)
        index = index[np.unique(frames, axis=0, return_index=True)[1]]
    index = index[:16]
    if name in ("classify", "semi"):
        before = Scorer(model, reader).scores(index).mean()
        assert before < 0.5
    learned(model, reader, index, 200, 1e-2)
    assert Scorer(model, reader).scores(index).mean() > GOOD[name]
    scorer = Scorer(model, reader)
    together = scorer.predictions(index)
    for i, row in enumerate(index[:3]):
        alone = scorer.predictions(np.array([row]))
        for part, array in together.items():
            assert alone[part].dtype == array.dtype
            np.testing.assert_allclose(alone[part][0], array[i], rtol=1e-4, atol=1e-5)
    if not name.startswith("contrast"):  # whose score compares rows
        np.testing.assert_allclose(
            [scorer.scores(np.array([row]))[0] for row in index[:3]],
            scorer.scores(index)[:3], atol=1e-4 if name != "autoencode" else 5.0,
        )  # fmt: skip


def shuffled() -> Table:
    """The same rows with the labels of others: there is nothing to learn."""
    table, generator = sights(300), np.random.default_rng(1)
    order = generator.permutation(table.rows)
    columns = {}
    for name, column in table.columns.items():
        array = table[name]
        columns[name] = (
            array[order] if name.startswith("label.") or name == "action" else array,
            column.space,
        )
    return from_arrays("shuffled", columns)


@pytest.mark.parametrize("name", ["classify", "regress", "imitate", "semi"])
def test_what_cannot_be_learned_is_not(name: str) -> None:
    """Labels of other rows: held-out rows are answered as well as without looking, within three standard errors.

    A model that saw its label, or learned from held-out rows, would be better.
    """
    torch.set_num_threads(1)
    table = shuffled()
    model, reader = opened(name, table)
    index = reader.part("training")
    learned(model, reader, index[:200] if name == "semi" else index, 60)
    held_out = np.concatenate([reader.part("validation"), reader.part("test")])
    score = Scorer(model, reader).scores(held_out)
    if name == "regress":
        assert score.mean() < -0.8
        return
    label = table[reader.label]
    chance = np.bincount(label).max() / len(label)
    assert score.mean() < chance + 3 * np.sqrt(chance * (1 - chance) / len(score))


def test_what_can_be_learned_is() -> None:
    """The other side of the last test: with the true labels the same models are good on rows that they never saw."""
    torch.set_num_threads(1)
    table = sights(120)
    for name, updates, least in (("classify", 80, 0.6), ("regress", 80, -0.2), ("segment", 200, 0.7)):
        model, reader = opened(name, table)
        learned(model, reader, reader.part("training"), updates, 1e-2)
        assert Scorer(model, reader).scores(reader.part("validation")).mean() > least, name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table on disk."""
    path = tmp_path_factory.mktemp("table") / "t"
    table = sights()
    writer = Writer(path, table.columns, table.made)
    writer.append({name: table[name] for name in table.columns})
    writer.close()
    return path


def trained(tmp_path: Path, *words: str) -> Path:
    return start(config("task=classify", f"dir={tmp_path}", "epochs=3", *words))


def test_the_same_seed_gives_the_same_bits_and_another_one_others(tmp_path: Path) -> None:
    one = digest(trained(tmp_path, "name=a", "checkpoint.every=300"))
    two = digest(trained(tmp_path, "name=b", "checkpoint.every=128"))
    other = digest(trained(tmp_path, "name=c", "checkpoint.every=300", "seed=2"))
    assert one == two
    assert one["weights"] != other["weights"] and one["best"] != other["best"]


@pytest.mark.parametrize(
    ("at", "kind"),
    [
        (3, "task=autoencode"),
        (12, "task=autoencode task.kind=denoise"),
        (5, "task=semi task.labels=4 epochs=1"),
    ],
)
def test_a_run_that_was_stopped_in_an_epoch_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, kind: str
) -> None:
    """After any update: an epoch has 11 of them; with augmentation and noise of its own."""
    words = [*kind.split(), "augment.shift=1", "evaluate.every=200", "checkpoint.every=5000"]
    whole = digest(trained(tmp_path, *words, "name=a"))
    real, count = TaskLearner.learn, [0]

    def learn(self: TaskLearner, batch: Any, progress: float) -> Any:
        count[0] += 1
        if count[0] > at:
            raise KeyboardInterrupt
        return real(self, batch, progress)

    with monkeypatch.context() as patch:
        patch.setattr(TaskLearner, "learn", learn)
        with pytest.raises(BaseException):  # noqa: B017, PT011
            trained(tmp_path, *words, "name=b")
    resume(tmp_path / "b")
    assert digest(tmp_path / "b") == whole


def test_what_was_learned_is_there_without_the_data(tmp_path: Path, folder: Path) -> None:
    """best/ of a run whose table is gone says of every row what it said before."""
    shutil.copytree(folder, tmp_path / "t")
    for name in ("classify", "segment", "imitate"):
        words = ["epochs=2", *SMALL, f"dir={tmp_path / 'runs'}", f"name={name}", *TASKS[name].split()]
        start(config(*words, f"data={tmp_path / 't'}"))
    shutil.rmtree(tmp_path / "t")
    table = sights()
    index = table.part("test")[:20]
    for name, label in (("classify", "kind"), ("segment", "mask")):
        saved = rlkit.load(tmp_path / "runs" / name)
        assert saved.path.name == "best" and saved.label == label
        reader = Reader(table, saved.spec, f"label.{label}", CPU)
        said = Scorer(saved.model, reader).predictions(index)["label"]
        for row, wanted in zip(index[:5], said, strict=False):
            frame = table["image"][row]
            for given in (frame, {"image": frame}):
                np.testing.assert_array_equal(saved(given)[label], wanted)
    agent = rlkit.load(tmp_path / "runs" / "imitate")
    action, _ = agent(table["image"][index[0]])
    assert action in (0, 1, 2)
    with pytest.raises(ValueError, match=r"the row has shape \(3,\); this model reads shape \(8, 8\)"):
        rlkit.load(tmp_path / "runs" / "classify")(np.zeros(3))
    with pytest.raises(ValueError, match="this model reads one input, .*; got image, x"):
        rlkit.load(tmp_path / "runs" / "classify")({"image": table["image"][0], "x": 1})


def test_a_run_evaluated_best_what_it_says_on_validation_rows(tmp_path: Path) -> None:
    """The number in best/ is the mean score of best/ on the validation rows."""
    from rlkit import checkpoint

    run = trained(tmp_path, "name=a", "epochs=4")
    score = checkpoint.read(named(run) / "best", "score")["score"]
    saved = rlkit.load(run)
    table = sights()
    found = Scorer(saved.model, Reader(table, saved.spec, "label.kind", CPU)).scores(table.part("validation"))
    assert score["mean"] == pytest.approx(found.mean(), abs=1e-6)


def test_scores_by_hand() -> None:
    table = sights(12)
    model, reader = opened("segment", table)
    mask = torch.zeros(1, 8, 8, dtype=torch.uint8)
    mask[0, :4] = 1  # 32 pixels of class 1, 32 of class 0
    logits = torch.zeros(1, 3, 8, 8)
    logits[0, 1, :2] = 1.0  # said: 16 of class 1, 48 of class 0, so the IoUs are 16 / 32 and 32 / 48
    model.logits = lambda obs: logits  # type: ignore[attr-defined,method-assign]
    score = model.score({"obs": torch.zeros(1, 8, 8, dtype=torch.uint8), "label": mask})
    assert score.tolist() == pytest.approx([(1 / 2 + 2 / 3) / 2])

    model, reader = opened("regress", table)
    rows = reader.rows(reader.part("training"))
    model.prepare(rows["obs"], rows["label"])
    label = rows["label"].numpy()
    torch.testing.assert_close(model.mean, torch.from_numpy(label.mean(0)))  # type: ignore[arg-type]
    said = label + np.array([0.5, -0.25], np.float32) * label.std(0)
    z = torch.from_numpy((said - label.mean(0)) / label.std(0))
    model.outputs = lambda obs: z  # type: ignore[method-assign]
    np.testing.assert_allclose(model.score(rows), -(0.25 + 0.0625) / 2, atol=1e-4)
    np.testing.assert_allclose(model.predict(rows["obs"])["label"], said, atol=1e-5)


def test_summaries_by_hand() -> None:
    table = sights(12)
    label = np.array([[1.0, 0.0], [2.0, 1.0], [3.0, 5.0]], np.float32)
    said = {"label": np.array([[1.0, 2.0], [2.0, 2.0], [4.0, 2.0]], np.float32)}
    found = opened("regress", table)[0].summary(said, label)
    # R2 = 1 - 1 / 2 and 1 - (4 + 1 + 9) / (4 + 1 + 9); RMSE = sqrt(1 / 3) and sqrt(14 / 3)
    assert found == pytest.approx({
        "R2 of number 0": 0.5, "RMSE of number 0": (1 / 3) ** 0.5, "R2 of number 1": 0.0,
        "RMSE of number 1": (14 / 3) ** 0.5,
    }, abs=1e-6)  # fmt: skip
    kinds = {"label": np.array([0, 1, 1, 0]), "probability": np.eye(8)[[0, 1, 1, 0]]}
    found = opened("classify", table)[0].summary(kinds, np.array([0, 1, 0, 0]))
    # class 0: precision 1, recall 2/3; class 1: precision 1/2, recall 1; only these two are there
    assert found["accuracy"] == 0.75
    assert found["F1 (mean over classes)"] == pytest.approx((0.8 + 2 / 3) / 2)
    masks = {"label": np.array([[[0, 1], [1, 1]]], np.uint8)}
    found = opened("segment", table)[0].summary(masks, np.array([[[0, 0], [1, 1]]], np.uint8))
    assert found == pytest.approx({"IoU of class 0": 1 / 2, "IoU of class 1": 2 / 3, "pixels right": 0.75})


def changed(**columns: Any) -> Table:
    """The table with other arrays or spaces."""
    table = sights()
    parts = {name: (table[name], column.space) for name, column in table.columns.items()}
    for name, change in columns.items():
        array, space = parts[name.replace("_", ".")]
        parts[name.replace("_", ".")] = change(array.copy(), space)
    return from_arrays("t", parts)


def gaps(number: float) -> Table:
    """Vectors with a number that is none in row 7, classes and actions."""
    x, kind = np.random.default_rng(0).normal(size=(99, 2)).astype(np.float32), np.arange(99) % 2
    x[7, 1] = number
    kinds = (kind, Discrete(2))
    return from_arrays("t", {"x": (x, Box((2,), "float32")), "label.y": kinds, "action": kinds})


def put(row: int, value: Any) -> Any:
    def change(array: np.ndarray, space: Any) -> Any:
        array[row] = value
        return array, space

    return change


BAD: dict[str, tuple[str, Any, str]] = {
    "kind": ("task=classify", lambda: changed(label_kind=put(7, 8)), "label.kind is 8 in row 7; allowed: 0 to 7"),
    "nan": ("task=regress", lambda: changed(label_vector=put(9, np.nan)), r"is \[nan nan\] in row 9, and 1 rows"),
    "mask": ("task=segment", lambda: changed(label_mask=put(5, 3)), "label.mask is 3 in row 5; allowed: 0 to 2"),
    "action": ("task=imitate agent=ppo", lambda: changed(action=put(4, -1)), "action is -1 in row 4; allowed: 0 to 2"),
    "one": ("task=classify", lambda: changed(label_kind=lambda x, s: (x * 0, s)), "is 0 in all rows: there is nothing"),
    "classes": ("task=classify", lambda: changed(label_kind=lambda x, s: (x, Discrete(10**9))),
                "a model of .* that says Discrete.* takes more than the .* of memory that may be used; type smaller"),
    "many classes": ("task=classify", lambda: changed(label_kind=lambda x, s: (x, Discrete(10**14))), "takes more"),
    "few": ("task=classify", lambda: sights(3), "of .* rows in 3 groups none is for .*; a table needs more groups"),
    "label": ("task=classify task.label=knd", sights, "task.label=knd: .* has no such label; it has mask: "),
    "other": ("task=classify task.label=mask", sights, r"task.label=mask: it is Box.*; this task learns classes"),
    "space": ("task=segment", lambda: changed(label_mask=lambda x, s: (x, None)), "this task learns masks"),
    "small": ("task=classify network.encoder=nature_cnn", sights, "nature_cnn.* 36"),
    "core": ("task=classify network.core=lstm", sights, "network.core=lstm: this task learns from single rows; type"),
    "values": ("task=imitate agent=dqn", sights, "agent=dqn: its policy has no probabilities of actions"),
    "augment": ("task=classify augment.flip=true", lambda: changed(image=lambda x, s: (
        np.zeros((len(x), 2), np.float32), Box((2,), "float32"))), "augment: changes pictures"),
    "mirrored": ("task=regress augment.flip=true augment.mirrored=[99]", sights, r"mirrored=\[99\]: the label has"),
    "episodes": ("task=contrast", lambda: from_arrays("t", {
        "x": (np.zeros((99, 2), np.float32), Box((2,), "float32"))}), r"its rows do not follow each other"),
    "gaps": ("task=classify network.standardize=false", lambda: gaps(np.nan),
             r"x has missing numbers \(NaN\), the first in row 7; type network.standardize=true"),
    "gaps of an agent": ("task=imitate agent=ppo", lambda: gaps(np.nan), "type network.standardize=true"),
    "infinite": ("task=classify", lambda: gaps(np.inf), "x has an infinite number in row 7; what is missing is NaN"),
    "describes": ("task=semi", lambda: changed(image=lambda x, s: (x // 90, Box(
        (SIDE, SIDE), "uint8", 0.0, 3.0, meaning="codes"))),
        "this task learns pictures, and vectors of numbers with stack=1; the table shows"),
    "stack": ("task=classify stack=2", lambda: from_arrays("t", {
        "x": (np.zeros((99, 2), np.float32), Box((2,), "float32")), "y": (np.zeros((99, 2), np.float32), Box(
            (2,), "float32")), "label.z": (np.arange(99) % 2, Discrete(2))}), "stack=2|stacked"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_data_that_do_not_fit_are_one_line(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words, table, says = BAD[case]
    monkeypatch.setattr(runs, "open_data", lambda name: table())
    with pytest.raises(ConfigError, match=says) as found:
        runs.check(config(*words.split()))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["task=classify", "agent=ppo"],
            "agent=ppo task=classify: an agent learns from an environment, a task from",
        ),
        (["task=imitate"], "task=imitate: of which agent. type agent=ppo or another one"),
        (["task=clasify"], "no such task.*did you mean classify"),
        (
            ["task=classify", "env=cartpole"],
            "env=cartpole: a task learns from a table, data=..., and has no such",
        ),
        (["task=classify", "learner.workers=2"], "learner.workers=2: a task learns from a table"),
        (["task=classify", "task.lable=x"], "did you mean .*task.label"),
        (["task=classify", "batch=0"], "batch=0.*at least 1"),
        (["task=classify", "data="], "data: missing; allowed: the folder of a table, digits"),
        (
            ["task=segment", "data=digits"],
            "data=digits: this task learns masks .*; the table has class: Discrete",
        ),
        (["task=classify", "data=digitz"], "data=digitz: no such folder or data set; did you mean digits"),
        (["task=classify", "data=tests.helpers.sights:SIDE"], "data=tests.helpers.sights:SIDE"),
        (["task=classify", "data=tests.helpers.sights:sight"], "tests.helpers.sights"),
    ],
)
def test_what_is_typed_wrong_is_one_line(words: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as found:
        runs.check(config(*words))
    assert "\n" not in str(found.value)
