"""Runs an exported policy with NumPy alone, or with ONNX Runtime where that is installed.

    from rlkit.runtime import Policy
    policy = Policy.load("runs/x/export")
    action, state = policy(obs, state)        # state None opens an episode

The folder may come from anybody: sizes are bounded, sums are compared, nothing is unpickled, and nothing in it becomes
code (rlkit.deploy.program). The exported folder holds this module and what it imports as one file, rlkit_runtime.py.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import math
import stat
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from rlkit.deploy.graph import LARGEST, LARGEST_FILE, TYPES, GraphError, read_graph
from rlkit.deploy.parity import replay
from rlkit.deploy.program import FAULTS, Program
from rlkit.embedded import Embedded, Info, Part
from rlkit.reading import Frames, Reader, frames_of, native_actions
from rlkit.space_json import from_json
from rlkit.spaces import Array, action_row, leaves, row_dtype

FORMAT = 1
BACKENDS = ("numpy", "onnxruntime")
MOST_LANES = 1 << 16
_TEXT = 1 << 24  # bytes of a JSON file beyond which nothing is read
_TRIALS = 20  # calls that are timed to choose a backend


class Folder:
    """The files of an exported folder, each compared with its sum in manifest.json. Raises GraphError."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        manifest = self._parsed(self._bytes("manifest.json", _TEXT))
        try:
            sealed = {key: value for key, value in manifest.items() if key != "sha256"}
            text = json.dumps(sealed, sort_keys=True, separators=(",", ":"))
            whole = hashlib.sha256(text.encode()).hexdigest() == manifest["sha256"]
            self.format = int(manifest["format"])
            self.digest = str(manifest["sha256"])
            self.sums = {str(name): str(each["sha256"]) for name, each in manifest["files"].items()}
        except (*FAULTS, RecursionError) as error:
            raise GraphError(f"{self.path / 'manifest.json'} is damaged: {type(error).__name__}") from error
        if not whole:
            raise GraphError(f"{self.path / 'manifest.json'} is damaged: its SHA-256 is another")
        if self.format > FORMAT:
            raise GraphError(
                f"{self.path} has format {self.format}, newer than {FORMAT}: upgrade rlkit, or export again"
            )

    def read(self, name: str, limit: int = LARGEST_FILE) -> bytes:
        """The content of a file, verified."""
        if name not in self.sums:
            raise GraphError(f"{self.path} holds no {name}")
        data = self._bytes(name, limit)
        if hashlib.sha256(data).hexdigest() != self.sums[name]:
            raise GraphError(
                f"{self.path / name} is damaged: its SHA-256 is not the manifest's; export the run again"
            )
        return data

    def json(self, name: str) -> Info:
        return self._parsed(self.read(name, _TEXT))

    def _bytes(self, name: str, limit: int) -> bytes:
        path = self.path / name
        try:
            if not stat.S_ISREG(path.lstat().st_mode):  # a pipe may never end, and a link leads elsewhere
                raise GraphError(f"{path} is no regular file")
            with path.open("rb") as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise GraphError(f"{path}: {error.strerror}; rlkit export RUN makes such a folder") from error
        if len(data) > limit:
            raise GraphError(f"{path} is longer than {limit:,} bytes, which are read at most")
        return data

    def _parsed(self, data: bytes) -> Info:
        try:
            found = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise GraphError(f"{self.path}: a JSON file in it is damaged: {type(error).__name__}") from error
        if not isinstance(found, dict):
            raise GraphError(f"{self.path}: a JSON file in it is damaged: no object")
        return found


