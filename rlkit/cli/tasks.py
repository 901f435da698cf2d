"""What `rlkit evaluate` and `rlkit watch` do with the run of a supervised task."""

from __future__ import annotations

import argparse
import csv
import io
from typing import TYPE_CHECKING

import numpy as np

from rlkit.files import Place
from rlkit.options import ConfigError
from rlkit.text import clean, quoted

if TYPE_CHECKING:
    from rlkit.config.schema import TaskRun
    from rlkit.perception.saved import SavedModel, Scorer
    from rlkit.perception.table import Index, Table


def open_scorer(
    arguments: argparse.Namespace, config: TaskRun
) -> tuple[Place, SavedModel, Scorer, Table, str, Index]:
    """The run's folder, its model, what scores it, the table, the part of it and its rows. Raises ConfigError."""
    import sys

    import torch

    from rlkit.checkpoint import first_whole
    from rlkit.config import trust
    from rlkit.device import choose_threads
    from rlkit.machine import cores
    from rlkit.perception.columns import spec_of
    from rlkit.perception.feed import Reader
    from rlkit.perception.saved import Scorer, open_model
    from rlkit.perception.sets import open_data
    from rlkit.play.saved import find
    from rlkit.run.folder import run_folder
    from rlkit.run.probe import has_pixels
    from rlkit.space_json import to_json
    from rlkit.spaces import describe

    folder = run_folder(arguments.run)
    name = arguments.data or config.data
    if arguments.data:
        trust.remember(*trust.requests({"data": name}))
    trust.require(*trust.requests({"data": name}))
    path, parts = first_whole(
        find(folder, arguments.checkpoint), "policy", say=lambda text: print(clean(text), file=sys.stderr)
    )
    saved = open_model(parts["policy"], path)
    table, label = open_data(name), str(parts["policy"]["label"])
    if label and label not in table.columns:
        raise ConfigError(
            f"data={name}: has no column {label}, which the model learned; it has {', '.join(table.columns)}"
        )
    found = spec_of(table, table.columns[label] if label else None, saved.spec.stack)
    for what in ("observation", "action"):
        given, known = getattr(found, what), getattr(saved.spec, what)
        if to_json(given) != to_json(known):
            which = "inputs are" if what == "observation" else "label is"
            raise ConfigError(f"data={name}: its {which} {describe(given)}, the model's {describe(known)}")
    torch.set_num_threads(choose_threads(min(config.threads, cores()), has_pixels(saved.spec)))
    part = arguments.part or "test"
    reader = Reader.of(table, saved.model, label, torch.device("cpu"))
    index = reader.part(part)
    if not len(index):
        raise ConfigError(
            f"part={part}: no row of {name} is in it; allowed: training, validation, test with rows"
        )
    return folder, saved, Scorer(saved.model, reader), table, part, index


def evaluate(arguments: argparse.Namespace, config: TaskRun) -> int:
    """Score rows that the model never learned from, print the table, write the CSV."""
    from rlkit.play.statistics import summarise, table

    folder, saved, scorer, data, part, index = open_scorer(arguments, config)
    if arguments.episodes:
        length = saved.model.length
        index = index[: -(-arguments.episodes // length) * length]
    scores = scorer.scores(index)
    groups, group_of = np.unique(data.groups[index], return_inverse=True)
    alone = len(groups) == len(index)
    # rows of one group are alike, so the groups are what varies
    values = scores if alone else np.bincount(group_of, scores) / np.bincount(group_of)
    print(clean(f"{saved.path}: {len(index):,} rows of the part {part} of {data.name}"))
    print(table(summarise(values), "score", "row" if alone else "group"))
    label = data[scorer.reader.label][index] if scorer.reader.label else np.zeros(0)
    for name, number in saved.model.summary(scorer.predictions(index), label).items():
        print(f"{name:<28} {number:>10.4f}")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "group", "score"])
    writer.writerows(
        (int(row), int(group), repr(float(score)))
        for row, group, score in zip(index, data.groups[index], scores, strict=True)
    )
    path = (folder / "eval").mkdir() / f"{saved.path.name}-{part}-{len(index)}.csv"
    path.write(text.getvalue().encode())
    print(f"rows:      {clean(path)}\nwatch it:  rlkit watch {quoted(folder)}")
    return 0


def watch(arguments: argparse.Namespace, config: TaskRun) -> int:
    """Frames of held-out rows with what the model says of them, beside what is true: a video, or a picture."""
    import cv2

    from rlkit.files import at
    from rlkit.perception.show import scene
    from rlkit.play.video import VideoWriter

    folder, saved, scorer, data, part, index = open_scorer(arguments, config)
    if arguments.video:
        chosen = np.arange(min(arguments.episodes or 500, len(index)))
        path = at(arguments.video)
        video = VideoWriter(path, 10.0)
        try:
            for frame in scene(saved, scorer, data, index, chosen):
                video.add(frame)
        except BaseException:
            video.close(keep=False)
            raise
        video.close()
    else:
        # the rows that the model is worst at, the worst first
        scores = scorer.scores(index)
        chosen = np.argsort(scores, kind="stable")[: (arguments.episodes or 16)]
        frames = list(scene(saved, scorer, data, index, chosen))
        across = min(4, len(frames))
        frames += [np.full_like(frames[0], 255)] * (-len(frames) % across)
        picture = np.vstack([np.hstack(frames[i : i + across]) for i in range(0, len(frames), across)])
        path = (folder / "eval").mkdir() / f"{saved.path.name}-{part}-worst.png"
        path.write(cv2.imencode(".png", picture[..., ::-1])[1].tobytes())
    what = "video:      " if arguments.video else "worst rows: "
    print(f"{what} {clean(path)}\nevaluate it: rlkit evaluate {quoted(folder)}")
    return 0
