"""Augmentations: beside a slow loop by hand; what is true of a picture follows it; nothing else changes."""

import math

import pytest
import torch

from rlkit.options import ConfigError, build
from rlkit.perception.augment import NUMBERS, AugmentConfig, Part, augment, brighter, draws, windows
from rlkit.spaces import Box

ALL = AugmentConfig(shift=4, crop=0.6, flip=True, mirrored=(0, 2), cutout=5, gain=0.4)
MOVES = AugmentConfig(shift=4, crop=0.6, flip=True)


def bytes_(*shape, seed=0):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def by_hand(picture, config, u):
    """One picture [H, W], pixel by pixel, as the options' help says."""
    height, width = picture.shape
    share = config.crop + (1 - config.crop) * u[2]
    tall, wide = (max(1, round(share * side)) for side in (height, width))
    top = math.floor(u[3] * (height - tall + 1)) + math.floor(u[0] * (2 * config.shift + 1)) - config.shift
    left = math.floor(u[4] * (width - wide + 1)) + math.floor(u[1] * (2 * config.shift + 1)) - config.shift
    middle = [math.floor(u[6] * height), math.floor(u[7] * width)]
    new = torch.zeros_like(picture)
    for i in range(height):
        for j in range(width):
            mirrored = width - 1 - j if config.flip and u[5] < 0.5 else j
            y = top + tall * (2 * i + 1) // (2 * height)
            x = left + wide * (2 * mirrored + 1) // (2 * width)
            value = int(picture[min(max(y, 0), height - 1), min(max(x, 0), width - 1)])
            corner = [m - config.cutout // 2 for m in middle]
            if corner[0] <= i < corner[0] + config.cutout and corner[1] <= j < corner[1] + config.cutout:
                value = 0
            new[i, j] = min(255, round(value * (1 + config.gain * (2 * u[8] - 1))))
    return new


@pytest.mark.parametrize(
    "config",
    [
        AugmentConfig(shift=4),
        AugmentConfig(crop=0.5),
        AugmentConfig(flip=True),
        AugmentConfig(cutout=4),
        AugmentConfig(gain=0.5),
        ALL,
    ],
)
def test_a_slow_loop_agrees(config):
    pictures, u = bytes_(6, 9, 12), draws(3, 7, 6)
    new = augment({"x": pictures}, {"x": Part("image")}, config, u)["x"]
    for picture, numbers, found in zip(pictures, u.double().tolist(), new, strict=True):
        assert torch.equal(found, by_hand(picture, config, numbers))
    assert not torch.equal(new, pictures) and len({tuple(x.flatten().tolist()) for x in new}) > 1


def test_all_layouts_of_one_picture_agree():
    """[B, k, H, W, C], [B, C, H, W] and [B, H, W] of the same pixels are changed alike, stacked frames too."""
    frames = bytes_(5, 3, 10, 8, 2)  # [B, k, H, W, C]
    u = draws(0, 0, 5)
    whole = augment({"x": frames}, {"x": Part("image", -3)}, ALL, u)["x"]
    for k in range(3):
        for c in range(2):
            alone = augment({"x": frames[:, k, ..., c]}, {"x": Part("image")}, ALL, u)["x"]
            assert torch.equal(whole[:, k, ..., c], alone)
    first = augment({"x": frames[:, 0].permute(0, 3, 1, 2)}, {"x": Part("image", -2)}, ALL, u)["x"]
    assert torch.equal(first.permute(0, 2, 3, 1), whole[:, 0])
    assert [Part.image(Box(shape, "uint8")).height for shape in ((8, 9), (3, 8, 9), (8, 9, 3))] == [
        -2,
        -2,
        -3,
    ]


def test_the_defaults_do_nothing():
    rows = {"x": bytes_(2, 4, 4), "y": torch.ones(2)}
    new = augment(rows, {"x": Part("image"), "y": Part("numbers")}, build(AugmentConfig, {}), draws(0, 0, 2))
    assert new == rows and new is not rows


def test_what_is_given_stays_as_it_is():
    rows = {"x": bytes_(4, 8, 8), "mask": bytes_(4, 8, 8), "n": torch.randn(4, 3), "other": torch.randn(4)}
    copies = {name: x.clone() for name, x in rows.items()}
    parts = {"x": Part("image"), "mask": Part("mask"), "n": Part("numbers", mirrored=(1,))}
    new = augment(rows, parts, ALL, draws(0, 0, 4))
    assert all(torch.equal(rows[name], x) for name, x in copies.items())
    assert new["other"] is rows["other"]


def test_numbers_follow_from_seed_and_update():
    assert torch.equal(draws(1, 2, 8), draws(1, 2, 8)) and draws(1, 2, 8).shape == (8, NUMBERS)
    assert torch.equal(draws(1, 2, 8)[:3], draws(1, 2, 3)), (
        "a row's numbers do not depend on how many there are"
    )
    for other in (draws(2, 2, 8), draws(1, 3, 8)):
        assert not (other == draws(1, 2, 8)).any()


def painted(size=24, rows=40):
    """A rectangle in each picture: bytes, mask and box of the same one, well inside."""
    g = torch.Generator().manual_seed(1)
    low = torch.randint(6, 10, (rows, 2), generator=g)
    high = low + torch.randint(3, 8, (rows, 2), generator=g)
    at = torch.arange(size)
    inside = [(at >= low[:, i : i + 1]) & (at < high[:, i : i + 1]) for i in (0, 1)]  # across, down
    mask = (inside[1][:, :, None] & inside[0][:, None, :]).to(torch.uint8)
    boxes = torch.zeros(rows, 2, 4)  # the second box of each row is filling
    boxes[:, 0] = torch.cat([low, high], 1).float()
    return {"image": mask * 200, "mask": mask, "boxes": boxes}


PARTS = {"image": Part("image"), "mask": Part("mask"), "boxes": Part("boxes")}


def test_a_mask_stays_on_its_object():
    rows = painted()
    new = augment(rows, PARTS, ALL, draws(0, 0, 40))
    bright = new["image"] > 0
    assert not (bright & (new["mask"] == 0)).any(), "an object lies outside its mask"
    hidden = (new["mask"] == 1) & ~bright  # by the cut-out alone
    assert 0 < hidden.sum() <= 40 * 5 * 5 and set(new["mask"].unique().tolist()) == {0, 1}
    new = augment(rows, PARTS, MOVES, draws(0, 0, 40))
    assert torch.equal(new["image"], new["mask"] * 200)


@pytest.mark.parametrize("config", [AugmentConfig(shift=4, flip=True), MOVES])
def test_boxes_follow_what_they_hold(config):
    """Without a crop to the pixel; enlarged, an edge lies within half a pixel of the last pixel that is drawn."""
    rows, size = painted(), 24
    new = augment(rows, PARTS, config, draws(0, 0, 40))
    assert torch.equal(new["boxes"][:, 1], rows["boxes"][:, 1]), "filling is no box"
    for mask, box in zip(new["mask"], new["boxes"][:, 0].tolist(), strict=True):
        if not mask.any():
            assert min(box[2] - box[0], box[3] - box[1]) <= 0.5, "a box of what has left the picture"
            continue
        down, across = (mask.amax(axis).nonzero().flatten() for axis in (1, 0))
        drawn = [int(across[0]), int(down[0]), int(across[-1]) + 1, int(down[-1]) + 1]
        for edge, seen in zip(box, drawn, strict=True):
            assert 0 <= edge <= size and abs(edge - seen) <= (0.5 + 1e-5 if config.crop < 1 else 0)


def test_a_box_that_leaves_the_picture_is_cut():
    u = torch.full((1, NUMBERS), 0.999)  # the window lies 4 pixels down and across
    rows = {"x": bytes_(1, 10, 10), "b": torch.tensor([[[0.0, 2, 7, 9], [0, 0, 3, 3]]])}
    new = augment(rows, {"x": Part("image"), "b": Part("boxes")}, AugmentConfig(shift=4), u)["b"]
    assert new.tolist() == [[[0, 0, 3, 5], [0, 0, 0, 0]]]


def test_steering_changes_its_sign_with_the_picture():
    rows = {"x": bytes_(64, 6, 6), "pose": torch.randn(64, 3), "steer": torch.randn(64)}
    parts = {
        "x": Part("image"),
        "pose": Part("numbers", mirrored=(0, 2)),
        "steer": Part("numbers", mirrored=(0,)),
    }
    new = augment(rows, parts, AugmentConfig(flip=True), draws(0, 0, 64))
    flipped = (new["x"] != rows["x"]).flatten(1).any(1)
    assert 16 < flipped.sum() < 48
    assert torch.equal(new["x"][flipped], rows["x"][flipped].flip(2))
    sign = torch.where(flipped, -1.0, 1.0)
    assert torch.equal(new["steer"], rows["steer"] * sign)
    assert torch.equal(new["pose"][:, [0, 2]], rows["pose"][:, [0, 2]] * sign[:, None])
    assert torch.equal(new["pose"][:, 1], rows["pose"][:, 1])


def test_every_place_is_as_likely_as_another():
    """Shifts of -2..2 and the windows of a crop, over many rows; the ends are reached and not passed."""
    u = draws(5, 0, 6000).double()
    down, across = windows(AugmentConfig(shift=2), u[:, :6], 30, 40)
    for window in (down, across):
        assert (window.start.add(2).bincount() / 6000 - 1 / 5).abs().max() < 0.02
    down, across = windows(AugmentConfig(crop=0.5), u[:, :6], 30, 40)
    assert down.step.min() == 15 and down.step.max() == 30 and across.step.min() == 20
    assert (down.start >= 0).all() and (down.start + down.step <= 30).all()
    small = down.step < 17
    assert down.start[small].min() == 0 and down.start[small].max() >= 13
    extreme = torch.tensor([[0.0] * 6, [1 - 2**-24] * 6], dtype=torch.float64)
    down, _ = windows(AugmentConfig(shift=3), extreme, 8, 8)
    assert down.start.tolist() == [-3, 3]


def test_bright_pictures_saturate():
    x = torch.tensor([[0, 100, 200, 255]] * 2, dtype=torch.uint8)
    assert brighter(x, torch.tensor([0.5, 1.5])).tolist() == [[0, 50, 100, 128], [0, 150, 255, 255]]


def test_what_cannot_be_changed_is_told():
    u, config = draws(0, 0, 2), AugmentConfig(flip=True)
    x, image = bytes_(2, 4, 4), Part("image")
    with pytest.raises(ConfigError, match="no picture to change"):
        augment({"m": x}, {"m": Part("mask")}, config, u)
    with pytest.raises(ConfigError, match="one size; got x 4x4, m 4x6"):
        augment({"x": x, "m": bytes_(2, 4, 6)}, {"x": image, "m": Part("mask")}, config, u)
    with pytest.raises(ConfigError, match="pictures of bytes are changed; x is torch.float32"):
        augment({"x": x.float()}, {"x": image}, config, u)
    parts = {"x": image, "n": Part("numbers", mirrored=(3,))}
    with pytest.raises(ConfigError, match=r"mirrored=\[3\]: the label has 2 numbers"):
        augment({"x": x, "n": torch.ones(2, 2)}, parts, config, u)
    for option, value in [("crop", 0), ("crop", 1.5), ("gain", 1), ("shift", -1), ("cutout", -1)]:
        with pytest.raises(ConfigError, match=f"augment.{option}="):
            build(AugmentConfig, {option: value}, "augment")


@pytest.mark.parametrize("axis", [-1, -3])
def test_colours_are_exchanged_in_all_six_ways_and_nothing_else(axis):
    last = axis == -1
    pictures = bytes_(200, 2, 5, 4, 3) if last else bytes_(200, 2, 3, 5, 4)  # two frames
    part = Part("image", -3 if last else -2)
    mask = torch.arange(200 * 20).view(200, 5, 4)
    new = augment(
        {"x": pictures, "m": mask},
        {"x": part, "m": Part("mask")},
        AugmentConfig(colours=True),
        draws(0, 0, 200),
    )
    assert torch.equal(new["m"], mask)
    before, after = pictures.movedim(axis, 1), new["x"].movedim(axis, 1)  # [200, 3, ...]
    orders = []
    for old, got in zip(before, after, strict=True):
        orders.append(tuple(next(i for i in range(3) if torch.equal(old[i], each)) for each in got))
    assert all(sorted(order) == [0, 1, 2] for order in orders) and len(set(orders)) == 6
    assert min(orders.count(order) for order in set(orders)) > 15  # 33 expected


def test_colours_need_three_channels():
    for pictures, part in ((bytes_(2, 5, 4), Part("image")), (bytes_(2, 5, 4, 4), Part("image", -3))):
        with pytest.raises(
            ConfigError, match=r"augment\.colours=true: exchanges three channels, .*colours=false"
        ):
            augment({"x": pictures}, {"x": part}, AugmentConfig(colours=True), draws(0, 0, 2))
