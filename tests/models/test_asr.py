"""Words from sound, and what its features teach: by hand, and without what is padded."""

import pytest
import torch
from tiny import TINY_LIP, stir

from avb.models.asr import AudioReader, AudioReaderConfig
from avb.models.lip import LipConfig, LipReader, distillation_loss
from avb.models.masks import frame_mask

SIZES = {"audio_dim": 10, "audio_width": 3, "hidden": 6}


@pytest.mark.parametrize("back_end", ["gru", "mstcn"])
def test_a_clip_alone_is_read_as_among_longer_ones(back_end: str) -> None:
    model = stir(AudioReader(5, AudioReaderConfig(back_end=back_end, **SIZES))).eval()
    mel, lengths = torch.randn(3, 80, 28), torch.tensor([7, 4, 6])
    together = model(mel, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = model(mel[row : row + 1, :, : 4 * length])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-5)
    assert together.shape == (3, 5) and model.features(mel).shape == (3, 7, 10)


def test_word_boundaries_are_taken_as_the_lip_reader_takes_them() -> None:
    model = AudioReader(5, AudioReaderConfig(word_boundary=True, **SIZES)).eval()
    inside = torch.zeros(1, 4)
    inside[:, 1:3] = 1
    assert model(torch.randn(1, 80, 16), None, inside).shape == (1, 5)
    with pytest.raises(ValueError, match="expects word boundaries"):
        model(torch.randn(1, 80, 16))


def test_distillation_is_the_distance_to_features_of_mean_0_and_deviation_1() -> None:
    led, taught = torch.randn(2, 3, 6), 5 + 9 * torch.randn(2, 3, 6)
    lengths = [3, 2]
    total = 0.0
    for b, length in enumerate(lengths):
        for t in range(length):
            row = taught[b, t].tolist()
            mean = sum(row) / 6
            deviation = (sum((v - mean) ** 2 for v in row) / 6) ** 0.5
            far = [w - (v - mean) / deviation for w, v in zip(led[b, t].tolist(), row, strict=True)]
            total += sum(d * d for d in far) / 6 / length / 2
    mask = frame_mask(torch.tensor(lengths), 3)
    assert distillation_loss(led, taught, mask).item() == pytest.approx(total, rel=1e-4)
    assert torch.allclose(distillation_loss(led, 100 * taught, mask),
                          distillation_loss(led, taught, mask), rtol=1e-4)  # fmt: skip


def test_a_taught_reader_reads_what_it_read_before() -> None:
    readers = []
    for dim in (0, 10):
        torch.manual_seed(0)
        config = LipConfig(**TINY_LIP | {"slots": 0, "teacher_dim": dim})
        readers.append(LipReader(5, config).eval())
    plain, led = (reader(torch.randn(1, 1, 3, 32, 32).fill_(0.5)) for reader in readers)
    torch.testing.assert_close(plain.logits, led.logits)
    assert plain.led is None and led.led is not None and led.led.shape == (1, 3, 10)
