"""Collecting: the same bytes whoever steps and however often it was cut; who drives, and what is refused."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlkit.config import registry
from rlkit.config.compose import compose
from rlkit.config.registry import env_config
from rlkit.envs.config import EnvConfig
from rlkit.options import ConfigError, build
from rlkit.perception import collect as collecting
from rlkit.perception import run as tasks
from rlkit.perception import sets
from rlkit.perception import table as tables
from rlkit.perception.collect import CollectConfig, collect, typed
from rlkit.perception.drivers import RHO, Driver, DriverConfig, Expert, Mixture, Noisy, Random
from rlkit.perception.table import Table, TableError, open_table
from rlkit.run.start import train
from rlkit.seeding import Seeds
from rlkit.spaces import MASK, Box, Dict, Discrete, MultiDiscrete
from tests.helpers.killed import Killed
from tests.helpers.sights import ID, Sights

LABELS = ("mask", "vector", "expert")


def config(out: Path, **options: Any) -> CollectConfig:
    """Options; those of the environment and the driver as env_NAME and driver_NAME."""
    env = {"id": ID, "lanes": 3, "backend": "inprocess"}
    driver: dict[str, Any] = {}
    own: dict[str, Any] = {"labels": LABELS, "frames": 60, "seed": 5}
    for name, value in options.items():
        group, _, key = name.partition("_")
        target = {"env": env, "driver": driver}.get(group, own)
        target[key if target is not own else name] = value
    return CollectConfig(EnvConfig(**env), DriverConfig(**driver), out=str(out), **own)


def quiet(given: CollectConfig) -> Table:
    return collect(given, say=lambda text: None)


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table that nothing interrupted, driven by the expert with noise."""
    path = tmp_path_factory.mktemp("collect") / "t"
    quiet(config(path, driver_name="seeker", driver_noise=0.4))
    return path


def test_rows_are_what_was_shown_done_and_known(whole: Path) -> None:
    """Against the environment itself, played again with the actions of the table."""
    table = open_table(whole)
    assert table.rows == 60 and table.inputs == ["image"] and table.labels == list(LABELS)
    seeds, opened = Seeds(5, False, 0, 3), np.flatnonzero(table["first"])
    assert opened[0] == 0 and len(opened) >= 6
    for number, start in enumerate(opened):
        assert table.groups[start] == seeds.of(number % 3, number // 3)  # one episode after another
        env = Sights()
        env.reset(seed=int(table.groups[start]))
        end = opened[number + 1] if number + 1 < len(opened) else table.rows
        for row in range(start, end):
            np.testing.assert_array_equal(table["image"][row], env._seen())
            np.testing.assert_array_equal(table["label.mask"][row], env.mask())
            np.testing.assert_array_equal(table["label.vector"][row], env.state())
            assert table["label.expert"][row] == np.sign(4 - env.x) + 1
            assert table.groups[row] == table.groups[start]
            over = env.step(table["action"][row])[2]
            assert over == (row == end - 1) or end == table.rows
    swapped = (table["action"] != table["label.expert"]).mean()
    assert 0.1 < swapped < 0.45  # 0.4 of the actions are drawn, of which a third is the expert's


def test_who_steps_changes_no_byte(tmp_path: Path, whole: Path) -> None:
    quiet(
        config(tmp_path / "t", driver_name="seeker", driver_noise=0.4, env_backend="workers", env_workers=2)
    )
    assert contents(tmp_path / "t") == contents(whole)


@pytest.mark.parametrize("how", [Killed, KeyboardInterrupt])
def test_cut_after_any_episode_and_continued_are_the_same_bytes(
    tmp_path: Path, whole: Path, how: type[BaseException]
) -> None:
    given = config(tmp_path / "t", driver_name="seeker", driver_noise=0.4)
    real = tables.Writer.append
    for at in (0, 1, 4, 7):
        count = [0]

        def append(self: Any, rows: Any, whole: bool = True, at: int = at, count: list[int] = count) -> None:
            if count[0] == at:
                raise how
            count[0] += 1
            real(self, rows, whole)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tables.Writer, "append", append)
            with pytest.raises(how):
                quiet(replace(given, out=str(tmp_path / str(at))))
        quiet(replace(given, out=str(tmp_path / str(at))))
        assert contents(tmp_path / str(at)) == contents(whole)


