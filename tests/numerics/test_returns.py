"""Returns against numbers worked by hand, slow per-lane versions in Python floats, and closed forms."""

import pytest
import torch

from rlkit.returns import discounted, explained_variance, gae, n_step, reverse_scan, vtrace

GAMMA, LAM = 0.9, 0.8


def column(*numbers, dtype=torch.float64):
    """One lane: [T, 1]."""
    return torch.tensor(numbers, dtype=dtype)[:, None]


def flags(*numbers):
    return column(*numbers, dtype=torch.bool)


def rollout(seed=0, T=40, N=6, ending=0.25):
    """Random lanes with terminations, truncations, endings right after one another, NEXT_STEP rows between, lost lives.

    Returns reward, value, terminated, last. An episode may be one transition long.
    """
    g = torch.Generator().manual_seed(seed)
    reward = torch.randn(T, N, generator=g, dtype=torch.float64)
    value = torch.randn(T + 1, N, generator=g, dtype=torch.float64)
    end = torch.rand(T, N, generator=g) < ending
    term = torch.rand(T, N, generator=g) < 0.5
    last = torch.zeros(T + 1, N, dtype=torch.bool)
    last[0] = torch.rand(N, generator=g) < 0.3
    for t in range(T):
        last[t + 1] = end[t] & ~last[t]
    lost = (torch.rand(T, N, generator=g) < 0.1) & ~last[:-1]  # the episode goes on
    terminated = (last[1:] & term) | lost
    reward[last[:-1]] = 0  # the reset transition
    return reward, value, terminated, last


def slow_gae(reward, value, terminated, last, gamma, lam):
    T, N = reward.shape
    out = torch.zeros(T, N, dtype=torch.float64)
    for n in range(N):
        for t in range(T):
            if last[t, n]:
                continue
            total, weight, k = 0.0, 1.0, t
            while True:  # sum of (gamma lambda)^k delta_{t+k} to the end of the episode
                future = 0.0 if terminated[k, n] else value[k + 1, n].item()
                total += weight * (reward[k, n].item() + gamma * future - value[k, n].item())
                weight *= gamma * lam
                k += 1
                if k == T or last[k, n] or terminated[k - 1, n]:
                    break
            out[t, n] = total
    return out


def slow_n_step(reward, value, terminated, last, gamma, n):
    T, N = reward.shape
    out = torch.zeros(T, N, dtype=torch.float64)
    for lane in range(N):
        for t in range(T):
            if last[t, lane]:
                continue
            total, k = 0.0, 0
            while True:
                total += gamma**k * reward[t + k, lane].item()
                k += 1
                over = t + k == T or bool(last[t + k, lane]) or bool(terminated[t + k - 1, lane])
                if over or k == n:
                    if not terminated[t + k - 1, lane]:
                        total += gamma**k * value[t + k, lane].item()
                    break
            out[t, lane] = total
    return out


def slow_vtrace(reward, value, terminated, last, log_ratio, gamma, lam, rho_bar, c_bar):
    """The sum form (equation 1 of the paper): v_s = V_s + sum_t gamma^{t-s} (prod c_i) delta_t."""
    T, N = reward.shape
    v = value.clone()
    for n in range(N):
        for s in range(T):
            weight = 1.0
            for t in range(s, T):
                if last[t, n]:
                    break
                ratio = log_ratio[t, n].exp().item()
                future = 0.0 if terminated[t, n] else value[t + 1, n].item()
                delta = min(rho_bar, ratio) * (reward[t, n].item() + gamma * future - value[t, n].item())
                v[s, n] += weight * delta
                weight *= gamma * lam * min(c_bar, ratio)
                if terminated[t, n]:
                    break
    rho = log_ratio.exp().clamp(max=rho_bar)
    future = torch.where(terminated, 0.0, v[1:])
    advantage = torch.where(last[:-1], 0.0, rho * (reward + gamma * future - value[:-1]))
    return v[:-1], advantage


# ---------------------------------------------------------------- by hand


