"""Running normalizers: equal to pooling all data, equal to a slow per-lane version, and saved."""

import numpy as np
import pytest
import torch

from rlkit.nn.norm import CLIP, EPS, ReturnScale, RunningNorm, StandardUnits


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(), (3,), (2, 4)])
def test_updates_equal_pooled_data(shape):
    data = 1000 + 3 * randn(60, *shape)  # a mean far from 0 would cost a naive sum of squares its digits
    norm = RunningNorm(shape)
    for part in data.split([1, 0, 7, 30, 22]):
        norm.update(part)
    pooled = data.double()
    assert norm.count.item() == 60
    torch.testing.assert_close(norm.mean, pooled.mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(norm.var, pooled.var(0, unbiased=False), rtol=1e-10, atol=0)
    expected = (pooled - pooled.mean(0)) / (pooled.var(0, unbiased=False) + EPS).sqrt()
    torch.testing.assert_close(norm(data).double(), expected, rtol=0, atol=1e-4)
    assert norm(data).dtype == torch.float32


def test_by_hand():
    norm = RunningNorm()
    norm.update(torch.tensor([1.0, 3.0]))  # mean 2, var 1
    norm.update(torch.tensor([6.0, 6.0]))  # mean 4, var (9 + 1 + 4 + 4) / 4 = 4.5
    assert norm.mean.item() == 4
    assert norm.var.item() == 4.5
    assert norm(torch.tensor(5.0)).item() == pytest.approx(1 / 4.5**0.5)


def test_only_valid_rows_count():
    x, valid = randn(5, 6, 3), torch.rand(5, 6, generator=torch.Generator().manual_seed(1)) < 0.6
    masked, picked = RunningNorm((3,)), RunningNorm((3,))
    poisoned = torch.where(valid[..., None], x, torch.nan)
    masked.update(poisoned, valid)
    picked.update(x[valid])
    for name in ("count", "mean", "squares", "scale"):
        torch.testing.assert_close(getattr(masked, name), getattr(picked, name))


def test_what_is_taken_in_is_no_part_of_a_gradient():
    norm = RunningNorm((3,))
    norm.update(randn(4, 3).requires_grad_())
    scaled = ReturnScale(0.9)(
        randn(4, 3).requires_grad_(), torch.zeros(5, 3, dtype=bool), torch.zeros(5, 3, dtype=bool)
    )
    assert not any(buffer.requires_grad for buffer in norm.buffers()) and not scaled.requires_grad


def test_identity_before_any_data():
    norm = RunningNorm((3,))
    x = randn(4, 3)
    assert torch.equal(norm(x), x)
    norm.update(x, torch.zeros(4, dtype=torch.bool))  # nothing valid is no data
    assert torch.equal(norm(x), x)
    assert torch.equal(norm(1000 * x.sign()), CLIP * x.sign())


def test_state_is_saved():
    norm, other = RunningNorm((3,)), RunningNorm((3,))
    norm.update(5 + randn(10, 3))
    other.load_state_dict(norm.state_dict())
    x = randn(4, 3, seed=2)
    assert torch.equal(norm(x), other(x))
    for module in (norm, other):
        module.update(x)
    assert torch.equal(norm.var, other.var)


def test_compiles():
    torch.compiler.reset()
    norm = RunningNorm((3,))
    norm.update(randn(10, 3))
    x = randn(4, 3)
    compiled = torch.compile(norm, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), norm(x))


# ---------------------------------------------------------------- ReturnScale


def lanes(T=12, N=3, seed=0):
    """reward, first, last with endings; the row after an ending resets."""
    g = torch.Generator().manual_seed(seed)
    reward = torch.randn(T, N, generator=g)
    last = torch.zeros(T + 1, N, dtype=torch.bool)
    for t in range(T):
        last[t + 1] = (torch.rand(N, generator=g) < 0.2) & ~last[t]
    first = torch.cat((torch.ones(1, N, dtype=torch.bool), last[:-1]))
    reward[last[:-1]] = 0
    return reward, first, last


def slow_returns(reward, last, gamma):
    """All discounted returns of real transitions, lane by lane."""
    out = []
    for n in range(reward.shape[1]):
        running = 0.0
        for t in range(reward.shape[0]):
            if last[t, n]:
                running = 0.0
            else:
                running = gamma * running + reward[t, n].item()
                out.append(running)
    return np.array(out)


def test_return_scale_against_a_slow_version():
    reward, first, last = lanes()
    module = ReturnScale(0.9)
    scaled = module(reward, first, last)
    variance = slow_returns(reward, last, 0.9).var()
    torch.testing.assert_close(module.returns.var.item(), variance, rtol=1e-9, atol=0)
    torch.testing.assert_close(scaled, (reward / (variance + EPS) ** 0.5).clamp(-10, 10))


def test_return_scale_goes_on_from_one_rollout_to_the_next():
    reward, first, last = lanes(T=20)
    module = ReturnScale(0.9)
    for start, end in ((0, 1), (1, 9), (9, 20)):
        module(reward[start:end], first[start : end + 1], last[start : end + 1])
    returns = slow_returns(reward, last, 0.9)
    torch.testing.assert_close(module.returns.var.item(), returns.var(), rtol=1e-9, atol=0)
    assert module.returns.count.item() == len(returns)