@pytest.mark.parametrize("frames", [1, 13, 59])
def test_a_longer_table_begins_as_the_shorter_one(tmp_path: Path, whole: Path, frames: int) -> None:
    """frames is exact, in the middle of an episode too, and a table that grew is the one collected at once."""
    given = config(tmp_path / "t", driver_name="seeker", driver_noise=0.4, frames=frames)
    short = quiet(given)
    assert short.rows == frames and short.whole <= frames
    for name in short.columns:
        np.testing.assert_array_equal(short[name], open_table(whole)[name][:frames])
    quiet(replace(given, frames=60))
    assert contents(tmp_path / "t") == contents(whole)
    for fewer in (20, 60):  # a table that is as long stays as it is, and is not written
        written = (tmp_path / "t" / "table.json").stat().st_mtime_ns
        assert quiet(replace(given, frames=fewer)).rows == 60
        assert contents(tmp_path / "t") == contents(whole)
        assert (tmp_path / "t" / "table.json").stat().st_mtime_ns == written


def test_a_full_disk_leaves_whole_episodes(tmp_path: Path, whole: Path) -> None:
    given = config(tmp_path / "t", driver_name="seeker", driver_noise=0.4)
    real, count = tables._header, [0]

    def header(column: Any, rows: int) -> bytes:
        count[0] += 1
        if count[0] > 30:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(column, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_header", header)
        with pytest.raises(
            TableError, match="No space left on device; the .* rows before are whole"
        ) as found:
            quiet(given)
    assert "\n" not in str(found.value)
    table = open_table(tmp_path / "t")
    assert 0 < table.rows == table.whole < 60
    quiet(given)
    assert contents(tmp_path / "t") == contents(whole)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"seed": 6}, r"its rows were collected with seed=5, not 6; choose another folder, or type the same"),
        ({"driver_noise": 0.5}, r"with driver.noise=0.4, not 0.5"),
        ({"driver_name": "random"}, r"with driver.name=seeker, not random"),
        ({"env_lanes": 2}, r"with env.lanes=3, not 2"),
        ({"env_kwargs": {"continuous": True}}, r"with env.kwargs="),
        ({"labels": ("mask", "expert")}, r"with env.labels="),
    ],
)
def test_other_options_are_refused(whole: Path, options: dict[str, Any], says: str) -> None:
    before = contents(whole)
    with pytest.raises(ConfigError, match=says) as found:
        quiet(config(whole, **{"driver_name": "seeker", "driver_noise": 0.4, **options}))
    assert "\n" not in str(found.value) and contents(whole) == before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"out": ""}, "out: missing; type out=data/NAME"),
        ({"labels": ("msk",)}, "has no label msk; did you mean mask"),
        ({"labels": (), "driver_name": "seeker"}, r"driver=seeker: .* in its label expert; type labels=\[expert,...\]"),
        ({"driver_name": "pursuit"}, "driver=pursuit: no such driver or run; allowed: random, seeker, or a run's"),
        ({"driver_name": "runs/nothing"}, "runs/nothing does not exist"),
        ({"env_id": "CartPole-v1", "labels": (), "driver_name": "expert"}, "driver=expert: CartPole-v1 has no expert"),
        ({"env_id": "CartPole-v1"}, "CartPole-v1 says nothing of itself"),
        ({"env_id": "rlkit.envs.toys.agents:Lives", "env_backend": "auto", "env_lanes": 2, "labels": ()},
         "has 2 agents; a table has rows of one"),
        ({"env_id": "NoSuch-v1", "labels": ()}, "NoSuch"),
    ],
)  # fmt: skip
def test_what_cannot_be_collected_is_one_line(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    given = config(tmp_path / "t", **{k: v for k, v in options.items() if k != "out"})
    given = replace(given, out=options["out"]) if "out" in options else given
    with pytest.raises(ConfigError, match=says) as found:
        quiet(given)
    assert "\n" not in str(found.value) and not (tmp_path / "t").exists()


def test_frames_are_at_least_one_and_out_holds_no_other_table(tmp_path: Path) -> None:
    plain = {"env": {"id": "CartPole-v1"}}
    with pytest.raises(ConfigError, match="frames=0.*at least 1"):
        build(CollectConfig, plain | {"frames": 0}, types={"env": env_config()})
    writer = tables.Writer(tmp_path / "t", {"x": tables.Column("bool", ())}, {})
    writer.append({"x": np.ones(1, bool)})
    writer.close()
    with pytest.raises(ConfigError, match="t"):
        quiet(config(tmp_path / "t"))
    assert open_table(tmp_path / "t").rows == 1


def drive(
    driver: Driver, obs: Any, steps: int, lanes: int, firsts: set[int] = frozenset({0})
) -> torch.Tensor:  # type: ignore[assignment]
    """[steps, lanes, ...] the actions of a driver that sees the same all the time."""
    generator = torch.Generator().manual_seed(0)
    state, found = driver.initial_state(lanes), []
    for t in range(steps):
        noise = torch.rand(lanes, driver.noise_size, generator=generator).clamp(1e-6, 1 - 1e-6)
        action, state = driver.act(obs, torch.full((lanes,), t in firsts), state, noise)
        found.append(action)
    return torch.stack(found)


def test_random_is_even() -> None:
    """Within four standard deviations, for choices, several of them, numbers, and a Dict of these."""
    torch.set_num_threads(1)
    found = drive(Random(Discrete(4)), torch.zeros(2_000, 1), 2, 2_000).flatten()
    assert found.dtype == torch.int64 and (torch.bincount(found).float() - 1000).abs().max() < 4 * 28
    pair = drive(Random(MultiDiscrete((2, 3), (0, 0))), torch.zeros(2_000, 1), 2, 2_000).view(-1, 2)
    counts = torch.bincount(pair[:, 0] * 3 + pair[:, 1]).float()
    assert len(counts) == 6 and (counts - 4000 / 6).abs().max() < 4 * 24
    box = Box((2,), "float32", np.array([-1.0, 0.0]), np.array([3.0, 0.5]))
    numbers = drive(Random(box), torch.zeros(2_000, 1), 2, 2_000).view(-1, 2)
    assert numbers.dtype == torch.float32
    np.testing.assert_allclose(numbers.mean(0), [1.0, 0.25], atol=4 * 1.16 / 63)
    assert (
        numbers.min() >= -1 and numbers[:, 1].min() >= 0 and numbers.max() <= 3 and numbers[:, 1].max() <= 0.5
    )
    mixed = Dict((("gear", Discrete(3)), ("wheel", Box((1,), "float32", -1.0, 1.0))))
    rows = drive(Random(mixed), torch.zeros(2_000, 1), 1, 2_000)[0]
    assert rows.shape == (2_000, 2) and set(rows[:, 0].tolist()) == {0.0, 1.0, 2.0} and rows[:, 1].std() > 0.5


def test_random_obeys_masks() -> None:
    mask = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0]], dtype=torch.int8).repeat(500, 1)
    found = drive(Random(Discrete(4)), {"x": torch.zeros(1_000, 1), MASK: mask}, 1, 1_000)[0]
    assert (mask[torch.arange(1_000), found] == 1).all()
    assert abs(int((found[::2] == 0).sum()) - 250) < 4 * 11.2


