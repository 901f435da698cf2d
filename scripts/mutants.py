"""Plant small bugs in the package, one at a time, and count those that its tests notice.

    pip install -e ".[mutation]"
    python scripts/mutants.py [MODULE ...] [--sample 16] [--seed 0] [--json FILE]

cosmic-ray makes the bugs: another operator, number or condition, a loop that does not run, a decorator that is gone.
From the places of a module where it could make one, a sample is drawn, and from the bugs of each place one. A module is
tested by the files that TESTS names, in that order, until one fails. What survives is printed as a difference: it is
either no bug, because nothing can tell the two apart, or asks for a test. docs/testing.md has the figures.

Everything happens in a copy of the working tree. The tests of each bug run in a process that is forked from this one,
which has loaded torch and nothing of rlkit. Linux.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import importlib
import json
import os
import random
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOADED = (
    "torch", "torch._inductor", "torch.distributed.tensor", "torch.testing", "torch.utils.tensorboard", "numpy",
    "gymnasium", "hydra", "omegaconf", "numba", "pytest", "safetensors", "rich.console",
)  # fmt: skip
OPTIONS = ("-x", "-q", "--no-header", "-p", "no:cacheprovider")
AGENT = "tests/unit/test_agent_statistics.py tests/unit/test_option_effects.py tests/unit/test_defaults.py"
HOOKS = "tests/unit/test_hook_steps.py tests/unit/test_hooks.py tests/unit/test_average.py"
TARGETS = "tests/numerics/test_q_targets.py tests/numerics/test_batch_targets.py"
REPLAY = "tests/unit/test_replay.py tests/numerics/test_batch_targets.py"
KEPT = "tests/transport/test_replay_resume.py -k 'not ended and not damaged'"
TESTS = {  # what notices bugs in a module, the quickest first
    "rlkit/returns.py": "tests/numerics/test_returns.py",
    "rlkit/buffers.py": "tests/unit/test_buffers.py tests/unit/test_stack.py tests/unit/test_ppo.py",
    "rlkit/ranks.py": "tests/transport/test_learners.py -k 'TwoRanks or half or share or weights_of_one'",
    "rlkit/checkpoint.py": "tests/unit/test_checkpoint.py",
    "rlkit/options.py": "tests/unit/test_config.py tests/unit/test_option_effects.py",
    "rlkit/replay/memory.py": f"{REPLAY} {KEPT}",
    "rlkit/replay/priorities.py": f"tests/numerics/test_priorities.py {REPLAY}",
    "rlkit/replay/ring.py": f"{REPLAY} {KEPT}",
    "rlkit/replay/sampling.py": f"{REPLAY} tests/unit/test_option_effects.py",
    "rlkit/distributions/families.py": "tests/numerics/test_distributions.py tests/unit/test_spaces.py",
    "rlkit/distributions/heads.py": "tests/numerics/test_distributions.py tests/unit/test_spaces.py",
    "rlkit/nn/norm.py": "tests/unit/test_nn_norm.py tests/unit/test_agent_statistics.py",
    "rlkit/nn/recurrent.py": "tests/numerics/test_recurrent.py tests/contract/test_cores.py",
    "rlkit/nn/transformer.py": "tests/numerics/test_transformer.py tests/contract/test_cores.py",
    "rlkit/play/evaluate.py": "tests/unit/test_hook_steps.py tests/unit/test_hooks.py tests/unit/test_actor.py",
    "rlkit/play/statistics.py": "tests/unit/test_statistics.py",
    "rlkit/learn/trainer.py": HOOKS,
    "rlkit/run/hooks.py": HOOKS,
    "rlkit/collect/actor.py": "tests/unit/test_actor.py tests/unit/test_sources_lanes.py",
    "rlkit/sources/thread.py": "tests/unit/test_sources_lanes.py tests/unit/test_actor.py",
    "agents/ppo.py": f"tests/unit/test_ppo.py {AGENT} -k ppo",
    "agents/dqn.py": f"tests/unit/test_dqn.py {TARGETS} {AGENT} -k 'dqn or targets'",
    "agents/ddpg.py": f"tests/unit/test_ddpg.py {TARGETS} {AGENT} -k 'ddpg or targets'",
    "agents/reinforce.py": f"tests/unit/test_reinforce.py {AGENT} -k reinforce",
}


@dataclass(frozen=True)
class Bug:
    """A module's text with one small change, and what the change is."""

    operator: str
    text: str
    difference: str


