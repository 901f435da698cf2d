"""Small environments with known answers, for tests of learning and of faults: "rlkit.envs.toys:Identity"
and so on.
"""

from rlkit.envs.toys.faulty import Faulty
from rlkit.envs.toys.structured import Drive, Locked
from rlkit.envs.toys.tasks import Bandit, Cue, Identity, Quadratic, Scripted

__all__ = ["Bandit", "Cue", "Drive", "Faulty", "Identity", "Locked", "Quadratic", "Scripted"]
