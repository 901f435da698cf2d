"""rlkit data: look at a table."""

from __future__ import annotations

from rlkit.files import at
from rlkit.options import ConfigError
from rlkit.text import clean

USAGE = """usage: rlkit data check DATA

Say what a table holds: rows per part, the range of each column, how often each class comes, rows that are there
twice. A picture of 16 labelled rows is written to DATA/check.png. DATA is a table's folder, a data set's name
(rlkit list data) or module:function.
"""


def main(argv: list[str]) -> int:
    """Print what was found."""
    if not argv or "-h" in argv or "--help" in argv:
        print(USAGE)
        return 0
    if len(argv) != 2 or argv[0] != "check":
        raise ConfigError(f"data {' '.join(argv)}: allowed: rlkit data check DATA")
    from pathlib import Path

    from rlkit.config import trust
    from rlkit.perception.inspect import findings, sheet
    from rlkit.perception.sets import open_data

    name = argv[1].removeprefix("data=")
    trust.remember(*trust.requests({"data": name}))
    table = open_data(name)
    for line in findings(table):
        print(clean(line))
    picture = sheet(table)
    if picture is not None and Path(name).is_dir():
        import cv2

        path = at(name) / "check.png"
        path.write(cv2.imencode(".png", picture[..., ::-1])[1].tobytes())
        print(f"picture: {clean(path)}")
    return 0