def bugs(text: str, sample: int, seed: int) -> tuple[int, list[Bug]]:
    """How many places of a module could be changed, and one change at each of a sample of them."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    places = defaultdict(list)  # (line, column) -> the changes that are possible there
    tree = get_ast(text)
    for name in sorted(operator_names()):
        kind = get_operator(name)
        if kind.arguments():
            continue  # needs a configuration
        found = [begin for node in ast_nodes(tree) for begin, _ in kind().mutation_positions(node)]
        for occurrence, begin in enumerate(found):
            places[begin].append((name, occurrence))
    generator, made = random.Random(seed), []
    for place in generator.sample(sorted(places), len(places)):
        name, occurrence = generator.choice(places[place])
        changed = mutate_code(text, get_operator(name)(), occurrence)
        if len(made) < sample and changed is not None and meaning(changed) != meaning(text):
            lines = difflib.unified_diff(text.splitlines(), changed.splitlines(), lineterm="", n=0)
            made.append(Bug(name, changed, "\n".join([*lines][2:])))
        if len(made) == sample:
            break
    return len(places), made


def meaning(text: str) -> str:
    """The program without its annotations, which are not evaluated; nothing where it is no program any more."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return ""
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            if getattr(node, name, None) is not None:
                setattr(node, name, ast.Constant(None))
    return ast.dump(tree)


def run_tests(tree: Path, words: list[str], limit: float, log: Path) -> int | None:
    """Exit code of pytest with these words in a copy of the repository, or None where it took too long."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setsid()
            target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(target, 1)
            os.dup2(target, 2)
            os.chdir(tree)
            sys.path.insert(0, str(tree))
            os.environ["PYTHONPATH"] = str(tree)
            code = int(importlib.import_module("pytest").main([*OPTIONS, *words]))
        finally:
            os._exit(code)
    status, end = None, time.monotonic() + limit
    while status is None and time.monotonic() < end:
        time.sleep(0.05)
        ended, found = os.waitpid(pid, os.WNOHANG)
        status = os.waitstatus_to_exitcode(found) if ended else None
    with contextlib.suppress(ProcessLookupError):  # what the tests have started, too
        os.killpg(pid, signal.SIGKILL)
    if status is None:
        os.waitpid(pid, 0)
    return status


def try_module(tree: Path, module: str, sample: int, seed: int) -> dict[str, Any]:
    """Plant a module's sample of bugs in a copy of the repository, and run its tests on each."""
    path, log, words = tree / module, tree / "log", shlex.split(TESTS[module])
    text = path.read_text()
    begin = time.monotonic()
    if run_tests(tree, words, 900, log):
        raise SystemExit(f"{module}: its tests fail without a bug:\n{log.read_text()[-3000:]}")
    limit = 30 + 3 * (time.monotonic() - begin)
    places, made = bugs(text, sample, seed)
    survived = []
    for bug in made:
        path.write_text(bug.text)
        try:
            code = run_tests(tree, words, limit, log)
        finally:
            path.write_text(text)
        if code == 0:
            survived.append(bug)
        elif code not in (None, 1, 2, 4) and code > 0:  # 2, 4: modules of tests that cannot be imported
            raise SystemExit(f"{module}: pytest ended with {code}:\n{log.read_text()[-3000:]}")
        print("." if code else "S", end="", flush=True)
    caught = len(made) - len(survived)
    print(f" {module}: {caught} of {len(made)} caught, at {places} places, {time.monotonic() - begin:.0f} s")
    for bug in survived:
        print(f"{bug.operator}\n{bug.difference}")
    kept = [{"operator": bug.operator, "difference": bug.difference} for bug in survived]
    return {"module": module, "places": places, "planted": len(made), "caught": caught, "survived": kept}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="those of TESTS; without one, all")
    parser.add_argument("--sample", type=int, default=16, help="bugs of each module")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="a file for the results")
    given = parser.parse_args()
    if unknown := set(given.modules) - TESTS.keys():
        raise SystemExit(f"{', '.join(sorted(unknown))}: no such module; allowed: {', '.join(TESTS)}")
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True  # two versions of a module within a second would pass for one
    for name in LOADED:
        importlib.import_module(name)
    results = []
    with tempfile.TemporaryDirectory(prefix="rlkit-mutants-") as folder:
        tree = Path(folder) / "rlkit"
        ignored = shutil.ignore_patterns(
            ".git", ".venv", "runs", ".mypy_cache", ".ruff_cache", ".pytest_cache"
        )
        shutil.copytree(ROOT, tree, symlinks=True, ignore=ignored)
        for module in given.modules or TESTS:
            results.append(try_module(tree, module, given.sample, given.seed))
            if given.json:
                given.json.write_text(json.dumps(results, indent=1))
    planted, caught = (sum(result[name] for result in results) for name in ("planted", "caught"))
    print(f"{caught} of {planted} bugs were caught ({caught / max(1, planted):.0%})")


if __name__ == "__main__":
    main()