class Still(Driver):
    """The same action always."""

    noise_size = 1

    def __init__(self, action: Any) -> None:
        self.action = torch.as_tensor(action)

    def act(self, obs: Any, first: Any, state: Any, noise: Any) -> Any:
        return self.action.expand(len(first), *self.action.shape).clone(), state


def test_noise_of_numbers_by_hand() -> None:
    """Its standard deviation is sigma halves of the range, and of two steps apart the correlation is rho^2."""
    box = Box((1,), "float32", np.array([-2.0]), np.array([4.0]))
    driver = Noisy(Still([1.0]), box, 0.1)
    found = drive(driver, torch.zeros(4_000, 1), 3, 4_000)[..., 0] - 1.0
    for t in range(3):
        assert (
            abs(float(found[t].std()) - 0.3) < 4 * 0.3 / (2 * 4_000) ** 0.5
            and abs(float(found[t].mean())) < 0.02
        )
    for t, wanted in ((1, RHO), (2, RHO**2)):
        assert abs(float(torch.corrcoef(found[[0, t]])[0, 1]) - wanted) < 0.02
    # n_1 = rho n_0 + sqrt(1 - rho^2) e_1, e of the uniforms that came
    generator = torch.Generator().manual_seed(0)
    u = [torch.rand(4_000, driver.noise_size, generator=generator).clamp(1e-6, 1 - 1e-6) for _ in range(2)]
    e = [torch.distributions.Normal(0, 1).icdf(each[:, 1]) for each in u]
    torch.testing.assert_close(
        found[1], 0.3 * (RHO * e[0] + (1 - RHO**2) ** 0.5 * e[1]), atol=1e-4, rtol=1e-4
    )
    again = drive(driver, torch.zeros(4_000, 1), 2, 4_000, {0, 1})[..., 0] - 1.0
    assert abs(float(torch.corrcoef(again)[0, 1])) < 0.07  # an episode opens with noise of its own
    wild = drive(Noisy(Still([1.0]), box, 2.0), torch.zeros(500, 1), 2, 500)
    assert wild.min() == -2.0 and wild.max() == 4.0