class Described(Embedded[tuple[Array, ...]]):
    """A policy of which policy.json says all but how it is computed. Raises GraphError."""

    def __init__(self, info: Info, where: str) -> None:
        self.info = info
        try:
            self._described(info)
        except GraphError:
            raise
        except (*FAULTS, RecursionError) as error:
            raise GraphError(f"{where} is damaged: {type(error).__name__}: {error}") from error

    def _described(self, info: Info) -> None:
        """Read policy.json."""
        observation, action = from_json(info["observation"]), from_json(info["action"])
        labels = [str(name) for name in info["labels"]]
        remedy = "make the environment as in training (preprocessing in policy.json; policy.prepare for raw frames)"
        self.reader = Reader(observation, action, labels, gaps=bool(info["gaps"]), remedy=remedy)
        self.memory = [
            (str(each["name"]), tuple(map(int, each["shape"])), str(each["dtype"])) for each in info["memory"]
        ]
        self.noise = int(info["noise"])
        self.frames: Frames = frames_of(observation, info["preprocessing"])
        self.row = action_row(action)
        shapes = [leaf.shape for _, leaf in leaves(self.reader.space)] + [
            shape for _, shape, _ in self.memory
        ]
        sizes = [math.prod(shape) for shape in (*shapes, self.row[0], (self.noise,))]
        known = all(dtype in TYPES.values() for _, _, dtype in self.memory)
        if sum(sizes) > LARGEST or any(size < 0 for size in sizes) or not known or not self.reader.entries:
            raise GraphError("policy.json describes observations, actions or a memory that no policy has")
        native_actions(action, np.zeros((1, *self.row[0]), self.row[1]))  # whether its numbers are such

    def opening(self, lanes: int) -> tuple[Array, ...]:
        return tuple(np.zeros((lanes, *shape), dtype) for _, shape, dtype in self.memory)

    def shapes(self, state: Any) -> list[Part]:
        if not isinstance(state, tuple):
            raise TypeError("a memory is a tuple")
        return [(x.shape, x.dtype) for x in state]

    def to_arrays(self, state: tuple[Array, ...]) -> list[Array]:
        return list(state)

    def from_arrays(self, arrays: list[Array]) -> tuple[Array, ...]:
        return tuple(arrays)

    def prepare(self, frame: Any) -> Array:
        return self.frames(frame)


class Policy(Described):
    """An exported policy; made by `Policy.load`."""

    def __init__(self, folder: Folder, backend: str, seed: int | None = None) -> None:
        self.folder, self.backend = folder, backend
        super().__init__(folder.json("policy.json"), str(folder.path / "policy.json"))
        self._generator = np.random.default_rng(seed)
        self._graphs: dict[bool, Any] = {True: self._opened("policy.onnx", True)}

    @classmethod
    def load(cls, folder: str | Path, backend: str = "", *, seed: int | None = None) -> Policy:
        """The policy in an exported folder.

        backend: "numpy", "onnxruntime", or "" for whichever is faster here (`policy.backend` says which). seed: of the
        noise of sampled actions. Raises GraphError (a ValueError) where the folder is damaged or asks for too much.
        """
        opened = Folder(folder)
        if backend and backend not in BACKENDS:
            raise ValueError(f"backend={backend!r}; allowed: {', '.join(map(repr, BACKENDS))}")
        if backend:
            return cls(opened, backend, seed)
        if importlib.util.find_spec("onnxruntime") is None:
            return cls(opened, "numpy", seed)
        both = [cls(opened, name, seed) for name in BACKENDS]
        return min(both, key=lambda policy: policy.seconds())

    def __repr__(self) -> str:
        return f"Policy({str(self.folder.path)!r}, backend={self.backend!r})"

    def _opened(self, name: str, greedy: bool) -> Any:
        """One of the two graphs, as a function of arrays, tried on one lane."""
        data = self.folder.read(name)
        graphs, known = self.info.get("graphs"), {each for each, _, _ in self.memory}
        kept = [str(each) for each in graphs.get(name) or ()] if isinstance(graphs, dict) else ["?"]
        if not known.issuperset(kept):
            raise GraphError(f"policy.json does not say what {name} remembers")
        names = [f"obs.{each.name}" if each.name else "obs" for each in self.reader.entries]
        inputs = [*names, "first", *(() if greedy else ("noise",)), *kept]
        outputs = ["action", *(each.replace("memory.", "memory_out.") for each in kept)]
        outputs += ["value"] if greedy and self.info.get("value") else []
        program: Any = Program(read_graph(data), inputs, outputs)
        rows = [np.zeros((1, *leaf.shape), row_dtype(leaf)) for _, leaf in leaves(self.reader.space)]
        noise = () if greedy else (np.full((1, self.noise), 0.5, np.float32),)
        wanted = {each: (1, *shape) for each, shape, _ in self.memory}
        given = [np.zeros(wanted[each], dtype) for each, _, dtype in self.memory if each in kept]
        found = program.check(*rows, np.array([True]), *noise, *given)
        shapes = [(1, *self.row[0]), *(wanted[each] for each in kept), (1,)][: len(outputs)]
        dtypes = [self.row[1], *(dtype for each, _, dtype in self.memory if each in kept), "float32"][
            : len(outputs)
        ]
        if [x.shape for x in found] != shapes or [x.dtype.name for x in found] != dtypes:
            raise GraphError(f"{name} computes other shapes than policy.json describes")
        places = [index for index, (each, _, _) in enumerate(self.memory) if each in kept]
        run = program if self.backend == "numpy" else _Session(data, inputs, outputs)
        return run, program, places

    def seconds(self) -> float:
        """What one decision takes here, at best."""
        rows = [np.zeros((1, *leaf.shape), row_dtype(leaf)) for _, leaf in leaves(self.reader.space)]
        given = dict(zip((each.name for each in self.reader.entries), rows, strict=True))
        state, first, best = self.opening(1), np.array([True]), math.inf
        for _ in range(_TRIALS):
            start = time.perf_counter()
            self.step(given, first, state, True)
            best = min(best, time.perf_counter() - start)
        return best

    def step(
        self, rows: dict[str, Array], first: Array, state: tuple[Array, ...], greedy: bool
    ) -> tuple[Array, tuple[Array, ...]]:
        if greedy:
            return self.run(rows, first, state)
        return self.run(rows, first, state, self._generator.random((len(first), self.noise), np.float32))

    def run(
        self, rows: dict[str, Array], first: Array, state: tuple[Array, ...], noise: Array | None = None
    ) -> tuple[Array, tuple[Array, ...]]:
        """One step of all lanes; noise [lanes, k]: uniforms in (0, 1) of sampled actions, None for greedy ones."""
        return self.decide(rows, first, state, noise)[:2]

    def decide(
        self, rows: dict[str, Array], first: Array, state: tuple[Array, ...], noise: Array | None = None
    ) -> tuple[Array, tuple[Array, ...], Array | None]:
        """As `run`, and the returns [lanes] that the greedy policy expects, where the graph was exported with them."""
        if len(first) > MOST_LANES:
            raise ValueError(f"{len(first):,} lanes; allowed: at most {MOST_LANES:,}")
        greedy = noise is None
        if greedy not in self._graphs:
            self._graphs[greedy] = self._opened("sample.onnx", greedy)
        graph, _, places = self._graphs[greedy]
        drawn = () if noise is None else (np.clip(noise, 1e-7, 1 - 1e-7),)
        action, *memory = graph(*rows.values(), first, *drawn, *(state[place] for place in places))
        value = memory.pop() if len(memory) > len(places) else None
        if len(places) == len(state):
            return action, tuple(memory), value
        after = list(state)  # what this graph does not read stays as it is
        for place, part in zip(places, memory, strict=True):
            after[place] = part
        return action, tuple(after), value

    def margin(
        self, rows: dict[str, Array], first: Array, state: tuple[Array, ...], noise: Array | None = None
    ) -> float:
        """How close the nearest two numbers are that this step compares: the smaller, the more a choice is a tie."""
        _, program, places = self._graphs[noise is None]
        drawn = () if noise is None else (np.clip(noise, 1e-7, 1 - 1e-7),)
        found: float = program.margin(*rows.values(), first, *drawn, *(state[place] for place in places))
        return found


