"""One environment that shows labels beside its observation."""

from __future__ import annotations

from gymnasium import spaces

from rlkit.envs.aliases import Env, GymSpace, Info, Opening, Step, Value, Wrapper
from rlkit.envs.config import EnvConfig
from rlkit.envs.labels import LABEL, Labels, entry_of, family, refuse_entry
from rlkit.spaces import from_gymnasium


def labels_of(env: Env, config: EnvConfig, shown: GymSpace) -> Labels:
    """What says the labels of `config` of an environment, of whose observation the agent sees `shown`.

    Raises ValueError for labels that it does not have.
    """
    kind = family(config, type(env.unwrapped))
    assert issubclass(kind, Labels), f"{kind.__name__} labels one environment"
    return kind(env.unwrapped, config.labels, tuple(shown.shape or ()), config)


def labelled_space(space: GymSpace, labels: Labels, config: EnvConfig) -> spaces.Dict:
    """An observation space with the labels. Raises ValueError where it has an entry of that name."""
    if isinstance(space, spaces.Dict):
        entries = [(str(key), sub) for key, sub in space.spaces.items()]
        refuse_entry(config, (key for key, _ in entries))
    else:
        entries = [(entry_of(from_gymnasium(space, config.channels)), space)]
    return spaces.Dict([*entries, (LABEL, spaces.Dict(list(labels.spaces.items())))])


class Labelled(Wrapper):
    """Puts labels into the observation."""

    def __init__(self, env: Env, config: EnvConfig) -> None:
        super().__init__(env)
        shown = env.observation_space
        self.labels = labels_of(env, config, shown)
        self.observation_space = labelled_space(shown, self.labels, config)
        self.entry = (
            "" if isinstance(shown, spaces.Dict) else entry_of(from_gymnasium(shown, config.channels))
        )

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> Opening:
        obs, info = self.env.reset(seed=seed, options=options)
        return self.beside(obs, None), info

    def step(self, action: Value) -> Step:
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self.beside(obs, action), reward, terminated, truncated, info

    def beside(self, obs: Value, action: Value | None) -> dict[str, Value]:
        """The observation with the labels of the present frame."""
        own = {self.entry: obs} if self.entry else {str(key): part for key, part in obs.items()}
        return {**own, LABEL: self.labels.read(action)}
