"""Tables of numbers with gaps and choices, made ready for a network: modules that are fitted once and then travel.

    Impute        gaps (NaN) become the mean of the training rows, and a column says where they were
    Standardise   mean 0 and deviation 1 over the training rows
    OneHot        choices become a column of 0 and 1 for each value of the training rows

`module.fit(rows)` takes in training rows [B, D], all at once; `module(rows)` is [B, module.features] float32. What was
fitted is buffers of float64, whose shapes the constructor knows: they are saved and loaded with a network's weights.
`Kind.of(rows)` makes a module that fits the rows, and fits it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

EPS = torch.finfo(torch.float64).eps
NO_VALUE = torch.finfo(torch.float64).max  # of a feature for which there was no value; weights hold no NaN


class Impute(nn.Module):
    """x_ij -> x_ij, or the mean of column j where it is NaN; then 1 for each gap in the columns `gaps`, else 0.

    A column that is empty in all training rows has the mean 0. A gap in a column outside `gaps` is filled as well.

    gaps: the columns whose gaps are told; all of them by default.
    """

    mean: Tensor

    def __init__(self, columns: int, gaps: Sequence[int] | None = None) -> None:
        super().__init__()
        self.columns = columns
        self.gaps = tuple(range(columns) if gaps is None else gaps)
        self.features = columns + len(self.gaps)
        self.register_buffer("mean", torch.zeros(columns, dtype=torch.float64))

    @staticmethod
    def of(rows: Tensor) -> Impute:
        """Fitted to the rows; tells the gaps of the columns that have some."""
        gaps = rows.isnan().any(0).nonzero().flatten().tolist()
        return Impute(rows.shape[-1], gaps).fit(rows)

    def fit(self, rows: Tensor) -> Impute:
        rows = _checked(rows, self.columns)
        self.mean.copy_(rows.nanmean(0).nan_to_num_(0.0))
        return self

    def forward(self, rows: Tensor) -> Tensor:
        """[B, D] -> [B, D + len(gaps)]."""
        gap = rows.isnan()
        filled = torch.where(gap, self.mean, rows.double())
        return torch.cat([filled, gap[:, list(self.gaps)]], 1).float()


class Standardise(nn.Module):
    """x_ij -> (x_ij - mean_j) / deviation_j of the training rows (the deviation over B, not B - 1); gaps stay gaps.

    A column that is constant but for rounding has the deviation 1.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.features = columns
        self.register_buffer("mean", torch.zeros(columns, dtype=torch.float64))
        self.register_buffer("deviation", torch.ones(columns, dtype=torch.float64))

    @staticmethod
    def of(rows: Tensor) -> Standardise:
        """Fitted to the rows."""
        return Standardise(rows.shape[-1]).fit(rows)

    def fit(self, rows: Tensor) -> Standardise:
        rows = _checked(rows, self.features)
        count = (~rows.isnan()).sum(0)
        mean = rows.nanmean(0)
        variance = (rows - mean).square().nanmean(0)
        # what rounding alone makes of the variance of a constant column (Chan, Golub and LeVeque, 1983)
        rounding = count * EPS * variance + (count * mean * EPS).square()
        self.mean.copy_(mean.nan_to_num(0.0))  # of an empty column
        self.deviation.copy_(torch.where(variance > rounding, variance.sqrt(), 1.0))
        return self

    def forward(self, rows: Tensor) -> Tensor:
        """[B, D] -> [B, D]."""
        return ((rows.double() - self.mean) / self.deviation).float()


class OneHot(nn.Module):
    """Column j -> counts[j] columns, of which the one of its value is 1, in the order of the values.

    A value that no training row has, NaN too, is 0 in all of them.
    """

    values: Tensor
    column: Tensor

    def __init__(self, counts: Sequence[int]) -> None:
        super().__init__()
        self.counts = tuple(counts)
        self.features = sum(counts)
        column = torch.arange(len(counts)).repeat_interleave(torch.tensor(self.counts, dtype=torch.int64))
        self.register_buffer("column", column, persistent=False)  # [features] which column a feature reads
        self.register_buffer("values", torch.full((self.features,), NO_VALUE, dtype=torch.float64))

    @staticmethod
    def of(rows: Tensor) -> OneHot:
        """Fitted to the rows, with as many features as they have values."""
        return OneHot([len(values) for values in _values(rows)]).fit(rows)

    def fit(self, rows: Tensor) -> OneHot:
        """Raises ValueError where a column has more values than it has features; what fewer leave over stays 0."""
        rows = _checked(rows, len(self.counts))
        self.values.fill_(NO_VALUE)
        for j, values in enumerate(_values(rows)):
            if len(values) > self.counts[j]:
                raise ValueError(f"column {j}: {len(values)} different values for {self.counts[j]} features")
            begin = sum(self.counts[:j])
            self.values[begin : begin + len(values)] = values
        return self

    def forward(self, rows: Tensor) -> Tensor:
        """[B, D] -> [B, features]."""
        return (rows.double().index_select(1, self.column) == self.values).float()


def _values(rows: Tensor) -> list[Tensor]:
    """The values of each column, sorted, NaN left out."""
    lowest = rows.new_full((1,), -torch.inf, dtype=torch.float64)
    ordered = [column[~column.isnan()].sort().values for column in rows.double().unbind(1)]
    return [values[values.diff(prepend=lowest) > 0] for values in ordered]


def _checked(rows: Tensor, columns: int) -> Tensor:
    """Training rows as float64; raises ValueError where they are none of `columns` numbers."""
    if rows.dim() != 2 or rows.shape[1] != columns or not len(rows):
        raise ValueError(f"fitted to rows [B, {columns}], at least one; got {list(rows.shape)}")
    wrong = rows.isinf().any(1).nonzero().flatten().tolist()
    if wrong:
        raise ValueError(f"row {wrong[0]} has an infinite number; a gap is NaN")
    return rows.double()
