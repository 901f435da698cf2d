"""Distributions against torch.distributions, closed forms and their own samples."""

import itertools
import math
import statistics

import numpy as np
import pytest
import torch
import torch.distributions as td

from rlkit.distributions import (
    Bernoulli,
    Categorical,
    Composite,
    Gaussian,
    MultiCategorical,
    TanhGaussian,
    action_head,
)
from rlkit.seeding import uniforms
from rlkit.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, action_row, row_dtype

LOWEST, HIGHEST = 2.0**-24, 1 - 2.0**-24
NVEC = (3, 2, 4)


def randn(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def noise(*shape, seed=0):
    """Uniforms [rows..., k] from the generator that the actor uses."""
    u = uniforms(seed, np.arange(1), 0, math.prod(shape[:-1]), shape[-1])  # [rows, 1, k]
    return torch.from_numpy(u.copy()).reshape(shape)


def make(kind, *leading, seed=0):
    """A distribution, what makes it from its first tensor, and its number of uniforms."""
    d = {"categorical": 5, "multi": sum(NVEC), "bernoulli": 3, "gaussian": 2, "tanh": 2}[kind]
    outputs = randn(*leading, d, seed=seed)
    log_std = torch.tensor([-0.5, 0.3])
    build = {
        "categorical": Categorical,
        "multi": lambda x: MultiCategorical(x, NVEC),
        "bernoulli": Bernoulli,
        "gaussian": lambda x: Gaussian(x, log_std),
        "tanh": lambda x: TanhGaussian(x, log_std),
    }[kind]
    return outputs, build, {"categorical": 1, "multi": 3, "bernoulli": 3, "gaussian": 2, "tanh": 2}[kind]


KINDS = ("categorical", "multi", "bernoulli", "gaussian", "tanh")
DTYPES = (torch.int64, torch.int64, torch.int8, torch.float32, torch.float32)


def reference(kind, x):
    """The same in torch.distributions."""
    std = torch.tensor([-0.5, 0.3]).exp()
    if kind == "categorical":
        return td.Categorical(logits=x)
    if kind == "bernoulli":
        return td.Independent(td.Bernoulli(logits=x), 1)
    normal = td.Normal(x, std)
    if kind == "gaussian":
        return td.Independent(normal, 1)
    return td.Independent(td.TransformedDistribution(normal, td.TanhTransform()), 1)


# ---------------------------------------------------------------- log_prob, entropy, kl


@pytest.mark.parametrize("kind", ["categorical", "bernoulli", "gaussian", "tanh"])
def test_against_torch(kind):
    x, build, k = make(kind, 7, 4)
    mine, torchs = build(x), reference(kind, x)
    action = mine.sample(noise(7, 4, k))
    other = {"bernoulli": action.float(), "tanh": torch.tanh(action)}.get(kind, action)
    assert mine.log_prob(action).shape == (7, 4)
    torch.testing.assert_close(mine.log_prob(action), torchs.log_prob(other), rtol=1e-4, atol=1e-4)
    if kind != "tanh":
        torch.testing.assert_close(mine.entropy(), torchs.entropy(), rtol=1e-5, atol=1e-6)
        y = randn(7, 4, x.shape[-1], seed=9)
        expected = td.kl_divergence(torchs, reference(kind, y))
        torch.testing.assert_close(mine.kl(build(y)), expected, rtol=1e-5, atol=1e-5)


def test_multi_categorical_is_a_product():
    x, build, _ = make("multi", 6)
    y = randn(6, 9, seed=3)
    parts = [Categorical(part) for part in x.split(NVEC, -1)]
    others = [Categorical(part) for part in y.split(NVEC, -1)]
    action = build(x).sample(noise(6, 3))
    mine = build(x)
    expected = sum(p.log_prob(a) for p, a in zip(parts, action.unbind(-1), strict=True))
    torch.testing.assert_close(mine.log_prob(action), expected)
    torch.testing.assert_close(mine.entropy(), sum(p.entropy() for p in parts))
    torch.testing.assert_close(mine.kl(build(y)), sum(p.kl(q) for p, q in zip(parts, others, strict=True)))
    assert torch.equal(mine.mode(), torch.stack([p.mode() for p in parts], -1))


def test_closed_forms():
    # uniform over 8: log p = -log 8, H = log 8
    uniform = Categorical(torch.zeros(8))
    assert uniform.log_prob(torch.tensor(3)).item() == pytest.approx(-math.log(8))
    assert uniform.entropy().item() == pytest.approx(math.log(8))
    # p = (1/4, 3/4) against (1/2, 1/2): KL = 1/4 log(1/2) + 3/4 log(3/2)
    quarter = Categorical(torch.tensor([1.0, 3.0]).log())
    closed = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert quarter.kl(Categorical(torch.zeros(2))).item() == pytest.approx(closed, rel=1e-5)
    # N(0, 1) at 2: -2 - log(2 pi)/2;  KL(N(1, 2) || N(0, 1)) = -log 2 + (4 + 1)/2 - 1/2
    normal = Gaussian(torch.zeros(1), torch.zeros(1))
    assert normal.log_prob(torch.tensor([2.0])).item() == pytest.approx(-2 - 0.5 * math.log(2 * math.pi))
    wide = Gaussian(torch.ones(1), torch.tensor([math.log(2)]))
    assert wide.kl(normal).item() == pytest.approx(2 - math.log(2), rel=1e-5)
    # tanh: density at a = 0 is that of N(0, 1), slope 1
    assert TanhGaussian(torch.zeros(1), torch.zeros(1)).log_prob(torch.zeros(1)).item() == pytest.approx(
        -0.5 * math.log(2 * math.pi)
    )


def test_bernoulli_entropy_keeps_its_digits_at_large_logits():
    # H -> (l + 1) e^-l for large l: 21 e^-20 = 4.3e-8
    expected = 21 * math.exp(-20)
    for logit in (20.0, -20.0):
        assert Bernoulli(torch.tensor([logit])).entropy().item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_kl_of_itself_is_zero_and_of_another_class_is_refused(kind):
    x, build, _ = make(kind, 3)
    torch.testing.assert_close(build(x).kl(build(x)), torch.zeros(3), rtol=0, atol=1e-6)
    with pytest.raises(TypeError, match="two of a class"):
        build(x).kl(Bernoulli(x) if kind != "bernoulli" else Categorical(x))


# ---------------------------------------------------------------- tanh near its bounds


def test_tanh_log_prob_near_the_bounds():
    # exact, in float64: log N(x) - log(1 - a^2), 1 - a^2 = (1 - a)(1 + a) = 4 / (e^x + e^-x)^2
    for mean, log_std in ((0.0, 0.0), (3.0, -0.5), (12.0, 0.5)):
        policy = TanhGaussian(torch.tensor([mean]), torch.tensor([log_std]))
        for x in (-15.0, -7.5, -1.5, 0.0, 0.5, 5.0, 9.0, 20.0):
            z = (x - mean) / math.exp(log_std)
            slope = math.log(4) - 2 * math.log(math.exp(x) + math.exp(-x))
            exact = -0.5 * z * z - log_std - 0.5 * math.log(2 * math.pi) - slope
            assert policy.log_prob(torch.tensor([x])).item() == pytest.approx(exact, rel=3e-6, abs=3e-6)


def test_tanh_ratios_of_policies_at_a_bound_are_those_of_their_gaussians():
    """Means that lie where float32 cannot tell tanh from 1: a small step of the policy is a small step of the ratio."""
    for mean in (0.0, 6.0, 9.0, 30.0):
        old, new = (TanhGaussian(torch.tensor([m]), torch.tensor([-0.8])) for m in (mean, mean + 0.01))
        for u in (LOWEST, 0.3, HIGHEST):
            action = old.sample(torch.tensor([u]))
            z = statistics.NormalDist().inv_cdf(torch.tensor(u, dtype=torch.float32).item())
            # log rho = z d - d^2 / 2 with d = 0.01 / std
            d = 0.01 / math.exp(-0.8)
            assert (new.log_prob(action) - old.log_prob(action)).item() == pytest.approx(
                z * d - d * d / 2, abs=1e-4
            )


def test_tanh_actions_are_finite_and_within_the_bounds():
    policy = TanhGaussian(torch.tensor([-50.0, -9.0, 0.0, 9.0, 50.0]), torch.full((5,), 1.0))
    head = action_head(Box((5,), "float32", np.full(5, -2.0), np.full(5, 4.0)), "tanh")
    for action in (*(policy.sample(torch.full((5,), u)) for u in (LOWEST, 0.5, HIGHEST)), policy.mode()):
        assert policy.log_prob(action).isfinite()
        command = head.to_env(action)
        assert (command >= -2).all() and (command <= 4).all()
    torch.testing.assert_close(
        head.to_env(torch.tensor([-50.0, -1.0, 0.0, 1.0, 50.0])),
        torch.tensor([-2.0, 1 - 3 * math.tanh(1), 1.0, 1 + 3 * math.tanh(1), 4.0]),
    )


def test_tanh_density_integrates_to_one():
    policy = TanhGaussian(torch.tensor([0.7]).double(), torch.tensor([0.2]).double())
    x = torch.linspace(-9, 9, 200_001, dtype=torch.float64)
    density = policy.log_prob(x[:, None]).exp()
    assert torch.trapezoid(density, torch.tanh(x)).item() == pytest.approx(1, abs=1e-5)


def test_tanh_entropy_is_that_of_the_squashed_variable():
    # -int p log p over a = -int N(x) log p(tanh x) dx, on a fine grid in float64
    for std, tolerance in ((0.1, 1e-4), (1.0, 1e-4), (2.0, 1e-4), (4.0, 1e-2)):
        for mean in (0.0, 0.5, -3.0):
            x = torch.linspace(mean - 9 * std, mean + 9 * std, 20_001, dtype=torch.float64)
            log_normal = -0.5 * ((x - mean) / std) ** 2 - math.log(std) - 0.5 * math.log(2 * math.pi)
            slope = 2 * (math.log(2) - x - torch.nn.functional.softplus(-2 * x))
            exact = torch.trapezoid(-log_normal.exp() * (log_normal - slope), x).item()
            mine = TanhGaussian(torch.tensor([mean]), torch.tensor([math.log(std)])).entropy().item()
            assert mine == pytest.approx(exact, abs=tolerance), (mean, std)


def test_tanh_mode_is_the_mean_of_the_squashed_variable():
    # int tanh(x) N(x) dx, on a fine grid in float64
    for std in (0.1, 0.6, 1.0, 2.0):
        for mean in (0.0, 0.5, -3.0):
            x = torch.linspace(mean - 9 * std, mean + 9 * std, 20_001, dtype=torch.float64)
            density = torch.exp(-0.5 * ((x - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
            exact = torch.trapezoid(density * torch.tanh(x), x).item()
            mine = TanhGaussian(torch.tensor([mean]), torch.tensor([math.log(std)])).mode().item()
            assert math.tanh(mine) == pytest.approx(exact, abs=1e-4), (mean, std)


# ---------------------------------------------------------------- sampling


def chi2(counts, probs):
    expected = probs * counts.sum()
    return ((counts - expected) ** 2 / expected).sum()


def test_categorical_frequencies():
    probs = torch.tensor([0.02, 0.3, 0.08, 0.4, 0.2])
    action = Categorical(probs.log().expand(40_000, 5)).sample(noise(40_000, 1))
    # 4 degrees of freedom: the 99.9 % point is 18.5
    assert chi2(np.bincount(action.numpy(), minlength=5), probs.numpy().astype(np.float64)) < 18.5


def test_multi_categorical_frequencies_are_independent():
    x = randn(9, seed=2)
    action = MultiCategorical(x.expand(60_000, 9), NVEC).sample(noise(60_000, 3, seed=1))
    joint = np.ravel_multi_index(action.numpy().T, NVEC)
    a, b, c = (part.softmax(-1).double().numpy() for part in x.split(NVEC, -1))
    probs = np.einsum("i,j,k->ijk", a, b, c).ravel()
    # 23 degrees of freedom: the 99.9 % point is 49.7
    assert chi2(np.bincount(joint, minlength=24), probs) < 49.7


def test_bernoulli_frequencies():
    x = torch.tensor([-2.0, 0.0, 1.5])
    action = Bernoulli(x.expand(40_000, 3)).sample(noise(40_000, 3))
    p = torch.sigmoid(x).double().numpy()
    deviation = np.sqrt(p * (1 - p) / 40_000)
    assert (np.abs(action.double().mean(0).numpy() - p) < 3.5 * deviation).all()


def test_gaussian_samples_are_the_quantiles():
    normal = statistics.NormalDist(0.5, 2.0)
    policy = Gaussian(torch.tensor([0.5]), torch.tensor([math.log(2)]))
    squashed = TanhGaussian(torch.tensor([0.5]), torch.tensor([math.log(2)]))
    for u in (LOWEST, 1e-3, 0.2, 0.5, 0.9, HIGHEST):
        u = torch.tensor(u, dtype=torch.float32).item()
        sample = policy.sample(torch.tensor([u])).item()
        assert sample == pytest.approx(normal.inv_cdf(u), rel=1e-5, abs=1e-5)
        assert squashed.sample(torch.tensor([u])).item() == sample  # kept before it is squashed


@pytest.mark.parametrize("kind", KINDS)
def test_samples_increase_with_the_noise(kind):
    x, build, k = make(kind)
    u = torch.linspace(0, 1, 999).clamp(LOWEST, HIGHEST)[:, None].expand(999, k)
    action = build(x.expand(999, -1)).sample(u)
    steps = action.double().diff(dim=0)
    assert (steps >= 0).all()
    assert (action[0] < action[-1]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_extreme_noise_gives_legal_actions(kind):
    for scale in (1.0, 100.0):
        x, build, k = make(kind, 64)
        policy = build(scale * x)
        for u in (LOWEST, HIGHEST):
            action = policy.sample(torch.full((64, k), u))
            assert action.isfinite().all()
            assert policy.log_prob(action).isfinite().all()
            if kind == "categorical":
                assert ((action >= 0) & (action < 5)).all()
            if kind == "multi":
                assert (action < torch.tensor(NVEC)).all()


@pytest.mark.parametrize(("kind", "dtype"), list(zip(KINDS, DTYPES, strict=True)))
def test_batches_are_rows(kind, dtype):
    x, build, k = make(kind, 4, 3)
    u = noise(4, 3, k)
    action = build(x).sample(u)
    assert action.dtype == build(x).mode().dtype == dtype
    for t in range(4):
        for n in range(3):
            alone = build(x[t, n])
            assert torch.equal(alone.sample(u[t, n]), action[t, n])
            assert torch.equal(alone.mode(), build(x).mode()[t, n])
            torch.testing.assert_close(alone.entropy(), build(x).entropy()[t, n])
            torch.testing.assert_close(alone.log_prob(action[t, n]), build(x).log_prob(action)[t, n])


@pytest.mark.parametrize("kind", ["categorical", "multi", "bernoulli", "gaussian"])
def test_the_mode_is_the_most_likely_action(kind):
    x, build, k = make(kind, 20)
    policy = build(x)
    best = policy.log_prob(policy.mode())
    for seed in range(10):
        assert (policy.log_prob(policy.sample(noise(20, k, seed=seed))) <= best).all()


# ---------------------------------------------------------------- masks


def masked_cases():
    g = torch.Generator().manual_seed(0)
    mask = torch.rand(200, 9, generator=g) < 0.5
    mask[:, [0, 4, 8]] = True  # one choice of each component remains
    return randn(200, 9, scale=3.0), mask


def test_masked_choices_are_never_taken():
    logits, mask = masked_cases()
    logits[~mask] += 20  # the network wants them
    for policy in (Categorical(logits, mask), MultiCategorical(logits, NVEC, mask)):
        multi = isinstance(policy, MultiCategorical)
        start = torch.tensor([0, 3, 5]) if multi else torch.tensor([0])
        actions = [
            policy.sample(torch.full((200, 3 if multi else 1), u)) for u in (LOWEST, 0.3, 0.99, HIGHEST)
        ]
        for action in [*actions, policy.mode()]:
            chosen = (action if multi else action[:, None]) + start
            assert mask.gather(1, chosen).all()
    probs = Categorical(logits, mask).log_probs.exp()
    assert (probs[~mask] == 0).all()
    row = mask[0]  # the rest is renormalized
    torch.testing.assert_close(
        Categorical(logits, mask).log_probs[0, row], Categorical(logits[0, row]).log_probs
    )


def test_masked_gradients_are_finite_and_stay_off_the_masked():
    logits, mask = masked_cases()
    illegal = (~mask).float().argmax(-1)  # a masked choice where there is one
    for build in (lambda x: Categorical(x, mask), lambda x: MultiCategorical(x, NVEC, mask)):
        x = logits.clone().requires_grad_()
        policy = build(x)
        action = policy.mode()
        old = policy.log_prob(action).detach()
        loss = ((policy.log_prob(action) - old).exp() + policy.entropy() + policy.kl(build(logits + 1))).sum()
        loss.backward()
        assert loss.isfinite()
        assert x.grad.isfinite().all()
        assert (x.grad[~mask] == 0).all()
    x = logits.clone().requires_grad_()
    impossible = Categorical(x, mask).log_prob(illegal)
    assert impossible.isfinite().all()
    assert (impossible[~mask.all(-1)] < -1e30).all()
    impossible.exp().sum().backward()
    assert x.grad.isfinite().all()


def test_a_row_without_any_choice_is_uniform_and_legal():
    logits = randn(2, 9)
    none = torch.zeros(2, 9, dtype=torch.bool)
    torch.testing.assert_close(Categorical(logits, none).entropy(), torch.full((2,), math.log(9)))
    policy = MultiCategorical(logits, NVEC, none)
    torch.testing.assert_close(policy.entropy(), torch.full((2,), math.log(3 * 2 * 4)))
    assert (policy.sample(torch.full((2, 3), HIGHEST)) == torch.tensor(NVEC) - 1).all()


# ---------------------------------------------------------------- gradients, compile


@pytest.mark.parametrize("kind", KINDS)
def test_compiles_and_differentiates(kind):
    x, build, k = make(kind, 4)
    u = noise(4, k)

    def act(x, u):
        policy = build(x)
        action = policy.sample(u)
        return action, policy.log_prob(action), policy.entropy(), policy.mode(), policy.kl(build(2 * x))

    torch.compiler.reset()
    compiled = torch.compile(act, fullgraph=True, backend="aot_eager")
    for mine, theirs in zip(act(x, u), compiled(x, u), strict=True):
        torch.testing.assert_close(mine, theirs)
    action = build(x).sample(u)

    def loss(x):
        return (build(x).log_prob(action) + build(x).entropy() + build(x).kl(build(2 * x))).sum()

    assert torch.func.grad(loss)(x).isfinite().all()
    for scale in (0.0, 30.0, 1000.0):
        assert torch.func.grad(loss)(scale * x).isfinite().all()
    reference_x = x.double().requires_grad_()
    if kind in ("categorical", "multi", "bernoulli"):
        assert torch.autograd.gradcheck(loss, (reference_x,))


def test_gaussian_samples_are_differentiable():
    mean = randn(3, 2).requires_grad_()
    log_std = torch.zeros(2, requires_grad=True)
    u = noise(3, 2)
    Gaussian(mean, log_std).sample(u).sum().backward()
    torch.testing.assert_close(mean.grad, torch.ones(3, 2))
    z = math.sqrt(2) * torch.erfinv(2 * u - 1)
    torch.testing.assert_close(log_std.grad, z.sum(0))


# ---------------------------------------------------------------- heads


def test_heads_say_how_much_they_need():
    hybrid = Dict(
        (("gear", Discrete(3)), ("inner", Dict((("wheel", Box((2, 2), "float32")), ("on", MultiBinary(2))))))
    )
    expected = {  # outputs, uniforms, log_std, entries of a mask, shape of an action
        Discrete(5): (5, 1, 0, 5, ()),
        MultiDiscrete(NVEC, (0, 0, 0)): (9, 3, 0, 9, (3,)),
        MultiBinary(3): (3, 3, 0, 0, (3,)),
        Box((2, 3), "float32", -1.0, 1.0): (6, 6, 6, 0, (2, 3)),
        Box((), "float32"): (1, 1, 1, 0, ()),
        hybrid: (9, 7, 4, 3, (7,)),
    }
    for space, (*needs, shape) in expected.items():
        head = action_head(space)
        assert [head.size, head.noise_size, head.log_std_size, head.choices] == needs
        assert action_row(space) == (shape, row_dtype(space) if space is not hybrid else "float32")
        log_std = torch.zeros(head.log_std_size) if head.log_std_size else None
        policy = head.distribution(torch.zeros(7, 4, head.size), log_std)
        action = policy.sample(noise(7, 4, head.noise_size))
        assert policy.log_prob(action).shape == policy.entropy().shape == (7, 4)
        assert head.to_env(action).shape == (7, 4, *shape)
        assert not list(head.state_dict())
        if not head.log_std_size:
            assert head.to_env(action) is action


def test_head_applies_masks_of_integers():
    mask = torch.tensor([[0, 1, 0], [1, 0, 0]], dtype=torch.int8)
    policy = action_head(Discrete(3)).distribution(torch.zeros(2, 3), mask=mask)
    assert policy.mode().tolist() == [1, 0]


def test_box_actions_reach_the_environment_in_its_units():
    # component 0 in [0, 10], 1 in [-2, -1], 2 unbounded, 3 only below 1, 4 only above 3
    low, high = np.array([0.0, -2.0, -np.inf, -np.inf, 3.0]), np.array([10.0, -1.0, np.inf, 1.0, np.inf])
    head = action_head(Box((5,), "float32", low, high))
    action = torch.tensor([[-1.0] * 5, [0.0] * 5, [1.0] * 5, [7.0] * 5, [-7.0] * 5])
    expected = [
        [0.0, -2.0, -1.0, -1.0, 3.0],
        [5.0, -1.5, 0.0, 0.0, 3.0],
        [10.0, -1.0, 1.0, 1.0, 3.0],
        [10.0, -1.0, 7.0, 1.0, 7.0],  # clipped at the bounds there are
        [0.0, -2.0, -7.0, -7.0, 3.0],
    ]
    torch.testing.assert_close(head.to_env(action), torch.tensor(expected))
    assert head.to_env(action.view(5, 1, 5)).shape == (5, 1, 5)


def test_box_actions_keep_bounds_that_float32_cannot_hold():
    head = action_head(Box((2,), "float64", -0.1, 0.1))  # float32(0.1) > 0.1
    action = head.to_env(torch.tensor([[5.0, -5.0]])).double()
    assert (action.abs() <= 0.1).all()
    torch.testing.assert_close(action, torch.tensor([[0.1, -0.1]]).double(), rtol=1e-6, atol=0)


def test_tanh_head_fills_the_box():
    head = action_head(Box((1,), "float32", -3.0, 5.0), "tanh")
    policy = head.distribution(torch.tensor([[30.0], [-30.0], [0.0]]), torch.zeros(1))
    torch.testing.assert_close(head.to_env(policy.mode()), torch.tensor([[5.0], [-3.0], [1.0]]))


# ---------------------------------------------------------------- composite actions

STEER = Dict((("steer", Box((1,), "float32", -2.0, 4.0)), ("gear", Discrete(3))))
CHOICES = Dict(
    (
        ("a", Discrete(3)),
        ("inner", Dict((("m", MultiDiscrete((2, 3), (0, 0))), ("b", MultiBinary(2))))),
        ("last", Discrete(2)),
    )
)


def joint_actions():
    """Every action of CHOICES, flat: [3 * 6 * 4 * 2, 6]."""
    counts = (3, 2, 3, 2, 2, 2)
    return torch.tensor(list(itertools.product(*map(range, counts))), dtype=torch.float32)


def test_composite_by_hand():
    # steer ~ N(0.5, 1), gear ~ (1/4, 1/2, 1/4):
    # log p(steer = 1.5, gear = 1) = -1/2 - log(2 pi)/2 + log(1/2);  H = (1 + log 2 pi)/2 + 3/2 log 2
    head = action_head(STEER)
    policy = head.distribution(torch.tensor([0.5, 0.0, math.log(2), 0.0]), torch.zeros(1))
    log_prob = policy.log_prob(torch.tensor([1.5, 1.0])).item()
    assert log_prob == pytest.approx(-0.5 - 0.5 * math.log(2 * math.pi) + math.log(0.5))
    entropy = 0.5 * (1 + math.log(2 * math.pi)) + 1.5 * math.log(2)
    assert policy.entropy().item() == pytest.approx(entropy)
    assert policy.mode().tolist() == [0.5, 1.0]
    # the noise of each part is its own: the median of steer, and 0.8 lies in the third quarter's gear
    assert policy.sample(torch.tensor([0.5, 0.8])).tolist() == [0.5, 2.0]
    # steer in [-2, 4]: 0.5 -> 1 + 3 * 0.5, 7 is clipped; gears stay as they are
    assert head.to_env(torch.tensor([[0.5, 2.0], [7.0, 1.0]])).tolist() == [[2.5, 2.0], [4.0, 1.0]]


def test_composite_closed_form():
    """KL(N(1, 2) || N(0, 1)) = 2 - log 2; KL((1/4, 3/4, 0) || (1/2, 1/2, 0)) = log(1/2)/4 + 3/4 log(3/2)."""
    head, mask = action_head(STEER), torch.tensor([1, 1, 0])
    mine = head.distribution(torch.tensor([1.0, 0.0, math.log(3), 9.0]), torch.tensor([math.log(2)]), mask)
    other = head.distribution(torch.tensor([0.0, 0.0, 0.0, -4.0]), torch.zeros(1), mask)
    expected = 2 - math.log(2) + 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert mine.kl(other).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_composite_against_all_joint_actions(masked):
    head, actions = action_head(CHOICES), joint_actions()
    # a: {0, 2}; m: {1} and {0, 2}; last: {0}
    mask = torch.tensor([1, 0, 1, 0, 1, 1, 0, 1, 1, 0], dtype=torch.int8) if masked else None

    def rows(seed, count):
        return head.distribution(randn(head.size, seed=seed).expand(count, -1), mask=mask)

    allowed = torch.ones(len(actions), dtype=torch.bool)
    if masked:
        a, m0, m1, _, _, last = actions.unbind(-1)
        allowed = (a != 1) & (m0 == 1) & (m1 != 1) & (last == 0)
    p, q = (rows(seed, len(actions)).log_prob(actions).double().exp() for seed in (0, 1))
    assert p.sum().item() == pytest.approx(1.0, abs=1e-6)
    assert torch.equal(p > 0, allowed)
    p, q, actions = p[allowed], q[allowed], actions[allowed]
    policy, other = rows(0, 1), rows(1, 1)
    torch.testing.assert_close(policy.entropy()[0].double(), -(p * p.log()).sum(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(policy.kl(other)[0].double(), (p * (p / q).log()).sum(), rtol=1e-5, atol=1e-5)
    assert torch.equal(policy.mode()[0], actions[p.argmax()])
    drawn = rows(0, 50_000).sample(noise(50_000, head.noise_size))  # [50000, 6]
    rate = (drawn[:, None] == actions).all(-1).double().mean(0)
    assert rate.sum() == 1  # nothing but allowed actions
    # four standard deviations of a rate over 50,000 draws
    assert ((rate - p).abs() < 4 * (p * (1 - p) / 50_000).sqrt() + 1e-6).all()


def test_composite_is_the_sum_of_its_parts_with_gradients():
    head = action_head(STEER, "tanh")
    outputs, log_std = randn(5, 4, head.size).requires_grad_(), torch.tensor([-0.3], requires_grad=True)
    policy = head.distribution(outputs, log_std)
    action = policy.sample(noise(5, 4, head.noise_size)).detach()
    tanh, gear = TanhGaussian(outputs[..., :1], log_std), Categorical(outputs[..., 1:])
    expected = tanh.log_prob(action[..., :1]) + gear.log_prob(action[..., 1].long())
    torch.testing.assert_close(policy.log_prob(action), expected)
    torch.testing.assert_close(policy.entropy(), tanh.entropy() + gear.entropy())
    policy.log_prob(action).sum().backward()
    assert torch.isfinite(outputs.grad).all() and outputs.grad.abs().sum((0, 1)).min() > 0
    with pytest.raises(TypeError, match="Composite and Categorical"):
        policy.kl(gear)
    assert isinstance(policy, Composite)


def test_heads_refuse_what_they_cannot_do():
    with pytest.raises(ValueError, match=r"acts in a Dict\(\): it has no entries"):
        action_head(Dict(()))
    with pytest.raises(
        ValueError, match=r"entry a\.b of the action space: no policy acts in a Box\(1,\) of int8"
    ):
        action_head(Dict((("a", Dict((("b", Box((1,), "int8")),))),)))
    with pytest.raises(ValueError, match="mask needs choices; a Dict of Box"):
        action_head(Dict((("a", Box((1,), "float32")),))).distribution(
            torch.zeros(1), torch.zeros(1), torch.ones(1)
        )
    with pytest.raises(ValueError, match=r"Box\(2,\) of int64"):
        action_head(Box((2,), "int64", 0.0, 5.0))
    with pytest.raises(ValueError, match="'beta' of a continuous policy; allowed: gaussian, tanh"):
        action_head(Discrete(2), "beta")
    with pytest.raises(ValueError, match=r"component 1 .* lies in \[0.0, inf\]; use kind='gaussian'"):
        action_head(Box((2,), "float32", np.array([-1.0, 0.0]), np.array([1.0, np.inf])), "tanh")
    with pytest.raises(ValueError, match="needs log_std"):
        action_head(Box((2,), "float32")).distribution(torch.zeros(2))
    with pytest.raises(ValueError, match="mask needs choices"):
        action_head(MultiBinary(2)).distribution(torch.zeros(2), mask=torch.ones(2))
