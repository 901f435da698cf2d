"""A process that has loaded what every rlkit command loads, and forks a command from itself on request.

    python -m tests.helpers.forkserver DESCRIPTOR PID

A command so started is a process like any other (its own pid, session, signals, exit code, memory), but costs
milliseconds where a new interpreter spends seconds on importing torch. DESCRIPTOR is a Unix socket that listens. A
request is a JSON object (argv, cwd, env; program: Python text that runs instead of the command) with three descriptors
beside it: the command's stdout, its stderr, and a pipe that gets the wait status as decimal digits once it has ended.
The answer is the process id, as digits. The server ends with process PID, the test run, and removes the folder of its
socket.

The process has one thread, as forking demands: no tensor is computed before a fork.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import runpy
import selectors
import shutil
import signal
import socket
import sys
import threading
import traceback
from typing import Any, NoReturn

from tests.helpers import forked_ranks

LEFT_OUT = (
    "rlkit.__main__",
    "rlkit.envs.",
    "rlkit.client",
    "rlkit.serve.",
    "rlkit.sources.ray.",
)  # what a command loads only where it is needed


COMPOSED = (["agent=ppo", "env=cartpole"], ["agent=dqn", "env=cartpole"], ["agent=ddpg", "env=pendulum"])


def preload() -> None:
    """Import what commands import, and let Hydra and numba build the tables that every process of theirs needs."""
    import rlkit
    from rlkit.config.compose import compose

    for name in ("torch.utils.tensorboard", "hydra", "rich.console", "numba", "rlkit.envs.make"):
        importlib.import_module(name)
    for module in pkgutil.walk_packages(rlkit.__path__, "rlkit."):
        if not module.name.startswith(LEFT_OUT):
            importlib.import_module(module.name)
    for overrides in COMPOSED:
        compose(overrides)
    # numba's tables, which the first kernel of a process would fill, half a second long
    target = importlib.import_module("numba.core.registry").cpu_target
    target.typing_context.refresh()
    target.target_context.refresh()
    optional = {"ray", "ale_py", "mujoco", "pygame", "cv2"} & sys.modules.keys()
    assert not optional, (
        f"a command must load {optional} by itself, or an import that it lacks would not be noticed"
    )
    threads = os.listdir("/proc/self/task")
    assert len(threads) == 1, (
        f"the fork server has {len(threads)} threads; what started them must not be preloaded"
    )
    gc.collect()
    gc.freeze()  # a collection in a child would write to, and so copy, every page


def serve(listener: socket.socket, whole: int) -> dict[str, Any] | None:
    """Fork for every request. Returns the request in the child, and None in the server once process `whole` ended."""
    # sockets, with None; the pidfd of every command, with its process id and status pipe
    asking = selectors.DefaultSelector()
    asking.register(listener, selectors.EVENT_READ)
    end = os.pidfd_open(whole)
    asking.register(end, selectors.EVENT_READ)
    while True:
        for key, _ in asking.select():
            if key.fd == end:
                return None
            if key.data is not None:
                pid, pipe = key.data
                _, status = os.waitpid(pid, 0)
                asking.unregister(key.fd)
                os.close(key.fd)
                with contextlib.suppress(BrokenPipeError):  # who asked is gone
                    os.write(pipe, str(status).encode())
                os.close(pipe)
                continue
            if key.fileobj is listener:
                asking.register(listener.accept()[0], selectors.EVENT_READ)
                continue
            control = key.fileobj
            assert isinstance(control, socket.socket), "all that is not a number"
            data, descriptors, _, _ = socket.recv_fds(control, 1 << 20, 3)
            if not data:
                asking.unregister(control)
                control.close()
                continue
            request = json.loads(data)
            pid = os.fork()
            if pid == 0:
                for other in asking.get_map().values():
                    held = other.fileobj
                    os.close(held.detach() if isinstance(held, socket.socket) else other.fd)
                    if other.data is not None:
                        os.close(other.data[1])
                asking.close()
                os.close(descriptors[2])
                return request | {"stdout": descriptors[0], "stderr": descriptors[1]}
            os.close(descriptors[0])
            os.close(descriptors[1])
            asking.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, descriptors[2]))
            with contextlib.suppress(OSError):  # who asked is gone
                control.send(str(pid).encode())


def become(request: dict[str, Any], installed: list[str]) -> None:
    """Make this fork what `python -m rlkit ARGV` would be, started in that folder with that environment."""
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as in a terminal, also where tests run under nohup
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for target in (1, 2):
        descriptor = request["stdout" if target == 1 else "stderr"]
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    added = [path for path in request["env"].get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [request["cwd"], *added, *installed]
    sys.path_importer_cache.clear()
    sys.argv = ["rlkit", *request["argv"]]
    if forked_ranks.ASKED in os.environ:
        forked_ranks.install(setattr)


def run_to_end(program: str) -> NoReturn:
    """What `python -m rlkit` does, or `python -c PROGRAM`, up to the destruction of what is loaded.

    That would take half a second, to write to every page that is shared with the server, and the operating system does
    it as well.
    """
    code: object = 0
    try:
        if program:
            exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})
        else:
            runpy.run_module("rlkit", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as an interpreter does at its end
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError):  # nobody reads any more
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


if __name__ == "__main__":
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    without = [path for path in sys.path[1:] if path not in given]  # [0] is the current folder, for -m
    preload()
    listening = socket.socket(fileno=int(sys.argv[1]))
    address = listening.getsockname()
    if (request := serve(listening, int(sys.argv[2]))) is not None:
        become(request, without)
        run_to_end(request["program"])
    shutil.rmtree(os.path.dirname(address), ignore_errors=True)
