"""Numbers about all held-out rows together: what was predicted beside what is true.

Classes are whole numbers from 0 on; of class c, over all entries,

    TP_c = entries of c that were found to be c,    FP_c = others that were,    FN_c = entries of c that were not

A class that neither is nor was found is NaN, and no part of a mean.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.generic]


def accuracy(label: Labels, found: Labels) -> float:
    """The share of entries that are right."""
    _same(label, found)
    return float(np.mean(label == found))


def f1_per_class(label: Labels, found: Labels, classes: int = 0) -> Floats:
    """2 TP_c / (2 TP_c + FP_c + FN_c), [classes]; by default as many as the largest number says."""
    both, true, said = _counts(label, found, classes)
    return _ratio(2 * both, true + said)


def f1(label: Labels, found: Labels) -> float:
    """The mean of `f1_per_class` (macro F1)."""
    return float(np.nanmean(f1_per_class(label, found)))


def iou(label: Labels, found: Labels, classes: int = 0) -> Floats:
    """Intersection over union, TP_c / (TP_c + FP_c + FN_c), [classes]; of masks over the pixels of all rows."""
    both, true, said = _counts(label, found, classes)
    return _ratio(both, true + said - both)


def mean_iou(label: Labels, found: Labels) -> float:
    """The mean of `iou` over classes."""
    return float(np.nanmean(iou(label, found)))


def auroc(label: Labels, score: npt.NDArray[np.floating]) -> float:
    """The area under the ROC curve: the chance that a row of the class has a larger score than another row.

        AUROC = (R - n (n + 1) / 2) / (n m)

    with n rows of the class, m others, and R the sum of the ranks 1, 2, ... of the n scores among all; equal scores
    share the mean of their ranks. score [rows] is that of class 1 against class 0; [rows, classes] gives the mean over
    every class against the rest, without those that no row or every row is of. NaN where none is left.
    """
    if score.ndim == 2 and score.shape[1] == 2:
        score = score[:, 1]
    if label.shape != score.shape[:1]:
        raise ValueError(f"labels {label.shape} and scores {score.shape} are not of the same rows")
    if score.ndim == 1:
        return _auroc(label == 1, score)
    each = np.array([_auroc(label == c, score[:, c]) for c in range(score.shape[1])])
    return float(each[~np.isnan(each)].mean()) if not np.isnan(each).all() else float("nan")


def r2(label: Labels, found: Labels) -> float:
    """The share of the variance that is explained, 1 - sum (y - f)^2 / sum (y - mean y)^2.

    Labels that are all the same have 1 where all is right, else 0; a single row has NaN. Of [rows, D] the mean over D.
    """
    y, f = _columns(label, found)
    if len(y) < 2:
        return float("nan")
    left, there = ((y - f) ** 2).sum(0), ((y - y.mean(0)) ** 2).sum(0)
    constant = there == 0
    explained = 1 - left / np.where(constant, 1, there)
    return float(np.where(constant, left == 0, explained).mean())


def rmse(label: Labels, found: Labels) -> float:
    """The root of the mean squared error, in the label's unit; of [rows, D] the mean over D."""
    y, f = _columns(label, found)
    return float(np.sqrt(((y - f) ** 2).mean(0)).mean())


def _counts(label: Labels, found: Labels, classes: int) -> tuple[Floats, Floats, Floats]:
    """TP_c, TP_c + FN_c and TP_c + FP_c, each [classes]."""
    _same(label, found)
    true, said = (np.asarray(x).ravel().astype(np.int64) for x in (label, found))
    if min(true.min(), said.min()) < 0:
        raise ValueError("classes are whole numbers from 0 on; got a negative one")
    classes = classes or int(max(true.max(), said.max())) + 1
    both, true, said = (np.bincount(x, minlength=classes) for x in (true[true == said], true, said))
    if len(true) > classes or len(said) > classes:
        raise ValueError(f"there are {classes} classes; got class {max(len(true), len(said)) - 1}")
    return both.astype(np.float64), true.astype(np.float64), said.astype(np.float64)


def _ratio(part: Floats, whole: Floats) -> Floats:
    """part / whole, NaN where the whole is 0."""
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _auroc(of_class: npt.NDArray[np.bool_], score: npt.NDArray[np.floating]) -> float:
    """AUROC of the rows `of_class` against the others, NaN where there are none of either."""
    n = int(of_class.sum())
    m = len(of_class) - n
    if not n or not m:
        return float("nan")
    _, place, times = np.unique(score, return_inverse=True, return_counts=True)
    rank = np.cumsum(times) - (times - 1) / 2  # of each different score
    return float((rank[place][of_class].sum() - n * (n + 1) / 2) / (n * m))


def _columns(label: Labels, found: Labels) -> tuple[Floats, Floats]:
    """Both as float64 [rows, D]."""
    _same(label, found)
    y, f = (np.asarray(x, dtype=np.float64).reshape(len(x), -1) for x in (label, found))
    return y, f


def _same(label: Labels, found: Labels) -> None:
    """Raises ValueError where they are not of one shape, or empty."""
    if label.shape != found.shape or not label.size:
        raise ValueError(
            f"labels {label.shape} and predictions {found.shape} are not of the same rows, at least one"
        )
