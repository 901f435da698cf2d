"""What environments do wrong, one episode of one lane: raise, hang, crash, interrupt, return what they must not.

Survived: the run ends with exit code 1 within its deadline, says which environment, lane, episode, seed and step it
was, and which value, and is saved so that it can be continued. In each place where environments are stepped: in this
process, in worker processes, in this process beside a thread that learns, on Ray. Left out is what cannot be caught in
this process: machine code that crashes it, or that never lets go of the interpreter, of which Python's fault handler
prints the line; on Ray these end a worker, whose rows are reported as lost, and another one goes on.
"""

from __future__ import annotations

import re
from pathlib import Path

from rlkit.seeding import episode_seed
from scripts.ledger.trial import Task, Trial, Trials
from tests.helpers.runs import rlkit

ODD = '''
import asyncio, os, signal
import numpy as np
from rlkit.envs.toys.faulty import Faulty

class Odd(Faulty):
    """Fails once, in `at`, in a way that is not Faulty's."""
    def __init__(self, what, at, seed, length):
        super().__init__("raised", at, seed, length)
        self.what = what
    def step(self, action):
        if not (self.chosen and self.t + 1 == self.at):
            return super().step(action)
        obs = np.zeros(2, np.float32)
        if self.what in ("KeyboardInterrupt", "GeneratorExit"):
            raise {"KeyboardInterrupt": KeyboardInterrupt, "GeneratorExit": GeneratorExit}[self.what]
        if self.what == "CancelledError":
            raise asyncio.CancelledError
        if self.what == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        return {
            "four values": (obs, 1.0, False, {}), "reward text": (obs, "1.0", False, False, {}),
            "reward of two": (obs, np.ones(2), False, False, {}), "terminated None": (obs, 1.0, None, False, {}),
            "truncated dict": (obs, 1.0, False, {}, {}), "nothing": None, "obs None": (None, 1.0, False, False, {}),
        }[self.what]
'''
STEP = 3
KINDS = {  # what is wrong -> (how the message begins, what it names)
    "raised": ("raised", "broken on purpose"), "reset": ("raised", "broken in reset on purpose"),
    "quit": ("exited", "SystemExit"), "exited": ("exited", "exit"), "hung": ("hung", "no answer in 2 s"),
    "loop": ("hung", "no answer in 2 s"), "stuck": ("hung", "no answer in 2 s"),
    "nan": ("nan", "obs: "), "reward": ("nan", "reward"), "shape": ("shape", "obs: "),
    "dtype": ("dtype", "obs: "), "space": ("space", "obs: "),
    "KeyboardInterrupt": ("raised", "KeyboardInterrupt"), "GeneratorExit": ("raised", "GeneratorExit"),
    "CancelledError": ("raised", "CancelledError"), "crash": ("exited", "SIGSEGV"),
    "four values": ("interface", "step"), "reward text": ("interface", "reward"),
    "reward of two": ("interface", "reward"), "terminated None": ("interface", "terminated"),
    "truncated dict": ("interface", "truncated"), "nothing": ("interface", "step"), "obs None": ("", "obs"),
}  # fmt: skip
ODDITIES = {
    "KeyboardInterrupt", "GeneratorExit", "CancelledError", "crash", "four values", "reward text", "reward of two",
    "terminated None", "truncated dict", "nothing", "obs None",
}  # fmt: skip
PLACES = {
    "in process": ["env.backend=inprocess"],
    "workers": ["env.backend=workers", "env.workers=2"],
    "thread": ["env.backend=inprocess", "source=thread"],
    "ray": ["source=ray", "source.workers=1", "source.max_failures=0"],
}
UNCAUGHT = {(place, kind) for place in ("in process", "thread") for kind in ("crash", "stuck")}
REPLACED = {("ray", "crash"), ("ray", "stuck")}
SAMPLE = ("raised", "hung", "nan", "reward text", "exited")
COMMON = [
    "train", "agent=ppo", "env.lanes=4", "agent.steps=8", "agent.minibatch=16", "agent.epochs=1", "total_steps=400",
    "evaluate.episodes=1", "env.deadline=2", "env.check=space", "log.tensorboard=false", "device=cpu", "threads=1",
    "network.hidden=[8]", "seed=5",
]  # fmt: skip


def trials(task: Task) -> Trials:
    for place, options in PLACES.items():
        if task.short and place == "ray":
            continue
        for kind in SAMPLE if task.short else KINDS:
            if (place, kind) not in UNCAUGHT:
                yield _trial(task.folder(), place, options, kind)


def _trial(folder: Path, place: str, options: list[str], kind: str) -> Trial:
    lane, episode = 2, 1
    seed = episode_seed(5, lane, episode)
    (folder / "odd.py").write_text(ODD)
    odd = kind in ODDITIES
    code, output = rlkit(
        folder, *COMMON, *options, f"env={'odd:Odd' if odd else 'rlkit.envs.toys:Faulty'}",
        f"env.kwargs={{{'what' if odd else 'kind'}: '{kind}', at: {STEP}, seed: {seed}, length: 6}}", "name=run",
        timeout=120,
    )  # fmt: skip
    name = "odd:Odd" if odd else "rlkit.envs.toys:Faulty"
    step = 0 if kind == "reset" else STEP
    begin, named = KINDS[kind]
    place_words = f"environment {name}, lane {lane}, episode {episode} (seed {seed}), step {step}"
    said = [line for line in output.splitlines() if place_words in line]
    if (place, kind) in REPLACED:
        told = re.search(r"worker 0 \(lanes 0 to 3\) died, and \d+ rows are lost: .+", output)
        return Trial(f"{place}: {kind}", code == 0 and told is not None, told[0] if told else output[-500:])
    wrong = []
    if code != 1:
        wrong.append(f"exit code {code}")
    if not any(re.search(rf"\b{begin}: environment", line) if begin else True for line in said) or not said:
        wrong.append("the place is not said")
    elif not any(named in line for line in said):
        wrong.append(f"{named} is not said")
    if not any((folder / "runs" / "run" / "checkpoints").glob("step-*")):
        wrong.append("the run is not saved")
    return Trial(f"{place}: {kind}", not wrong, f"{'; '.join(wrong)}: {output[-500:]}" if wrong else said[-1])