def test_return_scale_starts_anew_where_an_episode_opens():
    # a lane that was restarted between rollouts: the old return 8 must not reach the new episode
    module = ReturnScale(0.5)
    row = torch.zeros(2, 1, dtype=torch.bool)
    module(torch.tensor([[8.0]]), row, row)
    opened = torch.tensor([[True], [False]])
    module(torch.tensor([[1.0]]), opened, row)
    assert module.running.item() == 1  # and 0.5 * 8 + 1 = 5 had it gone on
    module(torch.tensor([[1.0]]), row, row)
    assert module.running.item() == 1.5


def test_return_scale_is_clipped():
    module = ReturnScale(0.0)
    flags = torch.zeros(1001, 1, dtype=torch.bool)
    reward = torch.zeros(1000, 1)
    reward[500] = 1.0  # std is 0.0316, so 1 would become 31.6
    assert module(reward, flags, flags)[500].item() == CLIP


def test_return_scale_loads_any_number_of_lanes():
    reward, first, last = lanes(N=3)
    module, other = ReturnScale(0.9), ReturnScale(0.9)
    module(reward, first, last)
    other(*(x[:, :1] for x in (reward, first, last)))  # had one lane
    other.load_state_dict(module.state_dict())
    assert other.running.shape == (3,)
    more = lanes(N=3, seed=1)
    assert torch.equal(module(*more), other(*more))
    fewer = [x[:, :2] for x in more]
    assert module(*fewer).shape == (12, 2)  # other lanes: their returns start at 0
    nested, whole = torch.nn.ModuleDict({"scale": ReturnScale(0.9)}), torch.nn.ModuleDict({"scale": other})
    nested.load_state_dict(whole.state_dict())
    assert torch.equal(nested["scale"].running, other.running)


# ---------------------------------------------------------------- tables of numbers


def gappy(rows=50, seed=0):
    """Numbers of very different scales; columns 1 and 3 have gaps, column 4 is constant."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 5)) * [1, 1e4, 1e-4, 10, 0] + [0, 1e4, 0, -3, 0.1]
    x[:, [1, 3]] = np.where(rng.random((rows, 2)) < 0.3, np.nan, x[:, [1, 3]])
    return torch.from_numpy(x.astype(np.float32))


def test_standard_units_and_gaps_are_those_of_scikit_learn():
    """To 1e-6, on rows that were not fitted to as well; a mean is 0 in standard units."""
    from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, test = gappy(), gappy(seed=1)
    test[:4, 0] = torch.nan  # a gap in a column that had none is filled and not told
    units, oracle = StandardUnits(5), make_pipeline(StandardScaler(), SimpleImputer(add_indicator=True))
    units.update(train)
    oracle.fit(train.double().numpy())
    for rows in (train, test):
        found, expected = units(rows).numpy(), oracle.transform(rows.double().numpy())
        np.testing.assert_allclose(found[:, :5], expected[:, :5], rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(found[:, [6, 8]], expected[:, 5:])
        assert found.dtype == np.float32 and not found[:, [5, 7, 9]].any()
    for rows in (load_wine().data, load_breast_cancer().data, load_diabetes().data):
        x = torch.from_numpy(rows.astype(np.float32))
        units = StandardUnits(x.shape[1])
        units.update(x)
        np.testing.assert_allclose(
            units.scaled(x), StandardScaler().fit_transform(x.double().numpy()), rtol=1e-6, atol=1e-6
        )


def test_standard_units_of_columns_that_are_constant_or_empty():
    x = torch.full((1000, 2), 0.1)
    x[:, 1] = torch.nan
    units = StandardUnits(2)
    assert torch.equal(units(x[:1])[0], torch.tensor([0.1, 0, 0, 0])), "nothing was fitted"
    units.update(x)
    assert units.deviation.tolist() == [1, 1] and units.mean.tolist() == [pytest.approx(0.1), 0]
    assert units(torch.tensor([[1.1, 3.0], [0.1, torch.nan]])).tolist() == [
        pytest.approx([1, 3, 0, 0]), pytest.approx([0, 0, 0, 1]),
    ]  # fmt: skip


def test_standard_units_are_of_the_first_rows_and_travel():
    """What a network was learned with stays, whatever is seen later, here and where its weights are loaded."""
    x, valid = gappy(), torch.arange(50) < 30
    units, part, loaded = StandardUnits(5), StandardUnits(5), StandardUnits(5)
    units.update(x.view(5, 10, 5), valid.view(5, 10))
    part.update(x[:30])
    loaded.load_state_dict(units.state_dict())
    assert torch.equal(units(x), part(x)) and not torch.equal(units(x), StandardUnits(5)(x))
    for each in (units, loaded):
        each.update(7 * x)
        assert torch.equal(each(x), part(x))
    assert all(value.isfinite().all() for value in units.state_dict().values())
    assert torch.equal(units(x[None, 7:9])[0], units(x)[7:9])
