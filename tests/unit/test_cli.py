"""The command line: one clear line and the right exit code, whatever happens."""

import errno
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from rlkit import __version__, checkpoint
from rlkit.cli import doctor
from rlkit.cli import list as list_verb
from rlkit.cli.main import VERBS, main
from rlkit.config.compose import compose, to_yaml
from rlkit.options import ConfigError

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "gymnasium", "ray", "pygame", "hydra", "numpy", "rich")


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A stand-in for `rlkit train` whose main a test sets."""
    module = ModuleType("rlkit.cli.train")
    monkeypatch.setitem(sys.modules, "rlkit.cli.train", module)
    monkeypatch.delenv("RLKIT_TRACEBACK", raising=False)
    return module


def raising(error: BaseException) -> object:
    def fail(argv: list[str]) -> int:
        raise error

    return fail


@pytest.mark.parametrize(
    "code",
    [
        "import rlkit",
        "import rlkit.cli.main as m; m.main(['--help'])",
        "import rlkit.cli.main as m; m.main(['x'])",
    ],
)
def test_importing_and_help_load_nothing_heavy(code: str) -> None:
    script = f"{code}\nimport sys\nsys.exit(','.join(m for m in {HEAVY} if m in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_names_every_verb_and_examples_that_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(re.search(rf"^  {verb} +\w", text, re.M) for verb in VERBS)
    for line in re.findall(r"^  rlkit train (.*)$", text, re.M):
        assert compose(line.split()).config.total_steps > 0


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: rlkit {name}")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"rlkit {__version__}\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "rlkit: trian: no such verb; did you mean train? (rlkit --help)\n"),
        (
            ["env=cartpole", "seed=1"],
            "rlkit: env=cartpole: the verb is missing; type rlkit train env=cartpole seed=1\n",
        ),
        (["list", "agnets"], "rlkit: list agnets: no such list; did you mean agents?\n"),
        (["list", "agents", "x"], "rlkit: x: one argument too many; rlkit list agents takes none\n"),
        (["list", "options", "agent.clp=1"], "rlkit: agent.clp=1: no such option; did you mean agent.clip?"),
        (
            ["doctor", "x"],
            "rlkit: x: whose? rlkit doctor agent=NAME examines an agent, rlkit doctor the installation\n",
        ),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(message)
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_no_verb_shows_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: rlkit VERB" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("agent.clip=x: no"), 2, "rlkit: agent.clip=x: no"),
        (ValueError("bad\nnews"), 1, "rlkit: bad ... (--traceback shows where)"),
        (RuntimeError("worker died"), 1, "rlkit: RuntimeError: worker died (--traceback shows where)"),
        (MemoryError(), 1, "rlkit: MemoryError (--traceback shows where)"),
        (KeyboardInterrupt(), 130, "rlkit: interrupted"),
        (
            OSError(errno.ENOSPC, "x", "a.csv"),
            1,
            "rlkit: disk full while writing a.csv: free space, then try again",
        ),
        (OSError(errno.ENOSPC, "disk full while writing a.csv"), 1, "rlkit: disk full while writing a.csv"),
        (PermissionError(errno.EACCES, "x", "runs"), 1, "rlkit: runs: no permission; choose another place"),
        (FileNotFoundError(errno.ENOENT, "x", "runs/a"), 1, "rlkit: runs/a: no such file or folder"),
        (OSError(errno.EIO, "Input/output error", "f"), 1, "rlkit: f: Input/output error"),
    ],
)
def test_failures_become_one_line(
    verb: ModuleType, error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    verb.main = raising(error)  # type: ignore[attr-defined]
    assert main(["train"]) == code
    err = capsys.readouterr().err
    assert err.startswith(line)
    assert err.count("\n") == 1


def test_traceback_shows_everything(verb: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    verb.main = raising(ConfigError("no"))  # type: ignore[attr-defined]
    with pytest.raises(ConfigError):
        main(["train", "--traceback"])
    monkeypatch.setenv("RLKIT_TRACEBACK", "1")
    with pytest.raises(ConfigError):
        main(["train"])


def test_arguments_and_exit_codes_pass_through(verb: ModuleType) -> None:
    seen: list[list[str]] = []

    def record(argv: list[str]) -> int:
        seen.append(argv)
        return 17

    verb.main = record  # type: ignore[attr-defined]
    assert main(["train", "a=1", "--traceback", "b=2"]) == 17
    assert seen == [["a=1", "b=2"]]


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m rlkit list options | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("agent.")
    assert done.stderr == ""


def test_list_prints_names_and_what_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["list", "environments"]) == 0
    assert re.search(r"^cartpole +CartPole-v1", capsys.readouterr().out, re.M)
    assert main(["list", "agents"]) == 0
    assert re.search(r"^ppo +Discrete .* rollouts +Proximal", capsys.readouterr().out, re.M)
    assert main(["list", "options", "env=cartpole", "seed=3"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^seed=3 +.*\(default 0\)$", text, re.M)
    assert re.search(r"^agent\.gamma=0\.98 +a number from 0 to 1; .*\(default 0\.99\)$", text, re.M)


def test_list_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import fcntl

    monkeypatch.chdir(tmp_path)
    assert main(["list", "runs"]) == 0
    assert "no runs in runs" in capsys.readouterr().out
    text = to_yaml(compose(["env=cartpole", "total_steps=100"]).config)
    for name, step in (("done", 100), ("early", 60), ("cut", 50), ("busy", 40), ("broken", 1)):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(text if name != "broken" else "a: [")
        (run / "metrics.csv").write_text(f"step,return/mean,loss\n{step},21.25,\n{step},,0.5\n")
    parts = {"state": {"clock": {"stop_reason": "good enough"}}}
    checkpoint.save_step(tmp_path / "runs" / "early" / "checkpoints", parts, 60, keep=1)
    with (tmp_path / "runs" / "busy" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["list", "runs"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert re.search(r"ppo +CartPole-v1 +100 +21\.2 +complete", lines["runs/done"])
    assert lines["runs/early"].endswith("complete")
    assert lines["runs/cut"].endswith("stopped")
    assert lines["runs/busy"].endswith("running")
    assert "unreadable" in lines["runs/broken"]


def test_columns_are_aligned() -> None:
    assert list_verb.columns([("a", "bb", "c"), ("aaa", "b", "")]) == "a    bb  c\naaa  b"
    wide = [("x" * 90, "stopped"), ("y", "complete")]
    assert list_verb.columns(wide, wrap=False).splitlines() == [
        "x" * 90 + "  stopped",
        "y" + " " * 91 + "complete",
    ]


@pytest.mark.parametrize("group", ["agents", "environments", "networks", "sources", "presets", "options"])
@pytest.mark.parametrize("columns", [80, 120])
def test_tables_fit_the_terminal(
    group: str, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["list", group]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    if group != "sources":
        assert max(map(len, lines)) > columns - 20


def test_sentences_are_wrapped_beside_short_columns_and_below_long_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    text = "one two three four five six seven eight"
    assert list_verb.columns([("ab", text), ("c", "")]).splitlines() == [
        "ab  one two three four five six seven",
        "    eight",
        "c",
    ]
    assert list_verb.columns([("a" * 20, text), ("b", "")]).splitlines() == [
        "a" * 20,
        "    one two three four five six seven",
        "    eight",
        "b",
    ]


def test_doctor_is_content_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^torch +\d+\.\d+", text, re.M)
    assert "all essentials are here" in text


def test_doctor_fails_where_an_essential_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(doctor.ESSENTIAL, "no_such_module", "no-such-thing")
    monkeypatch.setitem(doctor.EXTRAS, "atari", ("no_such_module",))
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert re.search(r"^no-such-thing +MISSING: .*pip install", text, re.M)
    assert 'pip install "rlkit[atari]"' in text


def test_doctor_knows_the_dependencies_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base = {re.split(r"[<>=;]", line)[0] for line in project["dependencies"]}
    assert set(doctor.ESSENTIAL.values()) | set(doctor.USUAL.values()) == base
    assert set(doctor.EXTRAS) == set(project["optional-dependencies"]) - {"all", "dev", "fuzz", "mutation"}
