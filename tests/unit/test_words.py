"""Which run is meant, and the options of evaluate and watch as KEY=VALUE."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rlkit.cli.common import episode_parser
from rlkit.cli.words import find_run, parse
from rlkit.options import ConfigError


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three runs in runs/, b the newest, and one elsewhere."""
    for age, name in enumerate(("runs/b", "runs/a", "runs/c=1", "elsewhere/r")):
        (tmp_path / name).mkdir(parents=True)
        file = tmp_path / name / "config.yaml"
        file.write_text("")
        os.utime(file, (1e9 - age, 1e9 - age))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parsed(*words: str):
    parser = episode_parser("watch", "Watch.")
    parser.add_argument("--video")
    return parse(parser, list(words))


@pytest.mark.parametrize(
    ("words", "run"),
    [
        ("", "runs/b"),
        ("a", "runs/a"),
        ("runs/a", "runs/a"),
        ("c=1", "runs/c=1"),
        ("elsewhere/r", "elsewhere/r"),
        ("runs/nothing", "runs/nothing"),  # refused where it is opened
        ("env=carracing", "runs/b"),
        ("env.skip=2 episodes=3", "runs/b"),
    ],
)
def test_which_run_is_meant(runs: Path, words: str, run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert parsed(*words.split()).run == run
    said = capsys.readouterr().out
    assert ("run: runs/b (the newest in runs)" in said) == (run == "runs/b")


def test_a_name_of_the_current_folder_comes_first(runs: Path) -> None:
    (runs / "a").mkdir()
    (runs / "a" / "config.yaml").write_text("")
    assert find_run("a") == Path("a")


@pytest.mark.parametrize("typed", ["runs", "."])
def test_a_folder_of_runs_lists_them(runs: Path, typed: str) -> None:
    if typed == ".":
        os.chdir("runs")
    where = "" if typed == "." else "runs/"
    with pytest.raises(
        ConfigError, match=rf"folder of runs; .*the newest first: {where}b, {where}a, {where}c=1$"
    ):
        find_run(typed)


def test_no_run_at_all_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no run in runs: rlkit train makes one"):
        parsed()


@pytest.mark.parametrize(
    "words",
    [
        "a episodes=3 seed=7 checkpoint=last sample=true env=x env.skip=2 video=f.mp4",
        "--episodes 3 env=x a --seed=7 --checkpoint last --sample env.skip=2 --video f.mp4",
        "env=x episodes=3 --seed 7 checkpoint=last a sample=true env.skip=2 video=f.mp4",
    ],
)
def test_options_with_dashes_and_as_words_are_the_same(runs: Path, words: str) -> None:
    found = parsed(*words.split())
    assert (found.episodes, found.seed, found.checkpoint, found.sample) == (3, 7, "last", True)
    assert (found.env, found.video, found.run) == (["env=x", "env.skip=2"], "f.mp4", "runs/a")


def test_sample_can_be_turned_off_and_left_open(runs: Path) -> None:
    assert [parsed(*words).sample for words in ([], ["sample=false"], ["--no-sample"], ["--sample"])] == [
        None,
        False,
        False,
        True,
    ]
    with pytest.raises(ConfigError, match="sample=maybe: not true or false"):
        parsed("sample=maybe")


def test_names_that_nothing_has_are_refused(runs: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^episods=3: no such option of rlkit watch; did you mean episodes\?"
    ):
        parsed("a", "episods=3")
    with pytest.raises(ConfigError, match="argument --episodes: 0: allowed"):
        parsed("episodes=0")
