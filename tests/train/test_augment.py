"""Augmentation is a function of (seed, epoch, key), the same for all frames of a clip."""

import dataclasses

import numpy as np
import torch

from avb.pipeline.stream.batch import Batch
from avb.train import augment
from avb.train.recipe import Augment
from avb.train.recipe_file import make_recipe
from avb.train.tasks.task import Inputs, Scaling, find_task

ALL = Augment(jitter=4, flip=0.5, erase=24, mask_bins=10, mask_columns=20, mask_frames=5,
              turn=8, zoom=0.1, tone=0.2)  # fmt: skip


def batch(keys: list[str], epoch: int = 0) -> Batch:
    num = len(keys)
    return Batch(
        keys=keys, video={}, mel=None, lengths=torch.full((num,), 29),
        mel_lengths=torch.full((num,), 116), label_id=torch.zeros(num, dtype=torch.int64),
        boundary=torch.zeros(num, 2), epoch=torch.full((num,), epoch), speakers=[None] * num,
        words=[[]] * num,
    )  # fmt: skip


def draws(keys: list[str], epoch: int = 0, seed: int = 0) -> augment.Draws:
    return augment.draw(batch(keys, epoch), ALL, 112, 80, seed)


def equal(a: augment.Draws, b: augment.Draws) -> bool:
    return all(torch.equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))


KEYS = [f"s1/clip{i}" for i in range(64)]
ONE = torch.tensor([1])  # frame of a clip


def test_a_clip_draws_the_same_in_any_company() -> None:
    together, alone = draws(KEYS), draws([KEYS[7]])
    for f in dataclasses.fields(together):
        assert torch.equal(getattr(together, f.name)[7], getattr(alone, f.name)[0]), f.name


def test_more_bins_and_columns_than_there_are_are_all_masked() -> None:
    drawn = augment.draw(batch(KEYS), Augment(mask_bins=1000, mask_columns=1000), 112, 80, 0)
    assert int(drawn.num_bins.max()) > 80 and (drawn.first_bin[drawn.num_bins >= 80] == 0).all()


def test_epoch_seed_and_key_each_change_the_draw() -> None:
    assert equal(draws(KEYS), draws(KEYS))
    assert not equal(draws(KEYS), draws(KEYS, epoch=1))
    assert not equal(draws(KEYS), draws(KEYS, seed=1))
    assert len(set(draws(KEYS).shift_x.tolist())) == 9  # -4 to 4


def test_the_crop_is_the_drawn_place_of_every_frame_or_the_box() -> None:
    rng = np.random.default_rng(0)
    stored = torch.from_numpy(rng.integers(0, 256, (64, 3, 120, 120), dtype=np.uint8))
    drawn = draws(KEYS)
    cut = augment.crop_drawn(stored, drawn, 4)
    assert cut.shape == (64, 3, 112, 112) and cut.dtype == torch.uint8
    for i in range(64):
        y, x = 4 + int(drawn.shift_y[i]), 4 + int(drawn.shift_x[i])
        wanted = stored[i, :, y : y + 112, x : x + 112]
        wanted = wanted.flip(-1) if drawn.flip[i] else wanted
        assert torch.equal(cut[i], wanted)
    assert 16 < int(drawn.flip.sum()) < 48
    stored = torch.arange(120 * 120).reshape(1, 1, 120, 120)
    assert augment.crop_center(stored, 4)[0, 0, 0, 0] == 4 * 120 + 4
    assert augment.crop_center(stored, 4).shape == (1, 1, 112, 112)


def test_one_square_is_erased_in_all_frames() -> None:
    drawn = draws(KEYS)
    video = torch.ones(64, 4, 112, 112)
    erased = augment.erase(video, drawn, 24, 1)
    gone = erased == 0
    assert torch.equal(gone[:, 0], gone[:, 3])
    sizes = gone[:, 0].sum((1, 2))
    assert (sizes <= 24 * 24).all() and (sizes > 0).all() and (sizes == 24 * 24).any()
    of_the_crop = augment.erase(video[:, :, ::2, ::2], drawn, 24, 2)  # one pixel for two
    assert torch.equal(of_the_crop, erased[:, :, ::2, ::2])


