"""Asks `rlkit serve` what its own description allows, and what it does not, thousands of times: no answer may be a 5xx.

    python scripts/fuzz_serve.py [FOLDER] [--requests 2000] [--seed 0]

FOLDER is what `rlkit export` has written (a large memory has many bounds, and takes many minutes); without it a small
policy made by hand is served. schemathesis (https://schemathesis.readthedocs.io) reads /openapi.json and makes requests
of it: values at and beyond every bound, bodies of other types, missing and unknown entries, other methods and headers.
What was answered is counted by the server (/metrics). It is one process on 127.0.0.1, and both end by themselves. The
exit code is 1 where a status was 500 or more, the server ended, or there were fewer requests than asked for.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))

SECONDS = 3600  # after which schemathesis is ended
ASKED = 2  # operations with a body: act and step of one model


@contextmanager
def served(folder: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server of the folder in a process of its own, and its port."""
    words = [sys.executable, "-m", "rlkit", "serve", f"policy={folder}", "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()  # serving:     http://127.0.0.1:PORT/v1/policy (...)
        found = re.search(r"http://[^/]*:(\d+)/v1/", line)
        if found is None:
            raise SystemExit(f"rlkit serve {folder} ended at once, with code {process.wait()}")
        try:
            yield process, int(found[1])
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def answered(port: int) -> Counter[int]:
    """How many requests were answered with each status, as the server counts them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found: Counter[int] = Counter()
    for status, count in re.findall(r'^rlkit_requests_total\{[^}]*status="(\d+)"[^}]*\} (\d+)', text, re.M):
        found[int(status)] += int(count)
    return found


def attack(port: int, requests: int, seed: int) -> int:
    """The exit code of schemathesis, which makes at least so many requests."""
    words = [
        "run", f"http://127.0.0.1:{port}/openapi.json", "--checks", "not_a_server_error", "--seed", str(seed),
        "--max-examples", str(-(-requests // ASKED)), "--workers", "1", "--continue-on-failure", "--no-color",
        "--phases", "examples,coverage,fuzzing", "--generation-database", "none", "--warnings", "off",
        "--suppress-health-check", "all",
    ]  # fmt: skip
    start = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
    with tempfile.TemporaryDirectory() as home:  # where it would keep what it has found
        return subprocess.run([*start, *words], cwd=home, timeout=SECONDS, check=False).returncode


def main() -> int:
    """Print how often each status was answered."""
    parser = argparse.ArgumentParser(description="Ask rlkit serve what its description allows, and what not.")
    parser.add_argument("folder", type=Path, nargs="?", metavar="FOLDER", help="an exported policy")
    parser.add_argument("--requests", type=int, default=2000, help="how many at least (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of what schemathesis draws")
    arguments = parser.parse_args()
    if not 1 <= arguments.requests <= 10**6:
        parser.error(f"--requests {arguments.requests}; allowed: 1 to 1000000")
    if importlib.util.find_spec("schemathesis") is None:
        raise SystemExit('schemathesis is missing: pip install "rlkit[fuzz]"')
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the server ends, too
    with tempfile.TemporaryDirectory() as home:
        folder = arguments.folder
        if folder is None:
            from tests.helpers.served import export

            folder = export(Path(home) / "policy")
        start = time.monotonic()
        with served(folder.resolve()) as (process, port):
            code = attack(port, arguments.requests, arguments.seed)
            alive = process.poll() is None
            found = answered(port) if alive else Counter[int]()
    total, failed = found.total(), sum(count for status, count in found.items() if status >= 500)
    counts = ", ".join(f"{status}: {count:,}" for status, count in sorted(found.items()))
    print(f"{total:,} requests in {time.monotonic() - start:.0f} s ({counts}); {failed} answered with 5xx")
    if not alive:
        print(f"the server ended with code {process.returncode}")
    if total < arguments.requests:
        print(f"fewer requests than the {arguments.requests:,} that were asked for")
    return int(bool(code or failed or not alive or total < arguments.requests))


if __name__ == "__main__":
    sys.exit(main())
