"""What a Ray of the tests starts in the place of a worker: it has a process that has torch loaded fork one.

    python forked_rayworker.py WORKER ARGUMENT ...

The fork runs Ray's own program WORKER, and is a process like any other. A new one, which actors with an environment of
their own (runtime_env) still get, spends seconds on its imports. Ray itself is imported in the fork: its library reads
the environment when it is loaded. Uses the standard library alone.
"""

from __future__ import annotations

import json
import os
import socket
import sys

SERVER = "RLKIT_TEST_RAY_FORKS"  # in the environment: where the fork server listens
OWN = ("--serialized-runtime-env-context", "--language")  # what is not for the worker
PROGRAM = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"


def main(arguments: list[str]) -> None:
    known = dict(each.partition("=")[::2] for each in arguments if each.startswith(OWN))
    rest = [each for each in arguments if not each.startswith(OWN)]
    context = json.loads(known.get(OWN[0], "{}"))
    if context.get("command_prefix") or context.get("env_vars") or known.get(OWN[1]) != "PYTHON":
        true = os.path.join(os.path.dirname(rest[0]), "setup_worker.py")
        os.execv(sys.executable, [sys.executable, true, *arguments])
    request = {"argv": rest, "cwd": os.getcwd(), "env": dict(os.environ), "program": PROGRAM}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server, open(os.devnull, "w") as nowhere:
        server.connect(os.environ[SERVER])
        socket.send_fds(server, [json.dumps(request).encode()], [1, 2, nowhere.fileno()])
        assert server.recv(64), "the fork server could not start; what it said is on stderr"


if __name__ == "__main__":
    main(sys.argv[1:])
