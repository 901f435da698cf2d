"""Metrics: equal to scikit-learn's, ties and absent classes included."""

import importlib
import warnings
from typing import Any

import numpy as np
import pytest

from rlkit.perception import metrics


class Sklearn:
    """sklearn.metrics, imported with the first test that asks it: not where tests are collected."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # pytest asks whatever a module holds whether it is a test
            raise AttributeError(name)
        return getattr(importlib.import_module("sklearn.metrics"), name)


sk = Sklearn()

CLOSE = {"rtol": 0, "atol": 1e-9}
CASES = {
    "all classes": (5, [0, 1, 2, 3, 4]),
    "two classes": (2, [0, 1]),
    "class 2 is never there": (5, [0, 1, 3, 4]),
    "one class": (3, [1]),
}


def drawn(classes, there, rows=200, seed=0):
    """Labels of the classes that are there, predictions half right, scores with many ties."""
    rng = np.random.default_rng(seed)
    label = rng.choice(there, rows)
    found = np.where(rng.random(rows) < 0.5, label, rng.choice(there, rows))
    score = rng.dirichlet(np.ones(classes), rows).round(1) + 0.2 * np.eye(classes)[label].round(1)
    return label, found, score


@pytest.mark.parametrize("case", CASES)
def test_classes_are_counted_as_by_scikit_learn(case):
    label, found, _ = drawn(*CASES[case])
    np.testing.assert_allclose(metrics.accuracy(label, found), sk.accuracy_score(label, found), **CLOSE)
    np.testing.assert_allclose(metrics.f1(label, found), sk.f1_score(label, found, average="macro"), **CLOSE)
    mean = sk.jaccard_score(label, found, average="macro")
    np.testing.assert_allclose(metrics.mean_iou(label, found), mean, **CLOSE)
    classes, there = CASES[case]
    for ours, theirs in ((metrics.f1_per_class, sk.f1_score), (metrics.iou, sk.jaccard_score)):
        each = ours(label, found, classes)
        assert each.shape == (classes,) and np.isnan(np.delete(each, there)).all()
        np.testing.assert_allclose(each[there], theirs(label, found, average=None), **CLOSE)


def test_a_class_that_is_only_found_or_only_there_counts_as_0():
    label, found = np.array([0, 0, 1]), np.array([0, 2, 2])
    np.testing.assert_allclose(metrics.f1_per_class(label, found), [2 / 3, 0, 0])
    np.testing.assert_allclose(metrics.iou(label, found, 4), [1 / 2, 0, 0, np.nan])
    assert metrics.f1(label, found) == pytest.approx(sk.f1_score(label, found, average="macro"))


def test_masks_are_counted_by_pixel():
    rng = np.random.default_rng(0)
    label, found = rng.integers(0, 3, (2, 4, 6, 5), dtype=np.uint8)
    expected = sk.jaccard_score(label.ravel(), found.ravel(), average=None)
    np.testing.assert_allclose(metrics.iou(label, found), expected, **CLOSE)


@pytest.mark.parametrize("seed", range(3))
def test_areas_under_the_curve_are_scikit_learns(seed):
    label, _, score = drawn(2, [0, 1], seed=seed)
    assert len(np.unique(score[:, 1])) < 20, "ties"
    expected = sk.roc_auc_score(label, score[:, 1])
    np.testing.assert_allclose(metrics.auroc(label, score[:, 1]), expected, **CLOSE)
    np.testing.assert_allclose(metrics.auroc(label, score), expected, **CLOSE)
    label, _, score = drawn(5, range(5), seed=seed)
    score = score / score.sum(1, keepdims=True)
    expected = sk.roc_auc_score(label, score, multi_class="ovr", average="macro")
    np.testing.assert_allclose(metrics.auroc(label, score), expected, **CLOSE)
    label, _, score = drawn(5, [0, 1, 3, 4], seed=seed)  # class 2 has no curve
    expected = np.mean([sk.roc_auc_score(label == c, score[:, c]) for c in (0, 1, 3, 4)])
    np.testing.assert_allclose(metrics.auroc(label, score), expected, **CLOSE)


def test_areas_by_hand():
    assert metrics.auroc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])) == 0.75  # 3 of 4 pairs
    assert metrics.auroc(np.array([0, 1, 1]), np.array([0.5, 0.5, 0.5])) == 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(metrics.auroc(np.array([1, 1]), np.array([0.1, 0.2])))
        assert np.isnan(metrics.auroc(np.array([1, 1]), np.ones((2, 3))))


def test_numbers_are_compared_as_by_scikit_learn():
    rng = np.random.default_rng(0)
    label = rng.normal(size=(50, 3)) * [1, 100, 0] + [0, 1e4, 7]  # the last one is constant
    for found in (label + rng.normal(size=label.shape), label, rng.normal(size=label.shape)):
        np.testing.assert_allclose(metrics.r2(label, found), sk.r2_score(label, found), rtol=1e-9)
        expected = sk.root_mean_squared_error(label, found)
        np.testing.assert_allclose(metrics.rmse(label, found), expected, **CLOSE)
        for j in range(3):
            expected = sk.r2_score(label[:, j], found[:, j])
            np.testing.assert_allclose(metrics.r2(label[:, j], found[:, j]), expected, rtol=1e-9)
    assert metrics.rmse(np.array([1.0, 2]), np.array([1.0, 5])) == pytest.approx(4.5**0.5)
    assert np.isnan(metrics.r2(np.ones(1), np.ones(1)))


def test_what_cannot_be_compared_is_told():
    two, three = np.zeros(2, int), np.zeros(3, int)
    for compare in (metrics.accuracy, metrics.f1, metrics.iou, metrics.r2, metrics.rmse):
        with pytest.raises(ValueError, match=r"labels \(2,\) and predictions \(3,\)"):
            compare(two, three)
        with pytest.raises(ValueError, match="at least one"):
            compare(two[:0], two[:0])
    with pytest.raises(ValueError, match=r"labels \(2,\) and scores \(3, 4\)"):
        metrics.auroc(two, np.ones((3, 4)))
    with pytest.raises(ValueError, match="there are 2 classes; got class 3"):
        metrics.iou(two, two + 3, 2)
    with pytest.raises(ValueError, match="from 0 on"):
        metrics.f1(two - 1, two)