def test_noise_of_choices_by_hand() -> None:
    found = drive(Noisy(Still(2), Discrete(4), 0.4), torch.zeros(4_000, 1), 1, 4_000)[0]
    shares = torch.bincount(found, minlength=4) / 4_000
    np.testing.assert_allclose(shares, [0.1, 0.1, 0.7, 0.1], atol=4 * 0.0073)


def test_a_mixture_has_one_driver_per_episode() -> None:
    driver = Mixture([Still(0), Still(1), Still(2)])
    found = drive(driver, torch.zeros(900, 1), 6, 900, {0, 3})
    assert (found[:3] == found[0]).all() and (found[3:] == found[3]).all() and (found[0] != found[3]).any()
    assert (torch.bincount(found[0]).float() - 300).abs().max() < 4 * 14.2
    said = {"image": torch.zeros(2, 1), "label.expert": torch.tensor([2, 0])}
    assert drive(Expert(), said, 1, 2)[0].tolist() == [2, 0]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Agents that saw the picture, the state, and the state of the continuous kind."""
    folder = tmp_path_factory.mktemp("runs")
    options: dict[str, Any] = {
        "dir": str(folder), "total_steps": 16, "preset": "none", "network.encoder": "mlp", "network.hidden": [8],
        "env.lanes": 2, "env.backend": "inprocess", "agent.steps": 8, "agent.minibatch": 16, "agent.epochs": 1,
        "evaluate.episodes": 1, "log.tensorboard": False, "threads": 1,
    }  # fmt: skip
    kinds: dict[str, Any] = {
        "picture": {},
        "vector": {"env.kwargs": {"view": "vector"}},
        "continuous": {"env.kwargs": {"continuous": True}},
    }
    made = {name: train("ppo", ID, name=name, **options, **more) for name, more in kinds.items()}
    made["stack"] = train("ppo", ID, name="stack", **options, **{"env.stack": 2})
    made["eyes"] = train("ppo", ID, name="eyes", **options, **{"env.stack": 2, "eyes": str(made["stack"])})
    return made


def test_a_run_drives(tmp_path: Path, runs: dict[str, Path]) -> None:
    """What its policy does, with its stack of frames and its eyes; one of the state reads the label that is it."""
    import rlkit

    for name, column in (
        ("picture", "image"),
        ("vector", "label.vector"),
        ("stack", "image"),
        ("eyes", "image"),
    ):
        given = config(tmp_path / name, driver_name=str(runs[name]), driver_sample=False, frames=25)
        table, agent = quiet(given), rlkit.load(runs[name])
        state = None
        for row in range(table.rows):
            action, state = agent(table[column][row], None if table["first"][row] else state)
            assert action == table["action"][row]
        sampled = quiet(
            replace(given, out=str(tmp_path / f"{name}-drawn"), driver=replace(given.driver, sample=True))
        )
        assert len(set(sampled["action"].tolist())) == 3
    mixed = quiet(
        config(tmp_path / "mixed", driver_name=f"seeker+{runs['vector']}", driver_sample=False, frames=150)
    )
    right = mixed["action"] == mixed["label.expert"]
    each = [right[mixed.groups == group].all() for group in np.unique(mixed.groups)]
    assert 0 < sum(each) < len(each)  # some episodes are the expert's, some are not


def test_runs_of_other_spaces_do_not_drive(tmp_path: Path, runs: dict[str, Path]) -> None:
    for options, says in (
        ({"driver_name": str(runs["continuous"])}, "acts in Box.*, and .*:Sights in Discrete"),
        (
            {"driver_name": str(runs["vector"]), "labels": ("mask",)},
            r"sees Box.*; .*:Sights shows Box.* and says label.m",
        ),
        ({"driver_name": str(runs["vector"]), "labels": ()}, r"a label may be what it sees: labels=\[...\]"),
    ):
        with pytest.raises(ConfigError, match=says) as found:
            quiet(config(tmp_path / "t", **options))
        assert "\n" not in str(found.value)


def test_noise_counts_episodes_and_steps_and_nothing_else() -> None:
    """Uniforms of (number of the episode, step), beyond the block that is drawn at once."""
    from rlkit.seeding import uniforms

    noise = collecting._Noise(3, 2, np.array([4, 9]))
    drawn = [noise.next() for _ in range(70)]
    noise.open(0, 6)
    after = [noise.next() for _ in range(3)]
    wanted = uniforms(3, np.array([4, 9]), 0, 73, 2)
    np.testing.assert_array_equal(np.stack(drawn), wanted[:70])
    np.testing.assert_array_equal(np.stack(after)[:, 1], wanted[70:, 1])
    np.testing.assert_array_equal(np.stack(after)[1:, 0], uniforms(3, np.array([6]), 0, 2, 2)[:, 0])


def test_a_named_table_is_collected_on_first_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And goes on where it was cut; the run says where it lies."""
    for name in registry.names("data"):
        words = sets.read_plain(registry.config_folder() / "data" / f"{name}.yaml")["collect"].split()
        assert "expert" in typed([*words, "out=x"]).labels
    words = f"env=gymnasium env.id={ID} env.backend=inprocess labels=[mask,expert] driver=seeker frames=400"
    monkeypatch.setattr(sets, "read_plain", lambda path: {"collect": words})
    monkeypatch.chdir(tmp_path)
    table = sets.open_data("driving")
    assert table.rows == 400 and (tmp_path / "data" / "driving" / "table.json").exists()
    before = contents(tmp_path / "data" / "driving")
    monkeypatch.setattr(sets, "read_plain", lambda path: {"collect": words.replace("400", "500")})
    assert sets.open_data("driving").rows == 500
    assert contents(tmp_path / "data" / "driving")["action.npy"].startswith(before["action.npy"][128:-8], 128)
    assert "goes on after" in capsys.readouterr().out
    run = compose(["task=segment", "data=driving", "network.encoder=mlp"]).config
    assert tasks.check(run).config.data == str(tmp_path / "data" / "driving")
    assert run.run_name == "segment-driving-0"


def test_a_table_from_before_an_option_existed_goes_on(tmp_path: Path) -> None:
    quiet(config(tmp_path / "t"))
    path = tmp_path / "t" / "table.json"
    plain = json.loads(path.read_text())
    del plain["made"]["env"]["pixels"], plain["made"]["driver"]["sample"]
    path.write_text(json.dumps(plain))
    assert quiet(config(tmp_path / "t", frames=80)).rows == 80
    with pytest.raises(
        ConfigError, match="collected with driver.sample=true, not false; choose another folder"
    ):
        quiet(config(tmp_path / "t", frames=90, driver_sample=False))
