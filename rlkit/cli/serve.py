"""rlkit serve: exported policies behind HTTP and websockets, without torch in the process."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from rlkit.cli.common import Parser, natural, positive
from rlkit.cli.words import find_run
from rlkit.files import named
from rlkit.options import ConfigError
from rlkit.processes import search_path
from rlkit.text import clean, quoted

NEEDED = ("uvicorn", "httptools", "msgpack", "websockets", "orjson")
LEAST_TOKEN = 16  # characters


def main(argv: list[str]) -> int:
    """Serve until SIGTERM."""
    arguments = _parser().parse_args(argv)
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f'rlkit serve needs {", ".join(missing)}: pip install "rlkit[serve]"')
    from rlkit.serve import server
    from rlkit.serve.app import Application
    from rlkit.serve.models import Model, Version

    inside = server.is_loopback(arguments.host)
    token = _token(arguments.token_file)
    if not inside and not token and not arguments.insecure:
        raise ConfigError(
            f"--host {arguments.host}: other machines reach it; give --token-file FILE (python -c 'import secrets; "
            "print(secrets.token_urlsafe())' writes one), or --insecure"
        )
    folders = _folders(arguments.models)
    hosts = frozenset({*server.LOOPBACK, arguments.host} if inside else {"*"})
    options = {
        "sessions": arguments.max_sessions,
        "batch": arguments.max_batch,
        "token": token,
        "hosts": hosts,
    }
    if arguments.ray or arguments.ray_option:
        return _on_ray(arguments, folders, options)
    listener = server.listen(
        arguments.host, arguments.port
    )  # a port that is taken is told before models are loaded
    with listener:
        models = {name: Model(name, folder, Version(folder)) for name, folder in folders.items()}
        application = Application(models, **options)
        host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
        for name, model in models.items():
            policy = model.version.policy
            print(
                f"serving:     http://{host}:{listener.getsockname()[1]}/v1/{name} (step "
                f"{clean(policy.info.get('step'))}, {policy.backend}, version {model.version.name})",
                flush=True,
            )
        server.serve(application, listener)
    print("stopped")
    return 0


def _on_ray(arguments: argparse.Namespace, folders: dict[str, Path], options: dict[str, Any]) -> int:
    if importlib.util.find_spec("fastapi") is None:
        raise ConfigError('--ray needs Ray Serve: pip install "rlkit[serve-ray]"')
    from rlkit.serve import onray, server
    from rlkit.serve.models import Version

    server.listen(arguments.host, arguments.port).close()
    for folder in folders.values():
        Version(folder)  # whatever is wrong with one is said here, not in a replica
    onray.serve(folders, arguments.host, arguments.port, onray.options_of(arguments.ray_option), options)
    print("stopped")
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="rlkit serve",
        description="Serve exported policies: JSON or msgpack over HTTP, and websockets (docs/embed.md).",
    )
    parser.add_argument(
        "models",
        metavar="FOLDER",
        nargs="+",
        help="a folder that rlkit export has made, or a run, which is exported first; NAME=FOLDER gives it a name "
        "(default: the run's)",
    )
    parser.add_argument(
        "--port", type=natural, default=8700, metavar="N", help="0: a free one (default: 8700)"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="H", help="default: 127.0.0.1, this machine alone"
    )
    parser.add_argument("--token-file", metavar="FILE", help="holds a text that every client must send")
    parser.add_argument("--insecure", action="store_true", help="another host than loopback without a token")
    parser.add_argument("--max-sessions", type=positive, default=1024, metavar="N", help="default: 1024")
    parser.add_argument(
        "--max-batch",
        type=positive,
        default=64,
        metavar="N",
        help="lanes of one call of a policy (default: 64)",
    )
    parser.add_argument(
        "--ray", action="store_true", help="under Ray Serve, in several processes or on a cluster"
    )
    parser.add_argument(
        "--ray-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of Ray Serve's deployments: num_replicas=2; may be given several times",
    )
    return parser


def _token(file: str | None) -> str:
    """The token in a file. Raises ConfigError."""
    if file is None:
        return ""
    try:
        token = Path(file).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--token-file {file}: {getattr(error, 'strerror', 'no plain text')}") from error
    if len(token) < LEAST_TOKEN or not token.isprintable() or " " in token:
        raise ConfigError(f"--token-file {file}: a token is one word of at least {LEAST_TOKEN} characters")
    return token


def _folders(words: list[str]) -> dict[str, Path]:
    """The exported folder of each model, by the name under which it is served. Raises ConfigError."""
    found: dict[str, Path] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not equals or Path(word).exists():
            name, path = "", word
        folder = Path(path)
        if not (folder / "policy.onnx").is_file():
            folder = _exported(find_run(path))
        whole = folder.absolute()
        name = name or (whole.parent.name if whole.name == "export" else whole.name)
        name = re.sub("[^A-Za-z0-9._-]+", "-", name)[:64]
        if name in found:
            raise ConfigError(
                f"{word}: a model {name} is there already; NAME={quoted(path)} gives it another name"
            )
        found[name] = folder
    return found


def _exported(run: Path) -> Path:
    """The exported folder of a run, made where there is none of its best checkpoint. Raises ConfigError."""
    if not (run / "config.yaml").is_file():
        raise ConfigError(f"{run} is no run and no exported folder; rlkit export RUN makes one")
    folder = run / "export"
    if not _is_current(run):
        print(f"exporting:   {clean(run)}", flush=True)
        words = [
            sys.executable,
            "-P",
            "-m",
            "rlkit",
            "export",
            str(run.absolute()),
        ]  # torch stays out of this process
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(search_path())}
        if subprocess.run(words, env=environment, check=False).returncode:
            raise ConfigError(f"{run} was not exported; rlkit export {quoted(run)} says more")
    return folder


def _is_current(run: Path) -> bool:
    """Whether a run's exported folder is of its best checkpoint."""
    try:
        place = named(run)
        info = json.loads((place / "export" / "policy.json").read(1 << 24))
        best = (place / "best" / "manifest.json").read(1 << 20)
    except (OSError, ValueError):
        return False
    return isinstance(info, dict) and info.get("checkpoint") == hashlib.sha256(best).hexdigest()
