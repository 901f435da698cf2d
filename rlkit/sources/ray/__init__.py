"""Rollouts from Ray actors.

Ray puts the driver's current folder in front of what its workers import. Actors are classes of this package, so it is
imported before anything that they need: the folder comes last again.
"""

import os
import sys

from rlkit.processes import search_path

if os.path.basename(sys.argv[0]) == "default_worker.py":  # this process is a worker of Ray's
    sys.path[:] = search_path()
