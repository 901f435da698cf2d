"""Real faults: environments that raise, hang, exit or leave their space; parents that are killed."""

import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rlkit.envs import EnvConfig, EnvFault, make_vec, probe
from rlkit.envs.backends import watchdog
from rlkit.seeding import episode_seed
from rlkit.sources.thread import ThreadSource
from tests.helpers.processes import all_gone, below, children, gone
from tests.helpers.runs import program

FAULTY = "rlkit.envs.toys:Faulty"


def make(kind, backend, lane=2, lanes=3, deadline=20.0, workers=2, seed=9):
    """Only `lane` fails, in step 2 of its episode 1."""
    kwargs = {"kind": kind, "at": 2, "seed": episode_seed(seed, lane, 1), "length": 4}
    return make_vec(
        EnvConfig(
            id=FAULTY,
            kwargs=kwargs,
            lanes=lanes,
            backend=backend,
            workers=workers,
            deadline=deadline,
            check="space",
        ),
        seed,
    )


def play(env, steps=20):
    env.restore(np.zeros(env.lanes, np.int64), [np.zeros(0, np.int64)] * env.lanes)
    for _ in range(steps):
        env.step(torch.zeros(env.lanes, dtype=torch.int64))


def check_place(fault, kind):
    step = 0 if kind == "reset" else 2
    assert (fault.lane, fault.episode, fault.step) == (2, 1, step)
    assert fault.seed == episode_seed(9, 2, 1)
    assert f"environment {FAULTY}, lane 2, episode 1 (seed {fault.seed}), step {step}" in str(fault)


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("raised", "raised"),
        ("reset", "raised"),
        ("quit", "exited"),
        ("exited", "exited"),
        ("nan", "nan"),
        ("reward", "nan"),
        ("shape", "shape"),
        ("dtype", "dtype"),
        ("space", "space"),
    ],
)
def test_faults_in_workers(kind, found):
    env = make(kind, "workers")
    pids = [worker.process.pid for worker in env.workers]
    with pytest.raises(EnvFault) as caught:
        play(env)
    assert caught.value.kind == found
    check_place(caught.value, kind)
    if kind in ("raised", "reset"):
        assert "on purpose" in str(caught.value)
        assert "faulty.py" in caught.value.trace
    if kind == "exited":
        assert "exit status 7" in str(caught.value)
    assert all_gone(pids, 3.0), "a fault ends all workers"
    env.close()


@pytest.mark.parametrize("kind", ["hung", "loop", "stuck"])
def test_hangs_in_workers_show_the_stack(kind):
    env = make(kind, "workers", deadline=0.7)
    pids = [worker.process.pid for worker in env.workers]
    with pytest.raises(EnvFault) as caught:
        play(env)
    assert caught.value.kind == "hung"
    check_place(caught.value, kind)
    assert "_fail" in caught.value.trace
    assert "faulty.py" in caught.value.trace
    assert "no answer in 0.7 s" in str(caught.value)
    assert "env.deadline" in str(caught.value)
    assert all_gone(pids, 3.0)


@pytest.mark.parametrize(("kind", "place"), [("hung", "main"), ("loop", "main"), ("loop", "thread")])
def test_hangs_in_this_process(kind, place):
    """A sleep can only be interrupted in the main thread; a Python loop in any."""
    env = make(kind, "inprocess", deadline=0.5)
    caught = []

    def run():
        try:
            play(env)
        except EnvFault as fault:
            caught.append(fault)

    if place == "main":
        run()
    else:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join(20.0)
    assert [fault.kind for fault in caught] == ["hung"]
    check_place(caught[0], kind)
    assert "faulty.py" in caught[0].trace
    env.close()


UNSTOPPABLE = """
import threading, numpy as np, torch
import rlkit.envs.backends.watchdog as watchdog
watchdog.GRACE, watchdog.CORES = 0.5, 1
from rlkit.envs import EnvConfig, make_vec
from rlkit.envs.backends import watchdog
watchdog.GRACE = 1.0
def play():
    env = make_vec(EnvConfig(id="rlkit.envs.toys:Faulty", kwargs={{"kind": "{kind}"}}, lanes=1,
    backend="inprocess",
                             deadline=0.5), 0)
    env.restore(np.zeros(1, np.int64), [np.zeros(0, np.int64)])
    for _ in range(9):
        env.step(torch.zeros(1, dtype=torch.int64))
{call}
"""


@pytest.mark.parametrize(
    ("kind", "call", "code", "words"),
    [
        # C code that keeps the lock: only the kernel's timer can end it
        ("stuck", "play()", -signal.SIGVTALRM, "Current thread"),
        (
            "hung",
            "t = threading.Thread(target=play); t.start(); t.join()",
            1,
            "the step cannot be interrupted",
        ),
    ],
)
def test_unstoppable_hangs_end_the_process(tmp_path, kind, call, code, words):
    process = program(tmp_path, UNSTOPPABLE.format(kind=kind, call=call))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert words in output
    assert "faulty.py" in output


