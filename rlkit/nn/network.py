"""The network every agent uses: encoder -> core -> named heads.

    [T, N, ...] observations -> encoder -> [T, N, F] -> core (memory) -> [T, N, D] -> head -> [T, N, size]

`trunks` says which heads share an encoder and a core: one trunk for all (pixels), or one each (vectors). The state is
(frame history or (), one core state per trunk); every leaf is [N, ...].
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from rlkit.nn.config import NetworkConfig
from rlkit.nn.core import make_core
from rlkit.nn.encoders import make_encoder
from rlkit.nn.privileged import VALUE, check_privileged
from rlkit.nn.shift import Shift
from rlkit.nn.stack import stack_rows
from rlkit.spaces import Box, leaves, row_dtype, without
from rlkit.types import EnvSpec, Obs, State, tree_map

Head: TypeAlias = "tuple[int, float] | Callable[[int], nn.Module] | None"


class Network(nn.Module):
    """Heads over trunks over one observation space.

    heads: name -> (number of outputs, gain of the orthogonal initialisation), a linear head; small gains start a policy
    near uniform. Or a function of D that makes the head. None stands for a head that is not this network's: its owner
    reads `features`.
    """

    def __init__(self, spec: EnvSpec, config: NetworkConfig, heads: Mapping[str, Head]) -> None:
        super().__init__()
        if spec.stack > 1 and not isinstance(spec.observation, Box):
            kind = type(spec.observation).__name__
            raise ValueError(
                f"env.stack={spec.stack}: only Box observations are stacked; this one is {kind}: env.stack=1"
            )
        self.spec = spec
        check_privileged(spec, config, heads)
        self.privileged = config.privileged
        shared = False if config.privileged else config.shared
        if shared is None:  # a convolutional encoder is most of the work, so it is shared
            shared = any(isinstance(leaf, Box) and leaf.image for _, leaf in leaves(spec.inputs))
        names = list(heads)
        groups = [names] if shared else [[name] for name in names]
        self.trunk_of = {name: i for i, group in enumerate(groups) for name in group}
        # what only the value may read is kept from every other trunk
        inputs = [
            spec.inputs if group == [VALUE] else without(spec.inputs, config.privileged) for group in groups
        ]
        encoders = [make_encoder(each, spec.stack, config) for each in inputs]
        cores = [make_core(config, encoder.features) for encoder in encoders]
        self._trunks = list(zip(encoders, cores, strict=True))  # typed; registered by the two lists below
        self.encoders, self.cores = nn.ModuleList(encoders), nn.ModuleList(cores)
        if config.encoder_lr == 0:  # they have no gradient, which would count in clip_norm
            self.encoders.requires_grad_(False)
        elif config.encoder_lr != 1:
            for weight in self.encoders.parameters():
                weight.lr_scale = config.encoder_lr  # type: ignore[attr-defined]  # rlkit.learn.optim reads it
        self.heads = nn.ModuleDict()
        for name, head in heads.items():
            if head is None:
                continue
            if callable(head):
                self.heads[name] = head(self.width(name))
                continue
            linear = nn.Linear(self.width(name), head[0])
            nn.init.orthogonal_(linear.weight, head[1])
            nn.init.zeros_(linear.bias)
            self.heads[name] = linear
        self.augment = (
            Shift(spec.inputs, config.augment_pixels, alike=not self.memoryless)
            if config.augment == "shift"
            else None
        )

    def width(self, name: str) -> int:
        """D: how many features the head `name` reads."""
        return self._trunks[self.trunk_of[name]][1].features

    @property
    def memoryless(self) -> bool:
        """No core remembers (a frame stack is no hindrance to shuffling transitions: its frames are at hand).

        Asked on "meta", where a large memory takes none.
        """
        return all(core.initial_state(1, "meta") == () for _, core in self._trunks)

    def initial_state(self, lanes: int, device: torch.device | str = "cpu") -> State:
        """Memory before any observation; every leaf is [lanes, ...]."""
        frames: State = ()
        if self.spec.stack > 1:
            space = self.spec.observation
            shape = (lanes, self.spec.stack - 1, *space.shape)  # type: ignore[union-attr]
            frames = (torch.zeros(shape, dtype=getattr(torch, row_dtype(space)), device=device),)
        return (frames, *(core.initial_state(lanes, device) for _, core in self._trunks))

    def forward(self, obs: Obs, first: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """obs [T, N, ...], first [T, N], state of N lanes -> head outputs [T, N, size], next state."""
        features, state = self.features(obs, first, state)
        return {name: self.head(name, features[name]) for name in self.heads}, state

    def features(
        self, obs: Obs, first: Tensor, state: State, names: Collection[str] | None = None
    ) -> tuple[dict[str, Tensor], State]:
        """What the heads `names` (default: all) read: name -> [T, N, D], next state.

        Trunks that none of them reads are not computed, and keep their state, as does whatever a policy keeps behind
        the network's own. A state without frames means that obs are stacks already, [T, N, k, ...].
        """
        rows, lanes = first.shape
        frames, core_states = state[0], list(state[1:])
        if frames:
            obs, history = stack_rows(obs, first, frames[0])  # type: ignore[arg-type]
            frames = (history,)
        flat = tree_map(lambda x: x.flatten(0, 1), obs)  # [T*N, ...]
        if self.augment is not None and self.augment.on:
            flat = self.augment(flat, rows, lanes)
        names = self.trunk_of if names is None else names
        features: dict[int, Tensor] = {}
        for i in sorted({self.trunk_of[name] for name in names}):
            encoder, core = self._trunks[i]
            x = encoder(flat).view(rows, lanes, -1)  # [T*N, F] -> [T, N, F]
            features[i], core_states[i] = core(x, first, core_states[i])
        return {name: features[self.trunk_of[name]] for name in names}, (frames, *core_states)

    def head(self, name: str, features: Tensor) -> Tensor:
        """A head's outputs, in float32 whatever the trunk's precision: log-probabilities are differences of them."""
        if features.dtype == torch.float32 and not torch.is_autocast_enabled(features.device.type):
            return self.heads[name](features)  # type: ignore[no-any-return]
        with torch.autocast(features.device.type, enabled=False):
            return self.heads[name](features.float())  # type: ignore[no-any-return]

    def observe(self, obs: Any, valid: Tensor | None = None) -> None:
        """Let the observation normalizers take in rows [..., ...]; a network without them ignores this."""
        for encoder, _ in self._trunks:
            encoder.observe(obs, valid)
