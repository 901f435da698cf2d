"""rlkit doctor: tells what this installation can do and what to type for the rest; fails where something essential is
missing. With agent=NAME it tells whether that algorithm works, by probes with known answers (rlkit.probes).
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from rlkit import __version__
from rlkit.machine import cores

USAGE = """usage: rlkit doctor [agent=NAME [OPTION=VALUE ...]]

  rlkit doctor                              check the installation: versions, devices, threads, compiler, extras,
                                            display, disk
  rlkit doctor agent=dqn                    train the agent on probe environments with known answers, in seconds
                                            each, and say which part of the algorithm is broken if it fails
  rlkit doctor agent=dqn network=lstm       the same with a network that remembers, memory included

Exit code 1 where something essential is missing, or a probe fails."""

ESSENTIAL = {  # what rlkit cannot run without: module -> distribution
    "torch": "torch",
    "numpy": "numpy",
    "gymnasium": "gymnasium",
    "hydra": "hydra-core",
    "rich": "rich",
}
USUAL = {  # the rest of a base installation
    "Box2D": "box2d",
    "cv2": "opencv-python-headless",
    "pygame": "pygame-ce",
    "pettingzoo": "pettingzoo",
    "ray": "ray",
    "tensorboard": "tensorboard",
    "imageio_ffmpeg": "imageio-ffmpeg",
    "numba": "numba",
}
EXTRAS = {  # pip extra -> its modules
    "atari": ("ale_py",),
    "mujoco": ("mujoco", "imageio"),
    "sb3": ("stable_baselines3",),
    "envpool": ("envpool",),
    "highway": ("highway_env",),
    "grid": ("minigrid",),
    "minatar": ("minatar",),
    "perception": ("sklearn",),
    "multiagent": ("mpe2", "pymunk"),
    "export": ("onnx", "onnxscript", "onnxruntime"),
    "embed-c": ("emx_onnx_cgen",),
    "embed-fmu": ("emx_onnx_cgen", "fmpy"),
    "serve": ("uvicorn", "httptools", "msgpack", "websockets", "orjson"),
    "serve-ray": ("fastapi",),
}
LOW_DISK = 2 * 2**30  # bytes: some checkpoints of a replay buffer

Finding = tuple[str, str, bool]  # what, how it is, whether rlkit can run with it


def main(argv: list[str]) -> int:
    """Print one line per finding."""
    if "-h" in argv or "--help" in argv:
        print(USAGE)
        return 0
    if argv:
        return _examine(argv)
    healthy = True
    for name, text, fine in findings():
        print(f"{name:<16} {'' if fine else 'MISSING: '}{text}")
        healthy = healthy and fine
    print("all essentials are here" if healthy else "something essential is missing")
    return 0 if healthy else 1


def _examine(overrides: list[str]) -> int:
    """Print one line per probe of an agent's algorithm."""
    if any(text.startswith("task=") for text in overrides):
        return _examine_task(overrides)
    if not any(text.startswith("agent=") for text in overrides):
        text = (
            f"{overrides[0]}: whose? rlkit doctor agent=NAME examines an agent, rlkit doctor the installation"
        )
        print(f"rlkit: {text}", file=sys.stderr)
        return 2
    from rlkit import probes

    failed = []
    for result in probes.run_all(overrides):
        print(f"{result.verdict}  {result.probe.name:<12} {result.text}", flush=True)
        if result.verdict == "FAIL":
            failed.append(result.probe)
    if failed:
        print(f"start with {failed[0].name}: later probes need what it tests. Look at {failed[0].part}")
    else:
        print("every answer is right")
    return 1 if failed else 0


def _examine_task(overrides: list[str]) -> int:
    """Print one line per question to a supervised task."""
    from rlkit.config.edits import parse
    from rlkit.perception.selftest import ask

    words = dict(parse(overrides))
    failed = 0
    for answer in ask(str(words.pop("task")), words):
        verdict = "ok  " if answer.passed else "FAIL"
        print(f"{verdict}  {answer.name:<9} {answer.measured}; expected {answer.expected}", flush=True)
        failed += not answer.passed
    print(f"{failed} of its answers are wrong" if failed else "every answer is right")
    return 1 if failed else 0


def findings() -> Iterator[Finding]:
    """Every finding about this installation, essentials first."""
    yield "rlkit", f"{__version__} in {Path(__file__).resolve().parents[1]}", True
    python = ".".join(map(str, sys.version_info[:3]))
    new = sys.version_info >= (3, 11)
    yield "python", f"{python} ({platform.platform()})" + ("" if new else "; needs 3.11 or newer"), new
    for module, distribution in ESSENTIAL.items():
        yield _import(module, distribution)
    for module, distribution in USUAL.items():
        yield distribution, _found(module, distribution, f"pip install {distribution}"), True
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        text = f'not installed: pip install "rlkit[{extra}]"' if missing else "installed"
        yield f"extra {extra}", text, True
    yield from _machine()


def _import(module: str, distribution: str) -> Finding:
    """An essential module must not only be there: it must import."""
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken binary raises anything
        reason = (str(error).splitlines() or [""])[0]
        text = f"{type(error).__name__}: {reason}; pip install --force-reinstall {distribution}"
        return distribution, text, False
    return distribution, _version(distribution), True


def _found(module: str, distribution: str, remedy: str) -> str:
    return _version(distribution) if importlib.util.find_spec(module) else f"not installed: {remedy}"


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "installed (its version is not recorded)"


def _machine() -> Iterator[Finding]:
    yield "cores", f"{cores()} for this process", True
    yield from _torch()
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    yield "C++ compiler", compiler or "none: compile=true needs one on CPU (apt install g++)", True
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    yield "display", screen or "none: rlkit watch writes videos instead of opening a window", True
    yield "ffmpeg", _ffmpeg(), True
    free = shutil.disk_usage(".").free
    low = " (little: checkpoints may not fit)" if free < LOW_DISK else ""
    yield "disk", f"{free / 2**30:.1f} GiB free in {os.getcwd()}{low}", True


def _torch() -> Iterator[Finding]:
    if "torch" not in sys.modules:
        return
    import torch

    yield "torch threads", f"{torch.get_num_threads()}", True
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            yield f"cuda:{index}", f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB", True
    else:
        built = torch.version.cuda
        why = "no GPU is visible" if built else "this torch is built without it"
        yield "cuda", f"none: {why}; training runs on the CPU", True


def _ffmpeg() -> str:
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        return f"none, so no videos: {error}"