def test_a_hang_in_another_thread_is_handed_to_the_one_that_waits(monkeypatch):
    """It can still save the run, where the process would end a little later."""
    monkeypatch.setattr(watchdog, "GRACE", 1.5)
    ended = []
    monkeypatch.setattr(watchdog, "_end", ended.append)
    env = make("hung", "inprocess", deadline=0.3)
    actor = SimpleNamespace(policy=object(), timing=None, env=env, collect=lambda: play(env))
    source = ThreadSource(actor, object())
    source._done = threading.Event()
    threading.Thread(target=source._collect, args=[source._done], daemon=True).start()
    with pytest.raises(EnvFault, match="no answer in 0.3 s") as caught:
        source._wait()
    check_place(caught.value, "hung")
    time.sleep(2.0)
    assert not ended and env.guard not in watchdog._guards, "who has taken the fault ends the run"


def test_a_step_that_returned_late_is_not_handed_over(monkeypatch):
    """The interruption was slow to arrive: the fault is the stuck thread's own, or its episode was cut."""
    guard = watchdog.Guard(1.0, lambda stack: RuntimeError("hung"))
    monkeypatch.setattr(guard, "_interrupt", lambda: None)
    for case in ("stuck", "returned", "at the next step"):
        guard.count, guard.running = guard.count + 1, True
        for seconds in (0.0, 1.5, watchdog.GRACE):
            assert guard.hand_over() is None
            guard.look(seconds)
        if case == "returned":
            guard.end()
        if case == "at the next step":
            guard.count += 1
        found = guard.hand_over()
        assert (found is guard.pending) == (case == "stuck")
        if case != "stuck":
            guard.running, guard.count = True, guard.count + 1
            guard.look(0.1)
            assert not guard.lost and guard.hand_over() is None


def test_a_healthy_slow_learner_is_not_taken_for_a_hang():
    """Time between steps does not count, nor do many steps add up."""
    for guard in list(watchdog._guards):  # of other tests' vectors that nobody has collected yet
        guard.close()
    env = make("raised", "inprocess", lane=99, deadline=1.0)
    for _ in range(2):
        play(env, 3)
        time.sleep(1.4)
    end = time.monotonic() + 1.6
    while time.monotonic() < end:
        env.step(torch.zeros(3, dtype=torch.int64))
    assert env.guard.pending is None
    env.close()
    for thread in [thread for thread in threading.enumerate() if thread.name == "rlkit-watchdog"]:
        thread.join(5.0)
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0), "no guard, no timer"


def test_a_suspended_process_is_not_hung(monkeypatch):
    """A look that comes an hour late counts as a late look, not as an hour of waiting."""
    faults = []
    guard = watchdog.Guard(60.0, lambda stack: faults.append(stack) or RuntimeError(stack))
    monkeypatch.setattr(guard, "_interrupt", lambda: None)
    times = iter([0.0, 1.0, 3601.0, 3602.0])
    pauses = []

    class Clock:
        monotonic = staticmethod(lambda: next(times))

        @staticmethod
        def sleep(pause):
            pauses.append(pause)
            if len(pauses) == 3:
                guard.close()

    monkeypatch.setattr(watchdog, "time", Clock)
    monkeypatch.setattr(watchdog, "_guards", weakref.WeakSet([guard]))
    guard.watched, guard.running, guard.count = True, True, 1
    watchdog._patrol()
    assert pauses == [1.0] * 3
    assert guard._waited == pytest.approx(3.0)  # 2 for the hour, 1 for the second
    assert not faults


def test_a_killed_worker_is_named():
    env = make("raised", "workers", lane=99)
    play(env, 3)
    victim = env.workers[1]
    pids = [worker.process.pid for worker in env.workers]
    os.kill(victim.process.pid, signal.SIGKILL)
    with pytest.raises(EnvFault, match=r"killed by SIGKILL") as caught:
        play(env, 3)
    assert caught.value.kind == "exited"
    assert f"pid {victim.process.pid}" in str(caught.value)
    assert victim.start <= caught.value.lane < victim.stop
    assert all_gone(pids, 3.0)


def test_closing_leaves_no_process_and_no_descriptor():
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        env = make("raised", "workers", lane=99)
        pids = [worker.process.pid for worker in env.workers]
        play(env, 2)
        env.close()
        assert all(gone(pid) for pid in pids)
        del env
    assert len(os.listdir("/proc/self/fd")) <= before + 1