def test_gae_by_hand_at_every_kind_of_ending():
    # one lane, gamma 0.5, lambda 0.5; rows: 0 1 | 2(last, truncated) | 3 | 4(last, terminated) | 5 -> cut
    reward = column(1.0, 2.0, 0.0, 3.0, 0.0, 4.0)
    value = column(2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0)
    terminated = flags(0, 0, 0, 1, 0, 0)
    last = flags(0, 0, 1, 0, 1, 0, 0)
    # delta_5 = 4 + 0.5*14 - 12 = -1                     A_5 = -1         (cut: bootstraps 14)
    # row 4 resets                                       A_4 = 0
    # delta_3 = 3 - 8 = -5                               A_3 = -5         (terminated: nothing after)
    # row 2 resets                                       A_2 = 0
    # delta_1 = 2 + 0.5*6 - 4 = 1                        A_1 = 1          (truncated: bootstraps 6)
    # delta_0 = 1 + 0.5*4 - 2 = 1                        A_0 = 1 + 0.25*1 = 1.25
    expected = column(1.25, 1.0, 0.0, -5.0, 0.0, -1.0)
    torch.testing.assert_close(gae(reward, value, terminated, last, 0.5, 0.5), expected)


def test_discounted_by_hand():
    reward = column(1.0, 2.0, 0.0, 3.0, 0.0, 4.0)
    value = column(2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0)
    terminated = flags(0, 0, 0, 1, 0, 0)
    last = flags(0, 0, 1, 0, 1, 0, 0)
    # R_5 = 4 + 7 = 11;  R_3 = 3;  R_1 = 2 + 3 = 5;  R_0 = 1 + 2.5 = 3.5
    torch.testing.assert_close(
        discounted(reward, terminated, last, value, 0.5), column(3.5, 5.0, 0.0, 3.0, 0.0, 11.0)
    )
    # bootstrap of the final row alone: the truncated episode counts nothing after its end: R_1 = 2, R_0 = 2
    torch.testing.assert_close(
        discounted(reward, terminated, last, value[-1], 0.5), column(2.0, 2.0, 0.0, 3.0, 0.0, 11.0)
    )


def test_n_step_by_hand():
    reward = column(1.0, 2.0, 3.0, 4.0)
    value = column(0.0, 10.0, 20.0, 30.0, 40.0)
    none = flags(0, 0, 0, 0)
    # n = 2, gamma 0.5: G_0 = 1 + 1 + 20/4 = 7; G_1 = 2 + 1.5 + 30/4 = 11; G_2 = 3 + 2 + 40/4 = 15;
    # G_3 = 4 + 20 = 24
    last = flags(0, 0, 0, 0, 0)
    torch.testing.assert_close(n_step(reward, value, none, last, 0.5, 2), column(7.0, 11.0, 15.0, 24.0))
    # truncated into row 2: G_0 = 1 + 1 + 5 = 7, G_1 = 2 + 10 = 12, row 2 resets, G_3 = 24
    last = flags(0, 0, 1, 0, 0)
    torch.testing.assert_close(n_step(reward, value, none, last, 0.5, 2), column(7.0, 12.0, 0.0, 24.0))
    # terminated into row 2: G_0 = 1 + 1 = 2, G_1 = 2
    terminated = flags(0, 1, 0, 0)
    torch.testing.assert_close(n_step(reward, value, terminated, last, 0.5, 2), column(2.0, 2.0, 0.0, 24.0))


def test_vtrace_by_hand():
    # gamma 0.5, ratios 2 and 0.5, bars 1: rho = c = (1, 0.5)
    reward, value = column(1.0, 2.0), column(2.0, 4.0, 6.0)
    log_ratio = column(2.0, 0.5).log()
    # delta_1 = 0.5 (2 + 3 - 4) = 0.5            v_1 = 4.5
    # delta_0 = 1 + 2 - 2 = 1                    v_0 = 2 + 1 + 0.5 * 1 * (4.5 - 4) = 3.25
    # advantage_1 = 0.5 (2 + 0.5*6 - 4) = 0.5,   advantage_0 = 1 + 0.5*4.5 - 2 = 1.25
    out = vtrace(reward, value, flags(0, 0), flags(0, 0, 0), log_ratio, 0.5)
    torch.testing.assert_close(out.value, column(3.25, 4.5))
    torch.testing.assert_close(out.advantage, column(1.25, 0.5))


