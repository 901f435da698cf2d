"""One environment that shows labels beside its observation."""

from __future__ import annotations

from dataclasses import replace

from gymnasium import spaces

from rlkit.envs.aliases import Env, GymSpace, Info, Opening, Step, Value, Wrapper
from rlkit.envs.config import EnvConfig
from rlkit.envs.labels import LABEL, STATE, Labels, entry_of, family, refuse_entry
from rlkit.envs.wrappers.rendered import Rendered, rendered
from rlkit.spaces import from_gymnasium


class State(Labels):
    """Of an environment that is seen as it is drawn: its own observation, and the labels that it has itself."""

    @classmethod
    def offered(cls, kind: object, id: str) -> tuple[str, ...]:
        return (STATE,)

    def __init__(self, drawn: Rendered, others: Labels | None, names: tuple[str, ...]) -> None:
        self.drawn, self.others = drawn, others
        known = {STATE: drawn.own, **({} if others is None else others.spaces)}
        self.spaces = {name: known[name] for name in names}

    def read(self, action: Value | None) -> dict[str, Value]:
        return {STATE: self.drawn.state, **({} if self.others is None else self.others.read(action))}


def labels_of(env: Env, config: EnvConfig, shown: GymSpace) -> Labels:
    """What says the labels of `config` of an environment, of whose observation the agent sees `shown`.

    Raises ValueError for labels that it does not have.
    """
    drawn = rendered(env)
    if drawn is not None and STATE in config.labels:
        others = tuple(name for name in config.labels if name != STATE)
        own = labels_of(env, replace(config, labels=others), shown) if others else None
        return State(drawn, own, config.labels)
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