ENDLESS = '''
from rlkit.envs.toys import Faulty
from rlkit.seeding import episode_seed
class Endless(Faulty):
    """In its third step lane 1 sleeps and lane 2 is stuck in C code that keeps the interpreter's lock."""
    def reset(self, *, seed=None, options=None):
        kinds = {episode_seed(0, 1, 0): "hung", episode_seed(0, 2, 0): "stuck"}
        self.kind = kinds.get(seed, "idle")
        return super().reset(seed=seed, options=options)
'''
PARENT = """
import sys, numpy as np, torch
from rlkit.envs import EnvConfig, make_vec
env = make_vec(EnvConfig(id="endless:Endless", lanes=3, backend="workers", workers=3, deadline=600,
                         action_mask="none"), 0)
env.restore(np.zeros(3, np.int64), [np.zeros(0, np.int64)] * 3)
print(*[worker.process.pid for worker in env.workers], flush=True)
while True:
    env.step(torch.zeros(3, dtype=torch.int64))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_orphan_survives_the_parent(tmp_path, number):
    """Neither a worker that waits, nor one whose environment sleeps or is stuck in C code."""
    (tmp_path / "endless.py").write_text(ENDLESS)
    parent = program(tmp_path, PARENT)
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    try:
        assert len(pids) == 3
        time.sleep(0.3)
        assert not any(gone(pid) for pid in pids)
        os.kill(parent.pid, number)
        assert all_gone(pids, 3.0)
        parent.wait(10.0)
    finally:
        for pid in (*pids, parent.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        parent.wait()
        parent.stdout.close()


def test_workers_outlive_the_thread_that_started_them():
    made = []
    thread = threading.Thread(target=lambda: made.append(make("raised", "workers", lane=99)))
    thread.start()
    thread.join()
    time.sleep(0.3)
    play(made[0], 3)
    assert made[0].rows.steps.tolist() == [3] * made[0].lanes
    made[0].close()


SIMULATOR = '''
import os, signal, subprocess, sys, gymnasium, numpy as np
from gymnasium import spaces
class Simulated(gymnasium.Env):
    """Every second one leaves the session of its process, as daemons do."""
    observation_space, action_space = spaces.Box(-1, 1, (1,), np.float32), spaces.Discrete(2)
    def __init__(self, died=False, late=False):
        self.died, self.late = died, late
        if not late:
            self.begin()
    def begin(self):
        Simulated.count = getattr(Simulated, "count", 0) + 1
        words = ["sh", "-c", "sleep 600 & wait"]
        self.simulator = subprocess.Popen(words, start_new_session=Simulated.count % 2 == 0)
    def reset(self, *, seed=None, options=None):
        if self.late:
            self.begin()
        return np.zeros(1, np.float32), {}
    def step(self, action):
        if self.died:
            os.kill(os.getpid(), signal.SIGSEGV)
        return np.zeros(1, np.float32), float(self.simulator.pid), False, False, {}
'''


def simulated(folder, monkeypatch, **kwargs):
    (folder / "simulated.py").write_text(SIMULATOR)
    monkeypatch.syspath_prepend(folder)
    config = EnvConfig(
        id="simulated:Simulated", kwargs=kwargs, lanes=4, backend="workers", workers=2, action_mask="none"
    )
    vector = make_vec(config, 0)
    vector.restore(np.zeros(4, np.int64), [np.zeros(0, np.int64)] * 4)
    pids = [pid for worker in vector.workers for pid in below(worker.process.pid)]
    assert len(pids) == 2 * 6  # a worker, who waits with it, and two simulators of two processes
    return vector, pids


@pytest.mark.parametrize("end", ["close", "fault", "parent"])
def test_what_environments_start_ends_with_them(tmp_path, monkeypatch, end):
    """When the vector is closed, when a worker crashes, and when the pipe closes that ends with the run."""
    vector, pids = simulated(tmp_path, monkeypatch, died=end == "fault")
    if end == "close":
        vector.close()
    elif end == "fault":
        with pytest.raises(EnvFault, match="killed by SIGSEGV"):
            vector.step(torch.zeros(4, dtype=torch.int64))
    else:
        for worker in vector.workers:
            os.close(worker.life)  # as the kernel does for a process that was killed
            worker.life = -1
    assert all_gone(pids, 3.0)
    vector.close()


@pytest.mark.parametrize("late", [False, True])
def test_what_environments_start_here_ends_when_they_are_closed(tmp_path, monkeypatch, late):
    """Started in the constructor or in the first reset, with what it has started itself."""
    (tmp_path / "simulated_here.py").write_text(SIMULATOR)
    monkeypatch.syspath_prepend(tmp_path)
    config = EnvConfig(id="simulated_here:Simulated", kwargs={"late": late}, lanes=1, backend="inprocess")
    before = children("self")
    probe(config)
    assert all_gone(children("self") - before, 3.0), "nor after one was looked at"
    vector = make_vec(replace(config, action_mask="none"), 0)
    vector.restore(np.zeros(1, np.int64), [np.zeros(0, np.int64)])
    shell = vector.block.envs[0].unwrapped.simulator
    pids = [*below(shell.pid), vector.block.simulators.keeper.pid]
    if late is False:
        assert len(pids) == 3
    bystander = subprocess.Popen(["sleep", "60"])
    vector.close()
    assert all_gone(pids, 3.0) and bystander.poll() is None
    bystander.kill()
    bystander.wait()
    vector = make("raised", "inprocess", lane=99)
    play(vector, 1)
    assert vector.block.simulators.keeper is None, "where nothing was started there is nobody to end it"
    vector.close()


KILLED = """
import os, signal, subprocess
from rlkit.envs.backends.simulators import Simulators
with Simulators().tracking():
    shell = subprocess.Popen(["sh", "-c", "sleep 600 & wait"])
print(shell.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_environments_start_here_ends_when_the_run_is_killed():
    done = subprocess.run([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert all_gone([int(done.stdout)], 5.0)
