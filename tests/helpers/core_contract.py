"""What every core promises (`rlkit.nn.core`), as one check that any core can be put through."""

import torch

from rlkit.compile import Compiled
from rlkit.types import tree_leaves, tree_map

TOLERANCE = 1e-5


def check_core(core, features, rows=13, lanes=4, seed=0, remembers=True, gradients=True):
    """Put `core`, which reads [T, N, features], through its contract.

    remembers: whether the past may change the present (else it must not); gradients: whether there are any with
    respect to its inputs. Raises AssertionError.
    """
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, lanes, features, generator=g)
    first = torch.rand(rows, lanes, generator=g) < 0.2
    first[0] = torch.arange(lanes) % 2 == 0  # lane 1 goes on with an earlier episode
    first[3, 0] = first[4, 0] = True  # two starts in a row
    with torch.no_grad():
        before = _past(core, features, lanes, g)
        y, state = core(x, first, before)
        assert y.shape == (rows, lanes, core.features), f"y has shape {tuple(y.shape)}"
        _chunks(core, x, first, before, y, state)
        _lanes(core, x, first, before, y, state)
        _episodes(core, x, first, before, y)
        _pure(core, x, first, before)
        _remembers(core, x, lanes, remembers)
    if gradients:
        _gradients(core, x, before, remembers)


def check_compiled(core, features, rows=5, lanes=3):
    """Outputs, state and gradients of `core` as one compiled graph == eager."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(rows, lanes, features, generator=g)
    first = torch.rand(rows, lanes, generator=g) < 0.3
    before = tree_map(torch.clone, _past(core, features, lanes, g))

    def loss(x, first, state):
        y, state = core(x, first, state)
        return (y * torch.linspace(-1, 1, y.shape[-1])).square().sum(), (y.detach(), state)

    expected, (y, state) = loss(x, first, before)
    parameters = list(core.parameters())
    expected = torch.cat([p.flatten() for p in torch.autograd.grad(expected, parameters)])
    gradient, (out, end) = Compiled(core, loss, True, parameters)(x, first, before)
    _same(out, y, "compiled")
    _same_state(end, state, "state of the compiled call")
    _same(gradient / expected.norm(), expected / expected.norm(), "gradient of the compiled call")


def _past(core, features, lanes, g):
    """A state that is not the initial one."""
    initial = core.initial_state(lanes, torch.device("cpu"))
    for leaf in tree_leaves(initial):
        assert leaf.shape[0] == lanes, f"a leaf of the state has shape {tuple(leaf.shape)}: lanes come first"
    x = torch.randn(6, lanes, features, generator=g)
    with torch.no_grad():
        _, state = core(x, torch.zeros(6, lanes, dtype=torch.bool), initial)
    return state


def _same(a, b, what):
    torch.testing.assert_close(a, b, rtol=TOLERANCE, atol=TOLERANCE, msg=lambda m: f"{what}: {m}")


def _same_state(a, b, what):
    tree_map(lambda p, q: _same(p, q, what), a, b)


def _chunks(core, x, first, before, y, state):
    """Stepped one by one == unrolled == uneven chunks, outputs and final state."""
    rows = x.shape[0]
    for sizes in ([1] * rows, [rows - 1, 1], [1, 4, rows - 5], [5, rows - 5]):
        now, parts = before, []
        for part, starts in zip(x.split(sizes), first.split(sizes), strict=True):
            out, now = core(part, starts, now)
            parts.append(out)
        _same(torch.cat(parts), y, f"chunks of {sizes}")
        _same_state(now, state, f"state after chunks of {sizes}")


def _lanes(core, x, first, before, y, state):
    """Indexing lanes of input and state == running these lanes alone."""
    index = torch.tensor([x.shape[1] - 1, 0])
    out, end = core(x[:, index], first[:, index], tree_map(lambda s: s[index], before))
    _same(out, y[:, index], "the last and the first lane alone")
    _same_state(end, tree_map(lambda s: s[index], state), "state of the last and the first lane alone")


def _episodes(core, x, first, before, y):
    """From its first row on, an episode depends on nothing before: not on inputs, not on the state."""
    for lane in range(x.shape[1]):
        for t in first[:, lane].nonzero().flatten().tolist():
            changed = x.clone()
            changed[:t, lane] += 10
            other = tree_map(lambda s: s + 1 if s.is_floating_point() else s, before)
            out, _ = core(changed, first, other)
            _same(out[t:, lane], y[t:, lane], f"lane {lane} from its episode at row {t} on")
            alone, _ = core(x[t:, lane : lane + 1], first[t:, lane : lane + 1], core.initial_state(1))
            _same(alone[:, 0], y[t:, lane], f"lane {lane} from row {t} with a fresh state")


def _pure(core, x, first, before):
    """Neither inputs nor the given state are written to."""
    copies = tree_map(torch.clone, (x, first, before))
    core(x, first, before)
    tree_map(lambda a, b: _same(a, b, "an argument was written to"), (x, first, before), copies)


def _remembers(core, x, lanes, remembers):
    """Without an episode's start in between, an early row reaches later ones (exactly if it should)."""
    first = torch.zeros(x.shape[:2], dtype=torch.bool)
    first[0] = True
    changed = x.clone()
    changed[0] += 1
    y, _ = core(x, first, core.initial_state(lanes))
    z, _ = core(changed, first, core.initial_state(lanes))
    differs = bool(((y - z)[1:].abs() > TOLERANCE).any())
    assert differs == remembers, f"the past {'changes' if differs else 'does not change'} what follows"


def _gradients(core, x, before, remembers):
    """They reach back to the episode's first row within the call (exactly if it remembers), and never the state."""
    rows, lanes = x.shape[:2]
    first = torch.zeros(rows, lanes, dtype=torch.bool)
    first[3] = True
    x = x.clone().requires_grad_(True)
    given = tree_map(lambda s: s.clone().requires_grad_(s.is_floating_point()), before)
    y, state = core(x, first, given)
    assert not any(s.requires_grad for s in tree_leaves(state)), "the state returned carries gradients"
    if not y.requires_grad:
        return
    inputs = [x, *(s for s in tree_leaves(given) if s.requires_grad)]
    for t in (2, 5):
        weights = torch.linspace(1, 2, y.shape[-1])  # the sum of a normalized output would be constant
        reached, *of_state = torch.autograd.grad(
            (y[t] * weights).sum(), inputs, retain_graph=True, allow_unused=True
        )
        assert not any(s is not None and s.any() for s in of_state), "a gradient reaches the given state"
        reached = reached.abs().amax((1, 2)) > 0  # [T]
        start = 3 if t >= 3 else 0
        expected = [start <= s <= t if remembers else s == t for s in range(rows)]
        assert reached.tolist() == expected, (
            f"row {t} learns from rows {reached.nonzero().flatten().tolist()}"
        )
