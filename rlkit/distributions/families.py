"""Action distributions whose sampling is a pure function of given uniforms.

A sample is the inverse cumulative distribution function applied to noise u in (0, 1): a = F^{-1}(u). Whoever
draws u (`rlkit.seeding`) decides what is random, so acting is reproducible, compilable and independent of the
device's generator. Every method takes any leading dimensions [...] and sums over the components of an action.

Actions have the dtype of `spaces.row_dtype`: Categorical and MultiCategorical int64, Bernoulli int8, the
Gaussians float32; a Composite's are float32, its parts side by side. Continuous actions are in normalized
units, those of TanhGaussian before they are squashed; `ActionHead.to_env` maps them to the environment's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)
LOG_2 = math.log(2)
INSIDE = 1 - 2.0**-24  # the largest float32 below 1


class Distribution(Protocol):
    """What every distribution can do."""

    def sample(self, noise: Tensor) -> Tensor:
        """The action at uniforms noise [..., k] in (0, 1); increasing in the noise of its component."""

    def mode(self) -> Tensor:
        """The greedy action."""

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-probability (density, for Gaussians) of actions: [...]."""

    def entropy(self) -> Tensor:
        """Entropy in nats: [...]."""

    def kl(self, other: Distribution) -> Tensor:
        """KL(self || other) in nats, `other` of the same class: [...]."""


class Categorical(Distribution):
    """One of n choices; logits [..., n], action [...] int64, one uniform per action.

    mask [..., n] bool: False marks choices that cannot be taken. They get probability 0, a log-probability of
    about -3.4e38 (finite, so that no gradient becomes NaN) and no gradient. A row that allows none is
    uniform.
    """

    def __init__(self, logits: Tensor, mask: Tensor | None = None) -> None:
        if mask is not None:
            logits = torch.where(mask, logits, torch.finfo(logits.dtype).min)
        self.log_probs = F.log_softmax(logits, -1)  # [..., n]

    def sample(self, noise: Tensor) -> Tensor:
        """The first choice i with p_i > 0 and p_1 + ... + p_i > u; noise [..., 1].

        Scaled by the largest sum, so some i always qualifies and no rounding picks a choice of probability 0.
        """
        probs = self.log_probs.exp()
        cdf = torch.where(probs > 0, probs.cumsum(-1), -1.0)  # [..., n]
        reached = cdf > noise * cdf.amax(-1, keepdim=True)
        return reached.to(torch.uint8).argmax(-1)

    def mode(self) -> Tensor:
        return self.log_probs.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        return self.log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """-sum_i p_i log p_i."""
        return -(self.log_probs.exp() * self.log_probs).sum(-1)

    def kl(self, other: Distribution) -> Tensor:
        """sum_i p_i (log p_i - log q_i)."""
        other = _same(self, other)
        return (self.log_probs.exp() * (self.log_probs - other.log_probs)).sum(-1)


class MultiCategorical(Distribution):
    """k independent choices among nvec[0], ..., nvec[k-1].

    logits (and mask) [..., sum(nvec)], action [..., k] int64, k uniforms. Computed as one Categorical over
    [..., k, max(nvec)] whose missing choices are masked.
    """

    def __init__(self, logits: Tensor, nvec: tuple[int, ...], mask: Tensor | None = None) -> None:
        lowest = torch.finfo(logits.dtype).min
        if mask is not None:
            logits = torch.where(
                mask, logits, lowest / 2
            )  # above the missing: if all are masked, these remain
        widest = max(nvec)
        parts = [
            part if n == widest else F.pad(part, (0, widest - n), value=lowest)
            for n, part in zip(nvec, torch.split(logits, list(nvec), -1), strict=True)
        ]
        self.choices = Categorical(torch.stack(parts, -2))  # [..., k, max(nvec)]

    def sample(self, noise: Tensor) -> Tensor:
        """The sampled choices [..., k] at noise [..., k]."""
        return self.choices.sample(noise.unsqueeze(-1))

    def mode(self) -> Tensor:
        return self.choices.mode()

    def log_prob(self, action: Tensor) -> Tensor:
        return self.choices.log_prob(action).sum(-1)

    def entropy(self) -> Tensor:
        return self.choices.entropy().sum(-1)

    def kl(self, other: Distribution) -> Tensor:
        return self.choices.kl(_same(self, other).choices).sum(-1)


