"""`rlkit serve --ray` with two replicas, of which one is killed under load: what clients notice.

    python scripts/faults_serve_ray.py FOLDER [--seconds 20]

Four threads ask with rlkit.client.Remote, whose requests may be repeated; one websocket is open on each replica as far
as chance has it. Needs pip install "rlkit[serve-ray]".
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from rlkit.client import Remote
from rlkit.runtime import Policy

THREADS, SOCKETS = 4, 8


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def replicas(parent: int) -> list[int]:
    """The processes of Ray Serve's replicas below a process."""
    below, found = {parent}, []
    for entry in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            words = (entry / "stat").read_text().rpartition(")")[2].split()
            name = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if int(words[1]) in below:
            below.add(int(entry.name))
            if "ServeReplica" in name:
                found.append(int(entry.name))
    return found


def ask(url: str, policy: Policy, end: float, told: list[str], counts: list[int]) -> None:
    """Episodes of random observations, each decision compared with the policy's own."""
    remote, draw, state, mine = Remote(url, timeout=30), np.random.default_rng(len(told)), None, None
    shape = policy.reader.entries[0].shape
    while time.monotonic() < end:
        obs = draw.uniform(-1, 1, shape).astype(np.float32)
        try:
            action, state = remote(obs, state)
        except (OSError, ValueError) as error:
            told.append(str(error))
            continue
        wanted, mine = policy(obs, mine)
        counts[0] += 1
        counts[1] += not np.array_equal(action, wanted)


def hear(connection: ClientConnection, end: float, told: list[str], size: int) -> None:
    """A session until it is closed, or the time is over."""
    try:
        while time.monotonic() < end:
            connection.send('{"obs": [' + ",".join(["0"] * size) + "]}")
            connection.recv(timeout=30)
            time.sleep(0.05)
    except (ConnectionClosed, TimeoutError) as error:
        told.append(f"{type(error).__name__}: {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description="A replica of rlkit serve --ray is killed under load.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    port, policy = free_port(), Policy.load(arguments.folder, "numpy")
    words = [sys.executable, "-m", "rlkit", "serve", f"m={arguments.folder}", "--port", str(port), "--ray"]
    words += ["--ray-option", "num_replicas=2", "--ray-option", 'ray_actor_options={"num_cpus": 0.5}']
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    stack = ExitStack()
    try:
        assert process.stdout is not None
        print(process.stdout.readline().strip())
        url, end = f"http://127.0.0.1:{port}", time.monotonic() + min(arguments.seconds, 60)
        failures, closed, counts = list[str](), list[str](), [0, 0]
        address = url.replace("http", "ws") + "/v1/m/session"
        opened = [stack.enter_context(connect(address)) for _ in range(SOCKETS)]
        size = int(np.prod(policy.reader.entries[0].shape))
        threads = [
            threading.Thread(target=ask, args=(url, policy, end, failures, counts)) for _ in range(THREADS)
        ]
        threads += [threading.Thread(target=hear, args=(each, end, closed, size)) for each in opened]
        for thread in threads:
            thread.start()
        time.sleep(arguments.seconds / 3)
        running = replicas(process.pid)
        print(f"replicas {running}; one is killed after {counts[0]} decisions")
        os.kill(running[0], signal.SIGKILL)
        for thread in threads:
            thread.join(60)
        print(f"{counts[0]} decisions, {counts[1]} of them wrong, {len(failures)} failed: {failures[:3]}")
        print(
            f"{len(closed)} of {SOCKETS} sessions were closed: {closed[:2]}; replicas now {replicas(process.pid)}"
        )
    finally:
        stack.close()
        process.terminate()
        print(f"exit code {process.wait(60)}")


if __name__ == "__main__":
    main()
