"""Gaps, scales and choices of tables of numbers: the same as scikit-learn's, and saved with the weights."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_wine
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import nn

from rlkit.perception.numbers import Impute, OneHot, Standardise


def table(rows=50, columns=5, seed=0):
    """Numbers of very different scales; columns 1 and 3 have gaps, column 4 is constant."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, columns)) * [1, 1e4, 1e-4, 10, 0] + [0, 1e6, 0, -3, 0.1]
    x[:, [1, 3]] = np.where(rng.random((rows, 2)) < 0.3, np.nan, x[:, [1, 3]])
    return torch.from_numpy(x)


def agree(found, expected):
    """To 1e-6 of the number, which is about what float32 holds."""
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-6)


def test_gaps_are_filled_and_told_as_by_scikit_learn():
    train, test = table(), table(seed=1)
    test[:4, 0] = torch.nan  # a gap in a column that had none is filled and not told
    oracle = SimpleImputer(add_indicator=True).fit(train)
    ours = Impute.of(train)
    assert ours.gaps == (1, 3) and ours.features == 7
    for rows in (train, test):
        agree(ours(rows), oracle.transform(rows))


def test_all_gaps_can_be_told_and_an_empty_column_is_0():
    x = table()
    x[:, 2] = torch.nan
    ours = Impute(5).fit(x)
    assert ours.features == 10
    agree(ours(x)[:, :5], SimpleImputer(keep_empty_features=True).fit_transform(x))
    assert torch.equal(ours(x)[:, 5:], x.isnan().float())


def test_numbers_are_standardised_as_by_scikit_learn():
    train, test = table(), table(seed=1)
    oracle, ours = StandardScaler().fit(train), Standardise.of(train)
    for rows in (train, test):
        agree(ours(rows), oracle.transform(rows))
    wine = torch.from_numpy(load_wine().data)
    agree(Standardise.of(wine)(wine), StandardScaler().fit_transform(wine))
    one = wine[:1].float()  # constant columns of numbers that float64 holds, and of a mean that it rounds
    agree(Standardise.of(one)(one), StandardScaler().fit_transform(one))
    third = torch.full((1000, 1), 0.1, dtype=torch.float64)
    agree(Standardise.of(third)(third), StandardScaler().fit_transform(third))


def test_choices_become_columns_as_by_scikit_learn():
    rng = np.random.default_rng(0)
    train = torch.from_numpy(rng.choice([-2.5, 0, 1, 7], (30, 3)))
    train[:, 1] = 4  # a choice of one
    test = torch.tensor([[7.0, 4, 0], [3, 5, 1], [torch.nan, 4, -2.5]])
    oracle, ours = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(train), OneHot.of(train)
    assert ours.counts == (4, 1, 4) and ours.features == 9
    for rows in (train, test):
        agree(ours(rows), oracle.transform(rows))
    wide = OneHot([6, 1, 4]).fit(train)  # room that the rows do not fill
    assert (
        torch.equal(wide(test)[:, [0, 1, 2, 3, *range(6, 11)]], ours(test)) and not wide(test)[:, 4:6].any()
    )


@pytest.mark.parametrize(
    "make", [lambda: Impute(5, (1, 3)), lambda: Standardise(5), lambda: OneHot([50] * 5)]
)
def test_what_was_fitted_travels_with_the_weights(make):
    x = table()
    fitted, loaded = (nn.Sequential(make(), nn.Linear(make().features, 3)) for _ in range(2))
    fitted[0].fit(x)
    loaded.load_state_dict(fitted.state_dict())
    torch.testing.assert_close(loaded[0](x), fitted[0](x), rtol=0, atol=0, equal_nan=True)
    assert all(value.isfinite().all() for value in fitted.state_dict().values())
    torch.testing.assert_close(fitted[0](x)[7:9], fitted[0](x[7:9]), rtol=0, atol=0, equal_nan=True)
    assert not torch.equal(make()(x), fitted[0](x)), "nothing was fitted"
    assert not list(fitted[0].parameters())


def test_what_cannot_be_fitted_is_told():
    for rows in (torch.ones(3, 4), torch.ones(0, 5), torch.ones(5)):
        with pytest.raises(ValueError, match=r"rows \[B, 5\], at least one; got \["):
            Standardise(5).fit(rows)
    x = table()
    x[3, 1] = torch.inf
    with pytest.raises(ValueError, match="row 3 has an infinite number; a gap is NaN"):
        Impute.of(x)
    with pytest.raises(ValueError, match="column 1: 3 different values for 2 features"):
        OneHot([2, 2]).fit(torch.tensor([[0.0, 1], [0, 2], [1, 3]]))