class Bernoulli(Distribution):
    """n independent bits; logits l [..., n] with P(1) = sigmoid(l), action [..., n] int8, n uniforms."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def sample(self, noise: Tensor) -> Tensor:
        """1 where u > P(0)."""
        return (noise > torch.sigmoid(-self.logits)).to(torch.int8)

    def mode(self) -> Tensor:
        return (self.logits > 0).to(torch.int8)

    def log_prob(self, action: Tensor) -> Tensor:
        """sum of a l - softplus(l)."""
        return (action * self.logits - F.softplus(self.logits)).sum(-1)

    def entropy(self) -> Tensor:
        """sum of softplus(m) - m sigmoid(m) at m = -|l|: H(l) = H(-l), and no large terms cancel."""
        m = -self.logits.abs()
        return (F.softplus(m) - m * torch.sigmoid(m)).sum(-1)

    def kl(self, other: Distribution) -> Tensor:
        """sum of sigmoid(l) (l - l') - softplus(l) + softplus(l')."""
        p, q = self.logits, _same(self, other).logits
        return (torch.sigmoid(p) * (p - q) - F.softplus(p) + F.softplus(q)).sum(-1)


class Gaussian(Distribution):
    """d independent normals; mean [..., d], log_std [d] or [..., d], action [..., d] float32, d uniforms."""

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean, self.log_std = mean, log_std

    def sample(self, noise: Tensor) -> Tensor:
        """mean + std sqrt(2) erfinv(2u - 1): differentiable in mean and log_std.

        For the u of `seeding.uniforms`, 2u - 1 is exact in float32: the tails reach 5.3 standard deviations.
        """
        return torch.addcmul(self.mean, self.log_std.exp(), torch.erfinv(2 * noise - 1), value=math.sqrt(2))

    def mode(self) -> Tensor:
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        """-1/2 sum z^2 - sum log std - d/2 log 2 pi,   z = (a - mean) / std."""
        z = (action - self.mean) * torch.exp(-self.log_std)
        return -0.5 * (z * z).sum(-1) - self.log_std.sum(-1) - 0.5 * LOG_2PI * self.mean.shape[-1]

    def entropy(self) -> Tensor:
        """sum log std + d/2 (1 + log 2 pi)."""
        entropy = self.log_std.sum(-1) + 0.5 * (1 + LOG_2PI) * self.mean.shape[-1]
        return entropy.expand(self.mean.shape[:-1])

    def kl(self, other: Distribution) -> Tensor:
        """sum log(s'/s) + (s^2 + (m - m')^2) / (2 s'^2) - 1/2."""
        other = _same(self, other)
        shift = self.mean - other.mean
        variance = torch.exp(2 * self.log_std) + shift * shift
        ratio = 0.5 * variance * torch.exp(-2 * other.log_std)
        return (other.log_std - self.log_std + ratio - 0.5).sum(-1)


class TanhGaussian(Distribution):
    """a = tanh(x), x ~ Gaussian(mean, log_std): actions in [-1, 1]. An action is kept as its x [..., d].

    `BoxHead.to_env` squashes it. From a stored `a` near a bound x could not be had back: float32 has ten steps
    from tanh(7.5) to 1. Then two policies' log-probabilities of one action differ by whatever rounding made of x.
    """

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.base = Gaussian(mean, log_std)

    def sample(self, noise: Tensor) -> Tensor:
        return self.base.sample(noise)

    def mode(self) -> Tensor:
        """atanh E[a]: the density's own mode may lie at a bound.

        The median, tanh(mean), leaves out what rare samples do: a brake near its bound is pressed less than it was on
        average in training, and the greedy car is then faster than the one that learned to steer it.

        In float64: functions of whole vectors and of what is left over at their end may round differently, and an
        action must not depend on how many others are asked for beside it.
        """
        wide = TanhGaussian(self.base.mean.double(), self.base.log_std.double())
        expected = wide._expected(torch.tanh).clamp(-INSIDE, INSIDE)
        return torch.atanh(expected).to(self.base.mean.dtype)

    def log_prob(self, action: Tensor) -> Tensor:
        """The log-density of a: log N(x) - sum log(1 - tanh(x)^2)."""
        return self.base.log_prob(action) - _log_slope(action).sum(-1)

    def entropy(self) -> Tensor:
        """Gaussian entropy + sum E[log(1 - tanh(x)^2)]: the error is below 1e-4 for std <= 2, below 0.01 for <= 4."""
        return self.base.entropy() + self._expected(_log_slope).sum(-1)

    def _expected(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """E[function(x)] of every component, [..., d]: a trapezoid of 21 points over +-5 standard deviations."""
        z = torch.linspace(-5, 5, 21, dtype=self.base.mean.dtype, device=self.base.mean.device)
        x = self.base.mean.unsqueeze(-1) + self.base.log_std.exp().unsqueeze(-1) * z  # [..., d, 21]
        return (function(x) * torch.softmax(-0.5 * z * z, 0)).sum(-1)

    def kl(self, other: Distribution) -> Tensor:
        """The KL of the Gaussians, because it does not change under a bijection."""
        return self.base.kl(_same(self, other).base)


def _log_slope(x: Tensor) -> Tensor:
    """log d tanh(x)/dx = log(1 - tanh(x)^2) = 2 (log 2 - x - softplus(-2x)): no cancellation at large |x|."""
    return 2 * (LOG_2 - x - F.softplus(-2 * x))


class Part(NamedTuple):
    """Where one part of a composite action lies, and what it is there."""

    columns: int  # of the flat action
    noise: int  # uniforms
    dtype: torch.dtype  # of the part's own actions
    scalar: bool  # its own actions are [...], not [..., columns]


class Composite(Distribution):
    """Independent parts of one action: p(a) = prod_i p_i(a_i).

    The action is flat, [..., K] float32: the parts' components side by side (choices are exact up to 2^24). Noise
    likewise: each part has its own uniforms.
    """

    def __init__(self, parts: Sequence[tuple[Distribution, Part]]) -> None:
        self.parts = [part for part, _ in parts]
        self.layout = [place for _, place in parts]

    def sample(self, noise: Tensor) -> Tensor:
        pieces = torch.split(noise, [place.noise for place in self.layout], -1)
        return self._join([part.sample(u) for part, u in zip(self.parts, pieces, strict=True)])

    def mode(self) -> Tensor:
        return self._join([part.mode() for part in self.parts])

    def log_prob(self, action: Tensor) -> Tensor:
        """sum_i log p_i(a_i)."""
        pieces = torch.split(action, [place.columns for place in self.layout], -1)
        terms = []
        for part, place, piece in zip(self.parts, self.layout, pieces, strict=True):
            own = piece.to(place.dtype)
            terms.append(part.log_prob(own.squeeze(-1) if place.scalar else own))
        return _sum(terms)

    def entropy(self) -> Tensor:
        """sum_i H(p_i)."""
        return _sum([part.entropy() for part in self.parts])

    def kl(self, other: Distribution) -> Tensor:
        """sum_i KL(p_i || q_i)."""
        others = _same(self, other).parts
        return _sum([mine.kl(theirs) for mine, theirs in zip(self.parts, others, strict=True)])

    def _join(self, actions: list[Tensor]) -> Tensor:
        """The parts' actions side by side: [..., K] float32."""
        flat = [
            (action.unsqueeze(-1) if place.scalar else action).float()
            for action, place in zip(actions, self.layout, strict=True)
        ]
        return torch.cat(flat, -1)


def _sum(terms: list[Tensor]) -> Tensor:
    """The sum of tensors of one shape, term by term."""
    return torch.stack(terms).sum(0)


D = TypeVar("D", bound=Distribution)


def _same(mine: D, other: Distribution) -> D:
    """`other` as the class of `mine`. Raises TypeError where it is another."""
    if not isinstance(other, type(mine)):
        raise TypeError(f"kl takes two of a class; got {type(mine).__name__} and {type(other).__name__}")
    return other
