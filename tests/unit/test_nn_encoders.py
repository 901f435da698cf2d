"""Encoders: every kind of observation, the published shapes, layout of pixels, normalization, errors."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from rlkit.nn import registry
from rlkit.nn.config import NetworkConfig
from rlkit.nn.encoders import CNN, MLP, Encoder, Flatten, Pixels, impala_cnn, make_encoder
from rlkit.nn.network import Network
from rlkit.nn.norm import RunningNorm, StandardUnits
from rlkit.spaces import MASK, Box, Dict, Discrete, MultiBinary, MultiDiscrete, row_dtype
from rlkit.types import EnvSpec

CONFIG = NetworkConfig()
PIXELS = Box((84, 84, 3), "uint8", 0.0, 255.0)
VECTOR = Box((3,), "float32")
DICT = Dict(
    (
        ("camera", Box((40, 48, 3), "uint8", 0.0, 255.0)),
        ("body", Dict((("speed", Box((2,), "float32")), ("gear", Discrete(5))))),
    )
)
MASKED = Dict((*DICT, (MASK, MultiBinary(4)), ("answer", Box((3, 3), "uint8", 0.0, 255.0))))


def rows(space, leading=(5,), seed=0):
    g = torch.Generator().manual_seed(seed)
    if isinstance(space, Dict):
        flat = {"camera": DICT["camera"], "body.speed": Box((2,), "float32"), "body.gear": Discrete(5)}
        return {name: rows(leaf, leading, seed) for name, leaf in flat.items()}
    dtype = getattr(torch, row_dtype(space))
    shape = (*leading, *space.shape)
    if dtype == torch.float32:
        return torch.randn(shape, generator=g)
    high = {"uint8": 256, "int8": 2}.get(row_dtype(space), 2)
    return torch.randint(0, high, shape, generator=g, dtype=dtype)


@pytest.mark.parametrize(
    ("space", "name", "kind", "features"),
    [
        (Box((84, 84), "uint8"), "auto", CNN, 512),
        (PIXELS, "auto", CNN, 512),
        (Box((4, 84, 60), "uint8"), "nature_cnn", CNN, 512),
        (Box((36, 36), "uint8"), "auto", CNN, 512),
        (Box((35, 90), "uint8"), "auto", CNN, 256),
        (Box((7, 7, 3), "uint8"), "auto", CNN, 256),
        (Box((1, 1), "uint8"), "small_cnn", CNN, 256),
        (Box((17, 9, 3), "uint8"), "impala_cnn", CNN, 256),
        (Box((10, 10, 4), "float32"), "small_cnn", CNN, 256),
        (PIXELS, "mlp", MLP, 64),
        (VECTOR, "auto", MLP, 64),
        (Box((), "float32"), "auto", MLP, 64),
        (Box((128,), "uint8"), "auto", MLP, 64),
        (Box((10, 10, 4), "float32"), "auto", MLP, 64),
        (Discrete(5), "auto", MLP, 64),
        (MultiDiscrete((3, 2), (0, 0)), "auto", MLP, 64),
        (MultiDiscrete((3,), (0,)), "auto", MLP, 64),
        (MultiBinary(4), "auto", MLP, 64),
        (DICT, "auto", Encoder, 512 + 64 + 64),
        (DICT, "impala_cnn", Encoder, 256 + 64 + 64),
    ],
)
def test_which_encoder_reads_what(space, name, kind, features, monkeypatch):
    """That rows become features, whatever the encoder: tests/contract/test_encoders.py."""
    monkeypatch.setattr(torch.nn.init, "orthogonal_", lambda weight, gain: weight)  # the most of the time
    net = make_encoder(space, 2, replace(CONFIG, encoder=name))
    assert isinstance(net, kind)
    assert net.features == features


def test_a_dict_is_read_entry_by_entry():
    net = make_encoder(DICT, 1, replace(CONFIG, encoder="small_cnn"))
    obs = rows(DICT)
    camera, speed, gear = (entry(x) for entry, x in zip(net.entries, obs.values(), strict=True))
    assert torch.equal(net(obs), torch.cat([camera, speed, gear], -1))
    assert camera.shape == (5, 256) and speed.shape == gear.shape == (5, 64)
    net(obs).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


# ---------------------------------------------------------------- published architectures


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def test_nature_cnn_is_the_published_one():
    net = make_encoder(Box((84, 84), "uint8"), 4)
    # 4*8*8*32+32, 32*4*4*64+64, 64*3*3*64+64, 7*7*64*512+512
    assert parameters(net) == 8224 + 32832 + 36928 + 1606144


def test_impala_cnn_is_the_published_one():
    net = make_encoder(Box((72, 96, 3), "uint8"), 1, replace(CONFIG, encoder="impala_cnn"))
    conv = {16: 3 * 9 * 16 + 16 + 4 * (16 * 9 * 16 + 16), 32: 16 * 9 * 32 + 32 + 4 * (32 * 9 * 32 + 32)}
    third = 32 * 9 * 32 + 32 + 4 * (32 * 9 * 32 + 32)
    linear = (9 * 12 * 32) * 256 + 256  # 72x96 -> 36x48 -> 18x24 -> 9x12
    assert parameters(net) == conv[16] + conv[32] + third + linear
    assert parameters(impala_cnn(PIXELS, 1, CONFIG, width=2)) > 2 * parameters(impala_cnn(PIXELS, 1, CONFIG))


def test_weights_start_orthogonal_with_gain_sqrt_2():
    net = make_encoder(Box((64,), "float32"))
    for layer in net.layers:
        if isinstance(layer, torch.nn.Linear):
            torch.testing.assert_close(layer.weight @ layer.weight.T, 2 * torch.eye(64), rtol=0, atol=1e-5)
            assert not layer.bias.any()


def test_mlp_options():
    net = make_encoder(VECTOR, 1, replace(CONFIG, hidden=(7, 9, 11), activation="silu"))
    assert net.features == 11
    assert [type(layer).__name__ for layer in net.layers] == ["Linear", "SiLU"] * 3
    assert make_encoder(VECTOR, 1, replace(CONFIG, hidden=())).features == 3


# ---------------------------------------------------------------- pixels


def test_all_layouts_of_one_picture_agree():
    # one picture of 3 channels and 2 frames, as HWC and CHW rows, becomes the same [B, k*C, H, W]
    frames = torch.randint(0, 256, (4, 2, 3, 20, 24), dtype=torch.uint8)  # [B, k, C, H, W]
    chw, hwc = Pixels(Box((3, 20, 24), "uint8"), 2, "x"), Pixels(Box((20, 24, 3), "uint8"), 2, "x")
    expected = frames.flatten(1, 2).float() / 255
    torch.testing.assert_close(chw(frames), expected)
    torch.testing.assert_close(hwc(frames.permute(0, 1, 3, 4, 2)), expected)
    single = Pixels(Box((20, 24, 3), "uint8"), 1, "x")
    torch.testing.assert_close(single(frames[:, 0].permute(0, 2, 3, 1)), expected[:, :3])
    grey = Pixels(Box((20, 24), "uint8"), 3, "x")
    torch.testing.assert_close(grey(frames[:, 0]), expected[:, :3])
    for pixels, obs in ((chw, frames), (hwc, frames.permute(0, 1, 3, 4, 2).contiguous())):
        assert pixels(obs).is_contiguous(memory_format=torch.channels_last)


def test_pixels_are_scaled_to_one_and_left_alone():
    pixels = Pixels(Box((2, 2), "uint8"), 1, "x")
    obs = torch.tensor([[[0, 51], [102, 255]]], dtype=torch.uint8)
    torch.testing.assert_close(pixels(obs), torch.tensor([[[[0.0, 0.2], [0.4, 1.0]]]]))
    assert obs.max() == 255
    floats = Pixels(Box((2, 2), "float32"), 1, "x")  # already scaled by the environment
    torch.testing.assert_close(floats(obs.float()), obs.float()[:, None])


@pytest.mark.parametrize("stack", [1, 2])
@pytest.mark.parametrize("channels", ["first", "last"])
def test_bytes_are_scaled_by_the_bounds_of_their_space(channels, stack):
    """From 0 for the lower to 1 for the upper bound, entry by entry; 0..255 is x/255 to the last bit."""
    shape = (2, 3, 5)
    low, high = np.zeros(shape), np.full(shape, 4.0)
    low[0, 1, 2], high[0, 1, 2], high[1, 2, 4], low[1, 0, 0] = 2, 6, 1, 4  # (1, 0, 0) has one value only
    obs = torch.from_numpy(
        np.random.default_rng(0).integers(low, high + 1, (7, stack, *shape), dtype=np.uint8)
    )
    expected = torch.from_numpy((obs.numpy() - low) / np.where(high > low, high - low, 1)).float()
    rows = obs if stack > 1 else obs[:, 0]
    box = Box(shape, "uint8", low, high, channels)
    torch.testing.assert_close(Flatten(box, stack)(rows), expected.flatten(1))
    planes = expected if channels == "first" else expected.permute(0, 1, 4, 2, 3)
    torch.testing.assert_close(Pixels(box, stack, "x")(rows), planes.flatten(1, 2))
    bits = Box(shape, "uint8", 0.0, 1.0, channels)
    assert torch.equal(Flatten(bits, stack)(rows % 2).flatten(), (rows % 2).float().flatten())
    assert Pixels(bits, stack, "x")(rows % 2).max() == 1
    whole = Box(shape, "uint8", 0.0, 255.0, channels)
    assert torch.equal(Flatten(whole, stack)(rows).flatten(), (rows.float() * (1 / 255)).flatten())
    assert not [*Flatten(whole, stack).scale.buffers(), *Pixels(whole, stack, "x").buffers()]


def test_policies_saved_without_bounds_go_on_dividing_by_255():
    space = Box((3,), "uint8", 0.0, 4.0)
    new = make_encoder(space)
    saved = {name: value for name, value in new.state_dict().items() if ".scale." not in name}
    assert len(saved) == len(new.state_dict()) - 2
    old = make_encoder(space)
    old.load_state_dict(saved)
    obs = torch.tensor([[0, 2, 4]], dtype=torch.uint8)
    torch.testing.assert_close(old.flatten(obs), obs / 255)
    torch.testing.assert_close(new.flatten(obs), obs / 4)
    again = make_encoder(space)
    again.load_state_dict(old.state_dict())
    assert torch.equal(again(obs), old(obs)) and not torch.equal(again(obs), new(obs))


def test_autocast_converts_once():
    pixels = Pixels(PIXELS, 1, "x")
    net = make_encoder(PIXELS)
    with torch.autocast("cpu", torch.bfloat16):
        assert pixels(rows(PIXELS)).dtype == torch.bfloat16
        low = net(rows(PIXELS))
    torch.testing.assert_close(low.float(), net(rows(PIXELS)), rtol=0.1, atol=0.1)


def test_frames_of_a_stack_are_told_apart():
    net = make_encoder(Box((40, 40), "uint8"), 2)
    obs = rows(Box((40, 40), "uint8"), (3, 2))
    assert not torch.allclose(net(obs), net(obs.flip(1)))


# ---------------------------------------------------------------- flattening


def test_choices_become_one_hot():
    flat = Flatten(Discrete(3), 1)
    assert flat(torch.tensor([2, 0])).tolist() == [[0, 0, 1], [1, 0, 0]]
    flat = Flatten(MultiDiscrete((2, 3), (0, 0)), 1)
    assert flat(torch.tensor([[1, 0], [0, 2]])).tolist() == [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]]
    flat = Flatten(Discrete(2), 3)  # stacked: [B, k]
    assert flat(torch.tensor([[0, 1, 1]])).tolist() == [[1, 0, 0, 1, 0, 1]]
    assert Flatten(MultiBinary(2), 1)(torch.tensor([[1, 0]], dtype=torch.int8)).tolist() == [[1, 0]]


def test_large_choices_are_looked_up_in_a_table():
    """A row of 200,000 numbers for one choice would be gigabytes in a minibatch; 4,096 are written out as before."""
    assert not list(Flatten(Discrete(4096), 1).parameters())
    flat = Flatten(Discrete(200_000), 1)
    obs = torch.tensor([199_999, 0, 199_999])
    assert torch.equal(flat(obs), flat.tables[0].weight[obs]) and flat.features == 64
    mixed = Flatten(MultiDiscrete((5000, 2, 4097), (0, 0, 0)), 2)  # a stack of two
    obs = torch.tensor([[[4999, 1, 0], [3, 0, 4096]]])
    first, second = mixed.tables
    expected = [
        [0, 1, *first.weight[4999].tolist(), *second.weight[0].tolist()],
        [1, 0, *first.weight[3].tolist(), *second.weight[4096].tolist()],
    ]
    assert mixed(obs).tolist() == [expected[0] + expected[1]] and mixed.features == 2 * 130


def test_numbers_are_flattened():
    obs = torch.arange(12.0).view(2, 2, 3)
    assert torch.equal(Flatten(Box((2, 3), "float64"), 1)(obs), obs.view(2, 6))
    assert torch.equal(Flatten(Box((3,), "float32"), 2)(obs), obs.view(2, 6))
    ram = Flatten(Box((2,), "uint8", 0.0, 255.0), 1)
    torch.testing.assert_close(ram(torch.tensor([[0, 255]], dtype=torch.uint8)), torch.tensor([[0.0, 1.0]]))


# ---------------------------------------------------------------- normalization


def test_normalizer_is_fed_by_observe_and_shared_by_frames():
    net = make_encoder(VECTOR, 2, replace(CONFIG, normalize=True, hidden=()))
    obs = 7 + 3 * torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(0))  # [T+1, N, 3], unstacked
    valid = torch.rand(6, 4, generator=torch.Generator().manual_seed(1)) < 0.7
    net.observe(obs, valid)
    reference = RunningNorm((3,))
    reference.update(obs[valid])
    stacked = torch.stack((obs[0], obs[1]), 1)  # [4, k, 3]
    torch.testing.assert_close(net(stacked), torch.cat((reference(obs[0]), reference(obs[1])), -1))
    fresh = make_encoder(VECTOR, 2, replace(CONFIG, normalize=True, hidden=()))
    fresh.load_state_dict(net.state_dict())
    assert torch.equal(fresh(stacked), net(stacked))


def test_numbers_in_standard_units_tell_their_gaps():
    """Of every frame of a stack, one after the other; choices and pixels are what they were."""
    net = make_encoder(VECTOR, 2, replace(CONFIG, standardize=True, normalize=True, hidden=()))
    obs = 7 + 3 * torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(0))
    obs[2:, :, 1] = torch.nan
    net.observe(obs)
    reference = StandardUnits(3)
    reference.update(obs)
    assert net.features == 12
    stacked = torch.stack((obs[0], obs[2]), 1)
    torch.testing.assert_close(net(stacked), torch.cat((reference(obs[0]), reference(obs[2])), -1))
    assert net(stacked)[:, 10].tolist() == [1] * 4 and not net(stacked)[:, 7].any()
    for space in (PIXELS, Discrete(3), MultiBinary(2)):
        one, other = (
            str(make_encoder(space, 1, replace(CONFIG, standardize=each))) for each in (False, True)
        )
        assert one == other


def test_only_numbers_are_normalized():
    config = replace(CONFIG, normalize=True)
    net = make_encoder(DICT, 1, config)
    norms = [name for name, module in net.named_modules() if isinstance(module, RunningNorm)]
    assert len(norms) == 1
    net.observe(rows(DICT, (6, 4)), torch.ones(6, 4, dtype=torch.bool))
    assert net.get_submodule(norms[0]).count.item() == 24
    with pytest.raises(TypeError, match="dict of tensors"):
        net.observe(torch.zeros(3))
    for space in (PIXELS, Discrete(3), MultiBinary(2)):
        assert not list(make_encoder(space, 1, config).buffers()) or not any(
            isinstance(module, RunningNorm) for module in make_encoder(space, 1, config).modules()
        )


def test_masks_and_labels_are_not_inputs():
    """Networks encode `EnvSpec.inputs`: rows may hold the others, or not, and they change nothing."""
    spec = EnvSpec("test", MASKED, Discrete(4), labels=("answer",))
    assert [name for name, _ in spec.inputs] == ["camera", "body.speed", "body.gear"]
    assert EnvSpec("test", VECTOR, Discrete(4)).inputs is VECTOR
    net = Network(spec, replace(CONFIG, encoder="small_cnn"), {"a": (2, 1.0)})
    first, obs = torch.ones(1, 5, dtype=torch.bool), rows(DICT, (1, 5))
    for mask in (0, 1):
        obs[MASK] = torch.full((1, 5, 4), mask, dtype=torch.int8)
        obs["answer"] = torch.full((1, 5, 3, 3), 255 * mask, dtype=torch.uint8)
        net.observe(obs)
        out, _ = net(obs, first, net.initial_state(5))
        alone, _ = net(rows(DICT, (1, 5)), first, net.initial_state(5))
        assert torch.equal(out["a"], alone["a"])
    obs["body.gear"] = (obs["body.gear"] + 1) % 5
    assert not torch.equal(net(obs, first, net.initial_state(5))[0]["a"], out["a"])


# ---------------------------------------------------------------- registry, errors, compile


def test_a_new_encoder_is_one_function(monkeypatch):
    class Sum(Encoder):
        features = 1

        def forward(self, obs):
            return obs.flatten(1).sum(-1, keepdim=True)

    monkeypatch.setitem(registry._registered["encoder"], "sum", lambda space, stack, config: Sum())
    config = replace(CONFIG, encoder="sum")
    assert make_encoder(VECTOR, 1, config)(torch.ones(2, 3)).tolist() == [[3], [3]]
    # in a Dict it reads the images, as every registered one; one's own (module:function) all where there is none
    parts = Dict((("near", Box((2,), "float32")), ("far", Box((4,), "float32"))))
    assert make_encoder(parts, 1, config).features == 2 * 64
    monkeypatch.setattr(registry.own, "find_function", lambda name, given: lambda space, stack, config: Sum())
    assert make_encoder(parts, 1, replace(CONFIG, encoder="mine:sum")).features == 2
    assert make_encoder(DICT, 1, replace(CONFIG, encoder="mine:sum")).features == 1 + 2 * 64


def test_errors_name_sizes_and_choices():
    with pytest.raises(ValueError, match=r"at least 36x36; got 20x90: use impala_cnn, small_cnn or auto"):
        make_encoder(Box((20, 90, 3), "uint8"), 1, replace(CONFIG, encoder="nature_cnn"))
    with pytest.raises(ValueError, match=r"reads images .* a Box of shape \(3,\): use mlp"):
        make_encoder(VECTOR, 1, replace(CONFIG, encoder="impala_cnn"))
    for shape in ((4, 4, 16), (16, 4, 4), (3, 5, 4), (4, 84, 3), (9, 9, 9), (6, 7, 8), (1, 8, 1)):
        with pytest.raises(
            ValueError, match=r"which of them .* cannot be told: type env.channels=last or .*first"
        ):
            make_encoder(Box(shape, "uint8"))
        assert make_encoder(Box(shape, "uint8"), 1, replace(CONFIG, encoder="mlp")).features == 64
        for channels, axis in (("first", 0), ("last", 2)):
            assert Pixels(Box(shape, "uint8", channels=channels), 1, "x").channels == shape[axis]
    frames = Box((4, 40, 40, 3), "uint8")  # no image
    for space in (frames, Dict((("clip", frames),))):
        with pytest.raises(
            ValueError, match=r"got a Box of shape \(4, 40, 40, 3\): use mlp \(network.encoder=mlp\)"
        ):
            make_encoder(space)
        assert make_encoder(space, 1, replace(CONFIG, encoder="mlp")).features == 64
    with pytest.raises(ValueError, match="got Discrete"):
        make_encoder(Discrete(3), 1, replace(CONFIG, encoder="small_cnn"))
    small = Dict((("camera", Box((8, 8), "uint8")),))
    with pytest.raises(ValueError, match="entry 'camera': encoder nature_cnn reads images of at least"):
        make_encoder(small, 1, replace(CONFIG, encoder="nature_cnn"))
    with pytest.raises(ValueError, match="nothing to encode"):
        make_encoder(EnvSpec("test", Dict(((MASK, MultiBinary(2)),)), Discrete(2)).inputs)


@pytest.mark.parametrize("space", [PIXELS, DICT, MultiDiscrete((3, 2), (0, 0))])
def test_compiles(space):
    torch.compiler.reset()
    net = make_encoder(space, 1, replace(CONFIG, normalize=True))
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(rows(space)), net(rows(space)))


@pytest.mark.parametrize(
    ("shape", "channels", "size"),
    [
        ((3, 96, 80), 3, (96, 80)),
        ((96, 80, 3), 3, (96, 80)),
        ((5, 96, 80), 5, (96, 80)),  # no usual number of channels: the smaller axis
        ((96, 80, 5), 5, (96, 80)),
        ((2, 3, 1), 1, (2, 3)),  # the usual number wins over the smaller axis
        ((8, 8, 20), 20, (8, 8)),  # many planes of a square board
        ((20, 8, 8), 20, (8, 8)),
        ((1, 1, 3), 3, (1, 1)),
        ((6, 7, 2), 2, (6, 7)),
        ((40, 44), 1, (40, 44)),
    ],
)
def test_the_channel_axis_of_an_image(shape, channels, size):
    pixels = Pixels(Box(shape, "uint8"), 1, "small_cnn")
    assert (pixels.channels, pixels.size) == (channels, size)
    image = torch.arange(math.prod(shape)).remainder(251).to(torch.uint8).reshape(1, *shape)
    if len(shape) == 2:
        expected = image[:, None]
    else:
        expected = image if shape[0] == channels else image.permute(0, 3, 1, 2)
    torch.testing.assert_close(pixels(image) * 255, expected.float())
