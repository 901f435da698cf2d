"""Tasks that need few labels or none, and tables with gaps: closed forms, and numbers no broken one can reach."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rlkit.config import registry
from rlkit.config.schema import OptimConfig
from rlkit.config.tasks import compose
from rlkit.nn.norm import StandardUnits
from rlkit.perception.columns import spec_of
from rlkit.perception.feed import Reader, TableFeed
from rlkit.perception.few import HIDDEN, training_rows, with_few_labels
from rlkit.perception.learner import TaskLearner
from rlkit.perception.model import Model
from rlkit.perception.saved import Scorer, build_model, model_parts, new_model
from rlkit.perception.table import Table, from_arrays
from rlkit.spaces import Box, Discrete
from tests.helpers.sights import sights

CPU = torch.device("cpu")


def opened(table: Table, **options: Any) -> tuple[Model, Reader, Any]:
    """A new model that has seen the training rows, what reads its rows, and its configuration."""
    torch.set_num_threads(1)
    pairs = [(name.replace("_", ".", 1), value) for name, value in options.items()]
    config = compose([*pairs, ("data", table.name), ("network.encoder", "mlp")])
    label = registry.task(config.task_name).label(table, config.task)
    torch.manual_seed(0)
    spec = spec_of(table, table.columns[label] if label else None, 1)
    model = new_model(spec, config)
    reader = Reader(table, spec, label, CPU, model.distance)
    rows = reader.rows(reader.part("training"))
    model.prepare(rows["obs"], rows.get("label"))
    return model, reader, config


def learned(model: Model, reader: Reader, config: Any, updates: int, lr: float = 1e-2) -> float:
    """The mean score of held-out rows after some updates."""
    index = training_rows(reader, model, config.seed)
    feed = TableFeed(reader, index, config.batch, config.seed, model.noise_size, config.augment)
    learner = TaskLearner(
        model, OptimConfig(lr=lr, lr_schedule="cosine"), precision=torch.float32, compile=False
    )
    for update in range(updates):
        learner.learn(feed.next()[0], update / updates)
    held_out = np.concatenate([reader.part("validation"), reader.part("test")])
    return float(Scorer(model, reader).scores(held_out).mean())


def vectors(x: np.ndarray, label: np.ndarray | None = None, name: str = "t") -> Table:
    """A table of vectors, and of classes."""
    columns: dict[str, Any] = {"x": (x.astype(np.float32), Box(x.shape[1:], "float32"))}
    if label is not None:
        columns["label.y"] = (label.astype(np.int64), Discrete(int(label.max()) + 1))
    return from_arrays(name, columns)


# ---------------------------------------------------------------- autoencoders


def test_the_bound_of_a_linear_model_is_the_likelihood() -> None:
    """x = W z + noise with normal z: the best bound is the largest log-likelihood, which eigenvalues l_j give.

        log p(x) = -[ d log 2 pi + sum_(j<=q) log l_j + (d - q) log s^2 + d ] / 2,    s^2 = mean_(j>q) l_j

    mean per row, with the covariance of the rows (Tipping and Bishop, 1999; Lucas et al., 2019, arXiv:1911.02469: the
    bound of a linear variational autoencoder reaches it). To 1%.
    """
    generator, d, q = np.random.default_rng(0), 5, 2
    x = generator.normal(size=(600, q)) @ generator.normal(size=(q, d)) * [1, 2, 30, 1, 1]
    x += 0.6 * x.std(0) * generator.normal(size=x.shape) + 7
    table = vectors(x)
    model, reader, config = opened(table, task="autoencode", task_size=q, network_hidden=[], batch=512)
    learned(model, reader, config, 250, 0.05)
    training = reader.part("training")
    bound = Scorer(model, reader).scores(training).mean() * d
    eigenvalues = np.sort(np.linalg.eigvalsh(np.corrcoef(x[training].T)))[::-1]
    s2 = eigenvalues[q:].mean()
    best = -0.5 * (d * math.log(2 * math.pi) + np.log(eigenvalues[:q]).sum() + (d - q) * math.log(s2) + d)
    assert bound == pytest.approx(best, rel=0.01)


def denoiser(table: Table, noise: float) -> tuple[Model, Tensor, list[Tensor]]:
    """A denoising model, the rows, and what its encoder gets to see."""
    model, reader, _ = opened(table, task="autoencode", task_kind="denoise", task_noise=noise, task_size=4)
    obs, seen = reader.obs(np.arange(table.rows)), []
    encode = model.encode
    model.encode = lambda x: (seen.append(x), encode(torch.zeros_like(x)))[1]  # type: ignore[method-assign]
    assert isinstance(obs, Tensor)
    return model, obs, seen


def uniforms(rows: int, size: int, seed: int = 0) -> Tensor:
    return torch.rand(rows, size, generator=torch.Generator().manual_seed(seed)).clamp(1e-6, 1 - 1e-6)


def test_what_is_disturbed_is_the_input_and_not_what_is_to_be_seen() -> None:
    """With an encoder that is blind, the loss is that of the clean rows, whatever the noise; and it saw the noise."""
    middle = np.full((300, 4, 4), 8, np.uint8)
    pictures = from_arrays("t", {"image": (middle, Box((4, 4), "uint8", 0.0, 16.0))})
    model, obs, seen = denoiser(pictures, 0.1)
    losses = [model.loss({"obs": obs, "noise": uniforms(300, 16, seed)})[0].item() for seed in (0, 1)]
    x, g = model.target(obs), model.decoder(model.outputs(obs))  # type: ignore[attr-defined,operator]
    s = math.log(2 * math.pi) / 2
    clean = (0.5 * (x - g).square().mean() + s).item()
    assert losses == pytest.approx([clean, clean], rel=1e-5)
    assert seen[0].dtype == torch.uint8 and not torch.equal(seen[0], seen[1])
    away = (seen[0].float() - 8) / 16
    assert float(away.std()) == pytest.approx(0.1, rel=0.05) and abs(float(away.mean())) < 0.01
    assert int(seen[1].max()) <= 16
    assert torch.equal(obs, torch.from_numpy(middle))


def test_vectors_are_disturbed_in_standard_units() -> None:
    x = np.random.default_rng(0).normal(size=(1000, 2)) * [100, 0.01]
    x[:5, 0] = np.nan
    model, obs, seen = denoiser(vectors(x), 0.5)
    model.loss({"obs": obs, "noise": uniforms(1000, 2)})
    away = (seen[0] - obs)[5:] / torch.tensor([100, 0.01])
    torch.testing.assert_close(away.std(0), torch.tensor([0.5, 0.5]), rtol=0.08, atol=0)
    assert seen[0][:5, 0].isnan().all(), "what is missing stays missing"
    before = model.score({"obs": obs})
    assert torch.equal(model.score({"obs": obs, "noise": uniforms(1000, 2)}), before), "scored on clean rows"
    assert torch.equal(seen[-1], obs) or torch.equal(seen[-1].nan_to_num(), obs.nan_to_num())


def test_noise_is_removed() -> None:
    """Rows on a line, disturbed off it, are put back: closer to the clean row than what was given."""
    t = np.random.default_rng(0).normal(size=(600, 1))
    model, reader, config = opened(
        vectors(t * [1, 1, 1, 1, -1, -1, -1, -1]), task="autoencode", task_kind="denoise", task_noise=0.5,
        task_size=8, network_hidden=[],
    )  # fmt: skip
    learned(model, reader, config, 250)
    obs = reader.obs(reader.part("test"))
    noisy = obs + 0.5 * torch.randn(obs.shape, generator=torch.Generator().manual_seed(0))  # type: ignore[union-attr,operator]
    back = model.predict(noisy)["picture"]
    given, left = ((each - obs).square().mean().item() for each in (noisy, back))  # type: ignore[operator]
    assert left < 0.3 * given  # 1 / 8 at best


# ---------------------------------------------------------------- tables with gaps


def switches(rows: int = 800) -> Table:
    """The class is whether a number is missing, and, where it is there, nothing else; its value means nothing."""
    generator = np.random.default_rng(0)
    x, y = generator.normal(3, 2, size=(rows, 3)), generator.integers(0, 2, rows)
    x[y == 1, 1] = np.nan
    return vectors(x, y)


def test_gaps_are_told_and_filled_with_the_mean() -> None:
    """Only the mask tells the classes: 0, or the mean, where a number is missing can be one that is there."""
    score = learned(*opened(switches(), task="classify", network_hidden=[8]), 60)
    assert score > 0.99
    model, reader, config = opened(switches(), task="classify", network_hidden=[8])
    for each in model.modules():
        if isinstance(each, StandardUnits):
            each.told.zero_()
    assert learned(model, reader, config, 60) < 0.95
    table = switches()
    filled = vectors(np.nan_to_num(table["x"]), table["label.y"])
    assert learned(*opened(filled, task="classify", network_hidden=[8]), 60) < 0.95


def test_a_model_of_gaps_is_saved_whole() -> None:
    """Means, deviations and which gaps are told travel with the weights; a row with gaps is answered."""
    model, reader, config = opened(switches(), task="classify", network_hidden=[8])
    learned(model, reader, config, 20)
    again = build_model(model_parts(model, config, reader.label))
    obs = reader.obs(np.arange(20))
    torch.testing.assert_close(again.predict(obs), model.predict(obs), rtol=0, atol=0)
    assert not torch.equal(again.predict(obs)["probability"], again.predict(obs.nan_to_num())["probability"])  # type: ignore[union-attr]


# ---------------------------------------------------------------- few labels


def test_labels_that_are_used_are_the_same_rows_each_time() -> None:
    """So many of each class, all for training, the same for every task, others with another seed."""
    table = sights(300)
    few = with_few_labels(table, "label.kind", 3, 5)
    training = table.part("training")
    label, told = table["label.kind"], few["label.kind"]
    known = training[told[training] != HIDDEN]
    assert np.bincount(label[known]).tolist() == [3] * 8
    np.testing.assert_array_equal(told[known], label[known])
    rest = np.setdiff1d(np.arange(table.rows), training)
    np.testing.assert_array_equal(told[rest], label[rest])
    np.testing.assert_array_equal(with_few_labels(table, "label.kind", 3, 5)["label.kind"], told)
    assert (with_few_labels(table, "label.kind", 3, 6)["label.kind"] != told).any()
    more = with_few_labels(table, "label.kind", 4, 5)["label.kind"]
    assert (more[known] == label[known]).all(), "more labels are these and others"
    every = with_few_labels(table, "label.kind", 10**6, 5)["label.kind"]
    np.testing.assert_array_equal(every, label)
    assert not np.shares_memory(told, label)


def test_what_an_epoch_has() -> None:
    """classify: rows with a label alone; semi: all rows, those with a label so often that they are its half."""
    table = sights(300)
    training = table.part("training")
    for task, words in (("classify", {"task_labels": 3}), ("semi", {"task_labels": 3, "task_share": 0.5})):
        model, reader, _ = opened(table, task=task, task_label="kind", **words)
        index = training_rows(reader, model, 0)
        labels = reader.rows(index)["label"]
        if task == "classify":
            assert len(index) == 24 and (labels >= 0).all()  # type: ignore[operator]
            continue
        np.testing.assert_array_equal(np.unique(index), training)
        assert float((labels >= 0).float().mean()) == pytest.approx(0.5, abs=0.02)  # type: ignore[operator,union-attr]
    model, reader, _ = opened(table, task="semi", task_label="kind", task_labels=0)
    np.testing.assert_array_equal(training_rows(reader, model, 0), training)


def test_bounds_by_hand() -> None:
    """L and U of two rows, one with a label, from the definitions in plain Python."""
    x = np.array([[0.5, -1.0], [2.0, np.nan], [1.0, 1.0], [0.0, -1.0]] * 20)
    model, reader, _ = opened(vectors(x, np.arange(80) % 3), task="semi", task_size=1, task_alpha=0.7)
    batch = {"obs": reader.obs(np.array([0, 1])), "label": torch.tensor([2, -1]), "noise": uniforms(2, 1)}
    logits = torch.tensor([[0.1, 0.5, -0.2], [1.0, -1.0, 0.3]])
    model.network.head = lambda name, features: logits  # type: ignore[method-assign]
    loss, _ = model.loss(batch)
    z_x = model.target(batch["obs"])  # type: ignore[operator]
    s = model.log_s.exp().item()  # type: ignore[operator,union-attr]
    log_q = logits.log_softmax(1)
    features, e = model.encode(batch["obs"])["label"], math.sqrt(2) * torch.erfinv(2 * batch["noise"] - 1)
    bounds = np.zeros((2, 3))
    for row in range(2):
        for y in range(3):
            one_hot = torch.eye(3)[y]
            m, log_sd = model.posterior(torch.cat([features[row], one_hot])).tolist()  # type: ignore[operator]
            z = m + math.exp(log_sd) * float(e[row])
            said = model.decoder(torch.cat([one_hot, torch.tensor([z])])).tolist()  # type: ignore[operator]
            for j in range(2 if row == 0 else 1):  # the second number of the second row is missing
                away = float(z_x[row, j]) - said[j]
                bounds[row, y] -= away**2 / (2 * s * s) + math.log(s) + math.log(2 * math.pi) / 2
            bounds[row, y] -= math.log(3) + (m * m + math.exp(2 * log_sd) - 1 - 2 * log_sd) / 2
    q = log_q[1].exp().numpy()
    unlabelled = float((q * bounds[1]).sum() - (q * log_q[1].numpy()).sum())
    expected = -(bounds[0, 2] + unlabelled) / 2 - 0.7 * float(log_q[0, 2])
    assert float(loss.detach()) * 2 == pytest.approx(expected, rel=1e-4)


def clusters() -> Table:
    """Two classes, each a long thin cloud: where one ends, many rows tell and few labels do not."""
    generator = np.random.default_rng(1)
    y = generator.integers(0, 2, 900)
    along = generator.uniform(-4, 4, 900)
    x = np.stack([along, 0.6 * along + 2.5 * (y - 0.5) + 0.25 * generator.normal(size=900)], 1)
    return vectors(x @ np.array([[1, 1, 0, 1], [-1, 1, 1, 0]]), y)


def test_rows_without_labels_help() -> None:
    """Two labels per class: the classes are told apart by the shape of the clouds, which only many rows show."""
    scores: dict[str, list[float]] = {"classify": [], "semi": []}
    for task, found in scores.items():
        options = {"task_size": 2, "task_alpha": 1.0} if task == "semi" else {}
        for seed in (1, 2):
            given = opened(clusters(), task=task, task_labels=2, seed=seed, network_hidden=[32], **options)
            found.append(learned(*given, 100, 0.02))
    assert min(scores["semi"]) > 0.97 and np.mean(scores["classify"]) < 0.87, scores


# ---------------------------------------------------------------- pairs


def test_pairs_by_hand() -> None:
    """Near ones at distances 1 and 1/2, others at the roots of 9.25 and 10; a frame that is its own later one."""
    model, reader, _ = opened(
        sights(12), task="contrast", task_kind="pairs", task_distance=1, task_margin=4, task_size=8
    )
    z, later = torch.tensor([[0.0, 0.0], [3.0, 0.0]]), torch.tensor([[0.0, 1.0], [3.0, 0.5]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "project", lambda obs, later=False: obs)
        batch = {"obs": z, "later": later}
        apart = ((4 - 9.25**0.5) ** 2 + (4 - 10**0.5) ** 2) / 2
        assert model.loss(batch)[0].item() == pytest.approx(((1 + 0.25) / 2 + apart) / 2, rel=1e-5)
        assert model.score(batch).tolist() == [1, 1]
        batch["later"] = torch.tensor([[3.0, 0.0], [3.0, 0.0]])
        assert model.score(batch).tolist() == [0, 0]
    rows = reader.rows(reader.part("training")[:8])
    rows["later"] = rows["obs"].flip(0)  # one network for both: each frame is another's later one
    s = model.similarities(rows)  # type: ignore[operator]
    torch.testing.assert_close(s, s.flip(0, 1).T)
    assert s.flip(1).diagonal().abs().max() < 1e-5
    model.loss(rows)[0].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
