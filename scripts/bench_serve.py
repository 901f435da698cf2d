"""What `rlkit serve` costs, and what it stands: load, half-open connections, ends and reloads under load.

    python scripts/bench_serve.py FOLDER [OTHER] [--seconds 10]     # exported folders of one environment

One server in a process of its own on 127.0.0.1, 16 connections, CartPole-like observations of random numbers. CPU is
that of the server's process (user and system). OTHER is what FOLDER's copy is replaced with under load. Every trial
ends by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from rlkit.runtime import Policy
from rlkit.spaces import leaves, row_dtype

CONNECTIONS = 16
HALF_OPEN = 100
TICKS = os.sysconf("SC_CLK_TCK")


class Connection(asyncio.Protocol):
    """Asks again as soon as it is answered, until `end`."""

    def __init__(self, load: Load) -> None:
        self.load, self.data, self.asked = load, b"", 0.0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        if time.perf_counter() >= self.load.end:
            self.transport.close()
            return
        self.asked = time.perf_counter()
        self.transport.write(self.load.request)

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, mark, body = self.data.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        if not mark or length is None or len(body) < int(length[1]):
            return
        self.data = b""
        self.load.latencies.append(time.perf_counter() - self.asked)
        self.asked = 0.0
        status = head.split(b" ", 2)[1].decode()
        self.load.statuses[status] = self.load.statuses.get(status, 0) + 1
        if b"connection: close" in head:
            self.transport.close()
        else:
            self.ask()

    def connection_lost(self, error: Exception | None) -> None:
        self.load.lost += self.asked > 0  # a request without an answer
        self.done.set_result(None)


class Load:
    """Requests on several connections for some seconds, and what became of them."""

    def __init__(self, port: int, body: bytes, seconds: float) -> None:
        self.port, self.end = port, time.perf_counter() + seconds
        head = "POST /v1/export/act HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        self.request = head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
        self.latencies: list[float] = []
        self.statuses: dict[str, int] = {}
        self.lost = 0

    async def run(self) -> None:
        loop, made = asyncio.get_running_loop(), []
        for _ in range(CONNECTIONS):
            _, connection = await loop.create_connection(lambda: Connection(self), "127.0.0.1", self.port)
            made.append(connection.done)
        await asyncio.gather(*made)

    def __str__(self) -> str:
        ordered = np.sort(self.latencies) * 1e3
        p50, p99 = (ordered[int(len(ordered) * share)] for share in (0.5, 0.99))
        return f"p50 {p50:.2f} ms, p99 {p99:.2f} ms, answers {self.statuses}, lost {self.lost}"


class Served:
    """A server of a copy of an exported folder."""

    def __init__(self, folder: Path) -> None:
        self.home = Path(tempfile.mkdtemp())
        self.folder = Path(shutil.copytree(folder, self.home / "run" / "export"))
        self.log = (self.home / "log").open("w+")
        words = [sys.executable, "-m", "rlkit", "serve", f"export={self.folder}", "--port", "0"]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=self.log, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        print(line.strip())
        self.port = int(line.split("/v1/")[0].rpartition(":")[2])

    def cpu(self) -> float:
        words = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / TICKS

    def memory(self) -> int:
        """KiB that are resident."""
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found is not None
        return int(found[1])

    def replace(self, other: Path) -> None:
        """As rlkit export does: the new folder is moved to its place when it is whole."""
        shutil.copytree(other, self.home / "new")
        self.folder.rename(self.home / "old")
        (self.home / "new").rename(self.folder)
        shutil.rmtree(self.home / "old")

    def close(self) -> int:
        """Its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        self.log.seek(0)
        print(self.log.read(), end="")
        shutil.rmtree(self.home)
        return code


def body_of(folder: Path) -> bytes:
    """A request with the zeros of the policy's observation."""
    entries = leaves(Policy.load(folder, "numpy").reader.space)
    values = {name: np.zeros(leaf.shape, row_dtype(leaf)).tolist() for name, leaf in entries}
    return json.dumps({"obs": values.get("", values)}).encode()


def load(served: Served, body: bytes, seconds: float) -> Load:
    """Load, with the CPU that it cost."""
    found, before, start = Load(served.port, body, seconds), served.cpu(), time.perf_counter()
    asyncio.run(found.run())
    count, wall, cpu = len(found.latencies), time.perf_counter() - start, served.cpu() - before
    print(
        f"{CONNECTIONS} connections: {count / wall:,.0f} requests/s, {cpu / count * 1e6:.0f} us CPU each; {found}"
    )
    return found


def half_open(served: Served, body: bytes, seconds: float) -> None:
    """Connections that send half a head: when they are gone, and what they cost the others."""
    opened = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(HALF_OPEN)]
    start = time.perf_counter()
    for each in opened:
        each.sendall(b"POST /v1/export/act HTTP/1.1\r\nHost: x\r\n")
    print(f"with {HALF_OPEN} half-open connections, ", end="")
    load(served, body, seconds)
    for each in opened:
        each.settimeout(20)
        while each.recv(4096):
            pass
    print(f"half-open connections are gone after {time.perf_counter() - start:.1f} s")


def growth(served: Served, body: bytes, seconds: float) -> None:
    load(served, body, 3)  # what is made once
    before = served.memory()
    load(served, body, seconds)
    print(f"memory grew by {(served.memory() - before) / 1024:+.1f} MiB in {seconds:.0f} s")


def under_load(served: Served, body: bytes, seconds: float, change: Any) -> Load:
    """Something happens in the middle of a load."""

    async def both(found: Load) -> None:
        asyncio.get_running_loop().call_later(seconds / 2, change)
        await found.run()

    found = Load(served.port, body, seconds)
    asyncio.run(both(found))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Load and faults of rlkit serve.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("other", type=Path, nargs="?")
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    body, seconds = body_of(arguments.folder), min(arguments.seconds, 120.0)
    served = Served(arguments.folder)
    try:
        load(served, body, min(seconds, 10))
        half_open(served, body, min(seconds, 10))
        growth(served, body, seconds)
        if arguments.other is not None:
            found = under_load(served, body, 6, lambda: served.replace(arguments.other))
            print(f"reload under load: {found}")
        found = under_load(served, body, 3, lambda: served.process.send_signal(signal.SIGTERM))
        print(f"SIGTERM under load: {found}")
    finally:
        print(f"exit code {served.close()}")


if __name__ == "__main__":
    main()
