"""The front ends have the published sizes, shapes and pooling."""

import pytest
import torch
from tiny import count, stir
from torch import nn

from avb.models.frontends import AudioFrontEnd, VisualFrontEnd, check_mel, normalise_clip
from avb.models.layout import channels_last
from avb.models.masks import frame_mask


def test_front_ends_have_the_published_sizes() -> None:
    with torch.device("meta"):
        network = VisualFrontEnd()
        assert count(network) == 11_186_688
        assert count(network.stages) == 11_170_816
        features = network(torch.zeros(2, 1, 29, 112, 112))
    assert features.shape == (2, 29, 512)
    with torch.device("meta"):
        network = AudioFrontEnd()
        assert count(network) == 4_100_224
        assert network(torch.zeros(2, 80, 116)).shape == (2, 29, 512)
        speech = AudioFrontEnd(extra_convolution=True)
        assert speech(torch.zeros(2, 80, 300)).shape == (2, 75, 512)
        # A 5 x 5 convolution of 256 channels with bias, batch norm and PReLU.
        assert count(speech) == 4_100_224 + 1_638_656 + 512 + 256


@pytest.mark.parametrize("side", [112, 88])
def test_released_pool_is_the_mean_of_the_upper_left_3_x_3(side: int) -> None:
    torch.manual_seed(1)
    network = VisualFrontEnd(width=2, pool="released").eval()
    maps = []
    network.stages.register_forward_hook(lambda *call: maps.append(call[-1]))
    video = torch.randn(1, 1, 2, side, side)
    released = network(video)
    rows = maps[0].shape[-1]
    assert rows == {112: 4, 88: 3}[side]
    window = nn.AvgPool2d(3, stride=3)(maps[0]).flatten(1)
    torch.testing.assert_close(released[0], window)
    by_hand = sum(maps[0][:, :, y, x] for y in range(3) for x in range(3)) / 9
    torch.testing.assert_close(released[0], by_hand)
    network.pool = "global"
    everywhere = network(video)
    torch.testing.assert_close(everywhere[0], maps[0].mean((2, 3)))
    assert torch.allclose(everywhere, released) == (side == 88)
    with pytest.raises(ValueError, match="'max'.*'released'"):
        VisualFrontEnd(pool="max")  # type: ignore[arg-type]


def test_a_frame_sees_two_frames_on_either_side() -> None:
    network = stir(VisualFrontEnd(width=2, blocks=1)).eval()
    video = torch.randn(1, 1, 9, 32, 32)
    changed = video.clone()
    changed[:, :, 4] += 1
    moved = (network(video) - network(changed)).abs().amax(-1)[0] > 0
    assert moved.tolist() == [False, False, True, True, True, True, True, False, False]


def test_four_columns_make_one_frame() -> None:
    network = stir(AudioFrontEnd(dim=5, width=3)).eval()
    for columns in (13, 14, 15, 16):
        assert network(torch.zeros(1, 80, columns)).shape[1] == 4
    assert network(torch.zeros(1, 80, 17)).shape[1] == 5
    check_mel(torch.zeros(1, 80, 116), 29)
    with pytest.raises(ValueError, match="117 columns beside 29 video frames: expected 116"):
        check_mel(torch.zeros(1, 80, 117), 29)


def test_audio_features_are_flattened_channel_by_channel() -> None:
    network = AudioFrontEnd(dim=3, width=2, dropout=0.0).eval()
    seen: list[torch.Tensor] = []
    network.block.register_forward_hook(lambda *call: seen.append(call[-1]))
    out = network(torch.randn(1, 80, 8))
    with torch.no_grad():
        frame = [seen[0][0, channel, row, 1] for channel in range(4) for row in range(20)]
        expected = network.linear.weight @ torch.stack(frame) + network.linear.bias
    torch.testing.assert_close(out[0, 1], expected)


def test_padded_frames_are_no_part_of_the_visual_batch_statistics() -> None:
    network = stir(VisualFrontEnd(width=2, blocks=1, dropout=0.0)).train()
    video = torch.randn(2, 1, 5, 32, 32)
    lengths = torch.tensor([5, 3])
    mask = frame_mask(lengths, 5)
    video[1, :, 3:] = 50.0
    features = network(video, mask)
    longer = torch.cat([video, torch.randn(2, 1, 4, 32, 32)], dim=2)
    torch.testing.assert_close(network(longer, frame_mask(lengths, 9))[:, :5], features)
    assert (features[~mask] == 0).all()


@pytest.mark.parametrize("padded", [False, True])
def test_channels_last_reaches_every_map_and_changes_no_feature(padded: bool) -> None:
    network = stir(VisualFrontEnd(width=4, blocks=1)).eval()
    video = torch.randn(2, 1, 4, 48, 48)
    mask = frame_mask(torch.tensor([4, 3]), 4) if padded else None
    expected = network(video, mask)
    maps: list[torch.Tensor] = []
    for stage in network.stages:
        stage.register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0]))
    found = channels_last(network)(video, mask)
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in maps)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_stem_is_a_convolution_over_five_frames(channels: int) -> None:
    stem = VisualFrontEnd(width=4, channels=channels).stem
    video = torch.randn(2, channels, 7, 24, 20, requires_grad=True)
    found = [way(video) for way in (stem, super(type(stem), stem).forward)]
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-4)
    given = torch.randn_like(found[0])
    slopes = [torch.autograd.grad(y, [video, stem.weight], given) for y in found]
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("columns", [1, 100, 116, 300])
def test_bins_without_change_are_0_and_others_have_deviation_1(columns: int) -> None:
    mel = torch.linspace(-11.6, 4, 80)[None, :, None].repeat(2, 1, columns)
    mel[:, 40:] += torch.randn(2, 40, columns)
    lengths = torch.tensor([columns, max(1, columns // 2)])
    mel[1, :, int(lengths[1]) :] = -11.5129  # padding is no change
    found = normalise_clip(mel, lengths)
    assert not found[:, :40].any()
    for clip, length in zip(found, lengths.tolist(), strict=True):
        assert not clip[:, length:].any()
        if length > 1:
            torch.testing.assert_close(clip[40:, :length].std(1), torch.ones(40))