def test_two_endings_in_a_row():
    # every episode is one transition: (act, reset) twice; then an episode's first row is also cut
    reward, value = column(1.0, 0.0, 2.0, 0.0, 3.0), column(1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    terminated, last = flags(1, 0, 0, 0, 0), flags(0, 1, 0, 1, 0, 0)
    # 1 - 1 = 0;  2 + 0.5*4 - 3 = 1;  3 + 0.5*6 - 5 = 1
    torch.testing.assert_close(
        gae(reward, value, terminated, last, 0.5, 0.9), column(0.0, 0.0, 1.0, 0.0, 1.0)
    )
    torch.testing.assert_close(
        n_step(reward, value, terminated, last, 0.5, 3), column(1.0, 0.0, 4.0, 0.0, 6.0)
    )


# ---------------------------------------------------------------- against slow versions


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("T", [1, 2, 7, 32, 33])
def test_against_slow_versions(seed, T):
    reward, value, terminated, last = data = rollout(seed, T)
    torch.testing.assert_close(gae(*data, GAMMA, LAM), slow_gae(*data, GAMMA, LAM))
    everything = slow_n_step(*data, GAMMA, T)
    torch.testing.assert_close(discounted(reward, terminated, last, value, GAMMA), everything)
    for n in (1, 2, 3, T):
        torch.testing.assert_close(n_step(*data, GAMMA, n), slow_n_step(*data, GAMMA, n))
    log_ratio = torch.randn(reward.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    fast = vtrace(*data, log_ratio, GAMMA, 0.7, 1.3, 0.9)
    slow = slow_vtrace(*data, log_ratio, GAMMA, 0.7, 1.3, 0.9)
    torch.testing.assert_close(fast.value, slow[0])
    torch.testing.assert_close(fast.advantage, slow[1])


def test_scan_solves_its_recurrence():
    g = torch.Generator().manual_seed(0)
    for T in (1, 2, 3, 8, 100):
        x, decay = torch.randn(2, T, 3, generator=g, dtype=torch.float64)
        y = torch.zeros(3, dtype=torch.float64)
        for t in reversed(range(T)):
            y = x[t] + decay[t] * y
            torch.testing.assert_close(reverse_scan(x, decay)[t], y)


def test_float32_is_as_good_as_float64_over_a_long_rollout():
    data = rollout(3, 2048, 4, ending=0.002)
    single = [x.float() if x.is_floating_point() else x for x in data]
    out = gae(*single, 0.999, 0.99)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.double(), gae(*data, 0.999, 0.99), rtol=1e-5, atol=1e-4)


# ---------------------------------------------------------------- closed forms


def test_constant_reward():
    # R_t = (1 - gamma^{T-t}) / (1 - gamma) + gamma^{T-t} V, and with V = 1 / (1 - gamma) every advantage is 0
    T = 20
    reward, terminated = torch.ones(T, 2, dtype=torch.float64), torch.zeros(T, 2, dtype=torch.bool)
    last = torch.zeros(T + 1, 2, dtype=torch.bool)
    left = T - torch.arange(T, dtype=torch.float64)[:, None].expand(T, 2)
    closed = (1 - GAMMA**left) / (1 - GAMMA)
    torch.testing.assert_close(discounted(reward, terminated, last, torch.zeros(2).double(), GAMMA), closed)
    value = torch.full((T + 1, 2), 1 / (1 - GAMMA), dtype=torch.float64)
    torch.testing.assert_close(gae(reward, value, terminated, last, GAMMA, LAM), 0 * closed)
    torch.testing.assert_close(discounted(reward, terminated, last, value[-1], GAMMA), value[:-1])


def test_lambda_one_is_monte_carlo_and_lambda_zero_is_td():
    reward, value, terminated, last = data = rollout(1)
    valid = ~last[:-1]
    monte_carlo = discounted(reward, terminated, last, value, GAMMA) - value[:-1] * valid
    torch.testing.assert_close(gae(*data, GAMMA, 1.0), monte_carlo)
    td = valid * (reward + GAMMA * torch.where(terminated, 0.0, value[1:]) - value[:-1])
    torch.testing.assert_close(gae(*data, GAMMA, 0.0), td)
    torch.testing.assert_close(n_step(*data, GAMMA, 1), td + value[:-1] * valid)


def test_vtrace_on_policy_is_gae():
    reward, value, _terminated, _last = data = rollout(2)
    out = vtrace(*data, torch.zeros_like(reward), GAMMA, LAM)
    torch.testing.assert_close(out.value - value[:-1], gae(*data, GAMMA, LAM))


# ---------------------------------------------------------------- properties


@pytest.mark.parametrize("cut", [1, 13, 39])
def test_a_rollout_cut_in_two_is_consistent(cut):
    reward, value, terminated, last = data = rollout(4)
    whole = discounted(reward, terminated, last, value, GAMMA)
    # the second piece alone is the tail of the whole
    tail = [x[cut:] for x in data]
    torch.testing.assert_close(discounted(tail[0], tail[2], tail[3], tail[1], GAMMA), whole[cut:])
    torch.testing.assert_close(gae(*tail, GAMMA, LAM), gae(*data, GAMMA, LAM)[cut:])
    # the first piece, with the return of the whole as the bootstrap of its final row, gives its head
    bootstrap = value[: cut + 1].clone()
    bootstrap[cut] = torch.where(last[cut], value[cut], whole[cut])
    head = discounted(reward[:cut], terminated[:cut], last[: cut + 1], bootstrap, GAMMA)
    torch.testing.assert_close(head, whole[:cut])
    # GAE of the head lacks exactly (gamma lambda)^{cut-t} A_cut where no episode ends in between
    parts = gae(reward[:cut], value[: cut + 1], terminated[:cut], last[: cut + 1], GAMMA, LAM)
    missing = gae(*data, GAMMA, LAM)[:cut] - parts
    unbroken = ~last[: cut + 1].flip(0).cumsum(0).flip(0)[:cut].bool()
    power = (GAMMA * LAM) ** (cut - torch.arange(cut, dtype=torch.float64))[:, None]
    torch.testing.assert_close(missing, unbroken * power * gae(*data, GAMMA, LAM)[cut])


def test_nothing_crosses_an_ending():
    reward, value, terminated, last = rollout(5)
    before = gae(reward, value, terminated, last, GAMMA, LAM)
    t, n = next((t, n) for t in range(10, 30) for n in range(6) if last[t, n])
    reward[t + 1 :, n] += 100.0  # the next episode, from its first real transition
    value[t + 1 :, n] += 50.0
    torch.testing.assert_close(gae(reward, value, terminated, last, GAMMA, LAM)[: t + 1], before[: t + 1])


def test_lanes_do_not_mix():
    data = rollout(6)
    for n in range(6):
        alone = [x[:, n : n + 1] for x in data]
        torch.testing.assert_close(gae(*alone, GAMMA, LAM), gae(*data, GAMMA, LAM)[:, n : n + 1])


def test_the_value_of_a_terminal_row_is_never_read():
    reward, value, terminated, last = rollout(7)
    changed = value.clone()
    changed[1:][terminated & last[1:]] = 1e6  # the row after a lost life has a value of its own
    for function in (gae, n_step):
        extra = (GAMMA, LAM) if function is gae else (GAMMA, 3)
        torch.testing.assert_close(
            function(reward, changed, terminated, last, *extra),
            function(reward, value, terminated, last, *extra),
        )


def test_gae_compiles_and_differentiates():
    reward, value, terminated, last = rollout(8, T=9)
    compiled = torch.compile(gae, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        compiled(reward, value, terminated, last, GAMMA, LAM),
        gae(reward, value, terminated, last, GAMMA, LAM),
    )
    grad = torch.func.grad(lambda r: gae(r, value, terminated, last, GAMMA, LAM)[0].sum())(reward)
    torch.testing.assert_close(grad[0], (~last[0]).double())


def test_errors_name_what_is_allowed():
    reward, value, terminated, last = rollout(9)
    with pytest.raises(ValueError, match="n=0; allowed: 1 or more"):
        n_step(reward, value, terminated, last, GAMMA, 0)
    with pytest.raises(ValueError, match=r"\(3,\); allowed: \(41, 6\) or \(6,\)"):
        discounted(reward, terminated, last, torch.zeros(3), GAMMA)


def test_explained_variance_by_hand():
    """Weights 1, 1, 2, 0: R = 0, 2, 3, 100 has mean 2 and variance 6/4; R - V = 0, 0, 2 has mean 1 and variance 1."""
    target, value, weight = (
        column(0.0, 2.0, 3.0, 100.0),
        column(0.0, 2.0, 1.0, -7.0),
        column(1.0, 1.0, 2.0, 0.0),
    )
    assert float(explained_variance(target, value, weight)) == pytest.approx(1 - 1 / 1.5)
    assert float(explained_variance(target, target + 5, weight)) == pytest.approx(1.0)  # a shift explains all
    assert float(explained_variance(torch.ones_like(target), value, weight)) == 0.0