def test_a_mask_covers_its_span_and_nothing_else() -> None:
    values = torch.ones(2, 3, 10)
    masked = augment.mask_span(values, torch.tensor([2, 0]), torch.tensor([3, 0]), 2)
    assert masked[0, 0].tolist() == [1, 1, 0, 0, 0, 1, 1, 1, 1, 1]
    assert torch.equal(masked[1], values[1])


def test_mixing_pairs_neighbours_with_one_weight_each_pair() -> None:
    weights = augment.mix_weights(batch(KEYS[:5]), 0.4, 0)
    assert weights[0] == weights[1] != weights[2] == weights[3] and weights[4] == 1
    values = torch.arange(5.0)[:, None]
    mixed = augment.mix(values, weights)[:, 0]
    w = float(weights[0])
    assert mixed[4] == 4
    torch.testing.assert_close(mixed[:2], torch.tensor([1 - w, w]))


def test_a_batch_is_prepared_without_a_look_at_what_is_on_the_device() -> None:
    """Each would wait for the step before; on the device `meta` there is nothing to look at."""
    plan = make_recipe("lip", {"augment": vars(dataclasses.replace(ALL, mixup=0.4))}, "test")
    video, mel = {"lips": torch.zeros(4, 29, 120, 120).byte()}, torch.zeros(4, 80, 116)
    some = dataclasses.replace(batch(KEYS[:4]), video=video, mel=mel)
    scaling = Scaling(128, 40, -11, 4, 4, 112, 2)
    inputs = find_task("lip").prepare(some, plan, scaling, torch.device("meta"), train=True)
    assert inputs.video_BCTHW.shape == (4, 1, 29, 112, 112) and inputs.labels.shape == (4, 2)


def test_padding_is_neither_mixed_in_nor_part_of_a_mean_picture() -> None:
    plan = make_recipe("lip", {"augment": {"mixup": 0.4}, "model": {"word_boundary": True}}, "test")
    pair, lengths = batch(KEYS[:2]), torch.tensor([6, 4])
    pair = dataclasses.replace(pair, boundary=torch.tensor([[0.0, 0.2], [0.08, 0.4]]))
    own_BT = torch.tensor([[10.0] * 6, [20.0] * 4 + [-3.0] * 2])  # -3 is padding
    video = own_BT[:, None, :, None, None].expand(2, 1, 6, 2, 2)
    mel = own_BT.repeat_interleave(4, dim=1)[:, None].expand(2, 80, 24)
    inputs = Inputs(video, mel, lengths, torch.tensor([0, 1]), ragged=True)
    scaling = Scaling(128, 40, -11, 4, 4, 112, 2)
    mixed = find_task("lip").complete(inputs, pair, plan, scaling, train=True)
    w = float(augment.mix_weights(pair, 0.4, plan.seed)[0])
    both, other = 10 * w + 20 * (1 - w), 20 * w + 10 * (1 - w)
    torch.testing.assert_close(
        mixed.video_BCTHW[0, 0, :, 0, 0], torch.tensor([both] * 4 + [10.0] * 2)
    )
    torch.testing.assert_close(mixed.video_BCTHW[1, 0, :4, 0, 0], torch.tensor([other] * 4))
    torch.testing.assert_close(mixed.mel_BFM[:, 0, ::4], mixed.video_BCTHW[:, 0, :, 0, 0])
    # The words are in frames 0 to 4, and 2 to 9 of a clip that ends at 4.
    assert mixed.boundary_BT is not None
    torch.testing.assert_close(mixed.boundary_BT[0], torch.tensor([w, w, 1, 1, 1, 0]))
    still = augment.mean_picture(own_BT[:, :, None, None], lengths)
    assert still.flatten().tolist() == [10, 20]


