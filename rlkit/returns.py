"""Returns and advantages: pure functions of time-first tensors, with the equation in each docstring.

All of them read the same facts (`rlkit.types`): with T transitions of N lanes,

    reward, terminated   [T, N]     of the transition o_t -> o_{t+1}
    value, last          [T+1, N]   V_t of o_t, and whether o_t closes its episode

Row t is a real transition where valid_t = not last_t; the others (the environment was resetting) get 0. A terminated
transition has no future, also where the episode goes on after it (a lost life); a truncated one (last_{t+1} but not
terminated_t) and the end of the rollout bootstrap from V. Results have the dtype of `value`. Everything is
differentiable: targets that should carry no gradient are computed under `torch.no_grad()`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def reverse_scan(x: Tensor, decay: Tensor) -> Tensor:
    """Solve y_t = x_t + decay_t y_{t+1} backwards from y_T = 0; x, decay [T, ...] -> y [T, ...].

    Recursive doubling (Hillis and Steele, 1986): after the round of stride s, y_t holds the terms t .. t+2s-1
    and decay_t the product of 2s factors, so T rows take log2(T) rounds of whole-tensor operations, not T
    small ones.
    """
    y, stride = x, 1
    decay = decay[:-1]
    while stride < x.shape[0]:
        head = torch.addcmul(y[:-stride], decay, y[stride:])
        y = torch.cat((head, y[-stride:]))
        decay = decay[:-stride] * decay[stride:]
        stride *= 2
    return y


def gae(reward: Tensor, value: Tensor, terminated: Tensor, last: Tensor, gamma: float, lam: float) -> Tensor:
    """Generalised advantage estimation (Schulman et al., 2016, arXiv:1506.02438): [T, N].

    delta_t = r_t + gamma (1 - terminated_t) V_{t+1} - V_t
    A_t     = valid_t [ delta_t + gamma lambda (1 - terminated_t) (1 - last_{t+1}) A_{t+1} ],   A_T = 0
    """
    alive, valid, inner = _masks(terminated, last, value.dtype)
    delta = reward + gamma * alive * value[1:] - value[:-1]
    return reverse_scan(valid * delta, (gamma * lam) * valid * inner * alive)


def discounted(reward: Tensor, terminated: Tensor, last: Tensor, bootstrap: Tensor, gamma: float) -> Tensor:
    """Discounted reward-to-go with bootstrap: [T, N].

        R_t = valid_t [ r_t + gamma (1 - terminated_t) (V_{t+1} if last_{t+1} or t+1 = T else R_{t+1}) ]

    bootstrap [T+1, N] is V of every row; only truncated rows and the final one are read. Or [N]: V of the
    final row alone, and truncated episodes count nothing after their end. Raises ValueError for other shapes.
    """
    if bootstrap.shape not in (last.shape, last.shape[1:]):
        raise ValueError(
            f"bootstrap has shape {tuple(bootstrap.shape)}; "
            f"allowed: {tuple(last.shape)} or {tuple(last.shape[1:])}"
        )
    if bootstrap.shape == last.shape[1:]:
        bootstrap = torch.cat((torch.zeros_like(last[:-1], dtype=bootstrap.dtype), bootstrap[None]))
    alive, valid, inner = _masks(terminated, _cut(last), bootstrap.dtype)
    x = reward + gamma * alive * (1 - inner) * bootstrap[1:]
    return reverse_scan(valid * x, gamma * valid * alive * inner)


def n_step(reward: Tensor, value: Tensor, terminated: Tensor, last: Tensor, gamma: float, n: int) -> Tensor:
    """n-step returns (Sutton and Barto, 2018, chapter 7), shorter at the end of episode or rollout: [T, N].

        G_t = valid_t [ r_t + ... + gamma^{m-1} r_{t+m-1} + gamma^m (1 - terminated_{t+m-1}) V_{t+m} ]

    with m <= n the largest number of transitions that stay in the episode and in the rollout.
    Raises ValueError unless n >= 1.
    """
    if n < 1:
        raise ValueError(f"n_step got n={n}; allowed: 1 or more")
    alive, valid, inner = _masks(terminated, _cut(last), value.dtype)
    future = gamma * alive
    end = (1 - inner) * value[1:]  # what stands in for G_{t+1} where the next row is the end
    g = value[1:]
    for k in range(n):
        # G^k_t = r_t + gamma (1 - terminated_t) (V_{t+1} if the end else G^{k-1}_{t+1}),   G^0 = V
        g = reward + future * (g if k == 0 else end + inner * torch.cat((g[1:], g[-1:])))
    return valid * g


class VTrace(NamedTuple):
    """Targets of `vtrace`, both [T, N]."""

    value: Tensor  # v_t, the target of V_t (V_t itself on rows that are not valid)
    advantage: Tensor  # rho_t (r_t + gamma (1 - terminated_t) v_{t+1} - V_t), 0 on rows that are not valid


def vtrace(
    reward: Tensor,
    value: Tensor,
    terminated: Tensor,
    last: Tensor,
    log_ratio: Tensor,
    gamma: float,
    lam: float = 1.0,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
) -> VTrace:
    """V-trace targets for data of an older policy mu (Espeholt et al., 2018, arXiv:1802.01561).

        rho_t   = min(rho_bar, pi/mu),   c_t = lambda min(c_bar, pi/mu),   pi/mu = exp(log_ratio_t)
        delta_t = rho_t (r_t + gamma (1 - terminated_t) V_{t+1} - V_t)
        v_t     = V_t + valid_t [ delta_t + gamma (1 - terminated_t) (1 - last_{t+1}) c_t (v_{t+1} - V_{t+1}) ]

    with v_T = V_T.

    log_ratio [T, N] is log pi(a_t) - log mu(a_t). On-policy (log_ratio 0, bars 1) v_t - V_t is GAE(lambda).
    """
    alive, valid, inner = _masks(terminated, last, value.dtype)
    ratio = log_ratio.exp()
    rho, c = ratio.clamp(max=rho_bar), lam * ratio.clamp(max=c_bar)
    delta = rho * (reward + gamma * alive * value[1:] - value[:-1])
    correction = reverse_scan(valid * delta, gamma * valid * inner * alive * c)  # v_t - V_t
    target = value[:-1] + correction
    following = torch.cat((target[1:], value[-1:]))  # v_{t+1}
    advantage = valid * rho * (reward + gamma * alive * following - value[:-1])
    return VTrace(target, advantage)


def explained_variance(target: Tensor, value: Tensor, weight: Tensor) -> Tensor:
    """How much of the returns' variation the values explain: 1 - Var(R - V) / Var(R), and 0 where R does not vary.

    Variances are over all entries of these tensors, weighted by `weight` (0 where there is no transition).
    """
    share = weight / weight.sum().clamp(min=1e-12)

    def variance(x: Tensor) -> Tensor:
        return (share * (x - (share * x).sum()).square()).sum()

    spread = variance(target)
    return torch.where(spread > 0, 1 - variance(target - value) / spread.clamp(min=1e-30), 0.0)


def _masks(terminated: Tensor, last: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """1 - terminated_t, valid_t and 1 - last_{t+1}, each [T, N] in `dtype` (bool times float is float32)."""
    going = 1 - last.to(dtype)  # [T+1, N]
    return 1 - terminated.to(dtype), going[:-1], going[1:]


def _cut(last: Tensor) -> Tensor:
    """`last` with the final row marked: the rollout ends there for every lane."""
    return torch.cat((last[:-1], torch.ones_like(last[:1])))