class _Session:
    """A graph in ONNX Runtime, on one thread."""

    def __init__(self, data: bytes, inputs: list[str], outputs: list[str]) -> None:
        import onnxruntime  # type: ignore[import-not-found,import-untyped,unused-ignore]

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.inputs, self.outputs = inputs, outputs
        try:
            self.session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its own classes
            raise GraphError(
                f"ONNX Runtime does not open the graph: {' '.join(str(error).split())}"
            ) from error

    def __call__(self, *arrays: Array) -> list[Array]:
        found: list[Array] = self.session.run(self.outputs, dict(zip(self.inputs, arrays, strict=True)))
        return found


def main(argv: list[str] | None = None) -> int:
    """python rlkit_runtime.py FOLDER --check: replay the recorded steps with every backend that is installed."""
    parser = argparse.ArgumentParser(
        description="Look at an exported policy, and check it (needs NumPy alone)."
    )
    parser.add_argument("folder", metavar="FOLDER", nargs="?", default=str(Path(__file__).resolve().parent))
    parser.add_argument(
        "--check", action="store_true", help="replay the steps that were recorded of the agent"
    )
    arguments = parser.parse_args(argv)
    try:
        policy = Policy.load(arguments.folder, "numpy")
        info = policy.info
        shown = ", ".join(f"{name} {info.get(name)!a}" for name in ("agent", "run", "step"))
        print(f"{policy.folder.path}: {shown}")
        if not arguments.check:
            return 0
        found = [name for name in BACKENDS if name == "numpy" or importlib.util.find_spec(name)]
        for name in found:
            wrong = replay(policy if name == "numpy" else Policy.load(arguments.folder, name))
            print(f"{name}: {wrong or 'every recorded step is the same'}")
            if wrong:
                return 1
    except GraphError as error:
        print(f"rlkit: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