def test_a_window_is_the_same_frames_of_pictures_and_sound_and_begins_anywhere() -> None:
    num, frames = 64, 75
    lengths = torch.tensor([75, 60, 30, 40] * (num // 4))
    pictures = torch.arange(frames, dtype=torch.uint8).view(1, -1, 1, 1).expand(num, -1, 2, 2)
    columns = (torch.arange(4 * frames) // 4).float().view(1, 1, -1).expand(num, 80, -1)
    whole = dataclasses.replace(
        batch([f"s1/{i}" for i in range(num)]), video={"face": pictures}, mel=columns,
        lengths=lengths, mel_lengths=4 * lengths,
        audio=(torch.arange(640 * frames) // 640).float().expand(num, -1),
        audio_lengths=640 * lengths,
    )  # fmt: skip
    cut = augment.window(whole, 40, seed=0)
    assert cut.video["face"].shape == (num, 40, 2, 2) and cut.mel.shape == (num, 80, 160)
    seen = cut.video["face"][:, :, 0, 0]
    assert torch.equal(seen.repeat_interleave(4, dim=1).float(), cut.mel[:, 0])
    starts = seen[:, 0].int()
    assert cut.lengths.tolist() == [40, 40, 30, 40] * (num // 4)
    assert torch.equal(seen.repeat_interleave(640, dim=1).float(), cut.audio)
    assert torch.equal(cut.mel_lengths, 4 * cut.lengths)
    assert torch.equal(cut.audio_lengths, 640 * cut.lengths)
    assert (starts + cut.lengths <= lengths).all() and (starts[lengths <= 40] == 0).all()
    assert starts.max() > 25 and len(set(starts.tolist())) > 10
    assert torch.equal(augment.window(whole, 40, seed=0).mel, cut.mel)
    assert not torch.equal(augment.window(whole, 40, seed=1).mel, cut.mel)


def looks(*look: float) -> augment.Draws:
    """Draws of one clip whose turn, zoom, brightness, contrast and gamma are these."""
    return dataclasses.replace(draws(KEYS[:1]), look_B5=torch.tensor([look]))


def test_a_recipe_without_another_look_leaves_the_bytes() -> None:
    stored = torch.randint(0, 256, (64, 3, 20, 20), dtype=torch.uint8)
    assert augment.appearance(stored, torch.full((64,), 3), draws(KEYS), Augment()) is stored


def test_a_crop_turns_about_its_middle_and_grows() -> None:
    picture = torch.arange(64.0).reshape(1, 1, 8, 8)
    turned = augment.appearance(picture, ONE, looks(1, 0, 0, 0, 0), Augment(turn=90))
    assert any(torch.allclose(turned[0, 0], torch.rot90(picture[0, 0], k), atol=1e-3)
               for k in (1, 3))  # fmt: skip
    spot = torch.zeros(1, 1, 64, 64)
    spot[..., 24:40, 24:40] = 200.0
    larger = augment.appearance(spot, ONE, looks(0, 1, 0, 0, 0), Augment(zoom=0.5))
    assert (larger > 100).sum().item() == 24**2  # half as large again


def test_another_light_changes_brightness_contrast_and_gamma_apart() -> None:
    picture = torch.tensor([64.0, 192.0, 0.0, 0.0]).reshape(1, 2, 1, 2)  # and padding

    def seen(*look: float) -> list[float]:
        found = augment.appearance(picture, ONE, looks(0, 0, *look), Augment(tone=0.5))
        return [round(v, 2) for v in found[0, 0].flatten().tolist()]

    assert seen(1, 0, 0) == [128.0, 255.0]  # brighter by half the mean of 128, and bounded
    assert seen(0, 1, 0) == [32.0, 224.0]  # half as far again from the mean
    assert seen(0, 0, 1) == [round(255 * (v / 255) ** 1.5, 2) for v in (64, 192)]
