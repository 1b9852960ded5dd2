import pytest
import torch
from torchvision.transforms import v2

from mm.transforms.audio.waveform import AudioTransform
from mm.transforms.augment import AugmentError, augmented, tracked
from mm.transforms.vision.pixels import ImageTransform


class Broken:
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such kernel")


def test_in_order_and_first_of_a_tuple() -> None:
    out = augmented([lambda x: x + 1, lambda x: (x * 10, None)], torch.ones(2))
    assert out.tolist() == [20, 20]


def test_failures_name_the_augmentation() -> None:
    with pytest.raises(
        AugmentError, match=r"Broken on torch.float32 of shape \(2,\) raised RuntimeError: no such kernel"
    ):
        augmented([Broken()], torch.ones(2))
    with pytest.raises(AugmentError, match="gave list, wanted a tensor"):
        augmented([lambda x: x.tolist()], torch.ones(2))


def test_only_in_training() -> None:
    image = torch.zeros(4, 4).byte().numpy()
    with pytest.raises(AugmentError):
        ImageTransform((4, 4), 1, augment=[Broken()])(image, train=True)
    ImageTransform((4, 4), 1, augment=[Broken()])(image)
    with pytest.raises(AugmentError):
        AudioTransform(100, augment=[Broken()])(torch.zeros(9), train=True)
    AudioTransform(100, augment=[Broken()])(torch.zeros(9))


@pytest.mark.parametrize("wrong", [lambda x: x[:, :2], lambda x: x.float() / 255])
def test_pixels_keep_their_shape_and_type(wrong: object) -> None:
    with pytest.raises(AugmentError, match=r"wanted uint8 as before, of \(1, 4, 4\)"):
        ImageTransform((4, 4), 1, augment=[wrong])(torch.zeros(4, 4).byte().numpy(), train=True)


@pytest.mark.parametrize("wrong", [lambda x: x[:0], lambda x: x.view(1, -1), lambda x: x / 0])
def test_waveforms_stay_waveforms(wrong: object) -> None:
    with pytest.raises(AugmentError, match="wanted finite samples"):
        AudioTransform(100, augment=[wrong])(torch.zeros(9), train=True)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["trivial_augment", "affine"])
def test_the_configured_image_augmentations(name: str, channels: int) -> None:
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    import conf

    group = f"{conf.__path__[0]}/datamodule/transforms/vision"
    config = OmegaConf.merge(OmegaConf.load(f"{group}/pixels.yaml"), OmegaConf.load(f"{group}/{name}.yaml"))
    del config["defaults"]
    given = {"size": [16, 16], "channels": channels, "mean": None, "std": None}
    transform = instantiate(config, _convert_="all", **given)
    image = torch.randint(0, 256, (channels, 16, 16), dtype=torch.uint8)
    torch.manual_seed(0)
    seen = [transform(image, train=True).windows[0] for _ in range(40)]  # TrivialAugment draws one of 14 operations
    assert any(not torch.equal(seen[0], other) for other in seen)
    assert torch.equal(transform(image).windows[0], transform(image).windows[0])


def test_the_configured_sound_augmentation() -> None:
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    import conf

    group = f"{conf.__path__[0]}/datamodule/transforms/audio"
    config = OmegaConf.merge(OmegaConf.load(f"{group}/waveform.yaml"), OmegaConf.load(f"{group}/speed.yaml"))
    del config["defaults"]
    config.sample_rate, config.max_length = 8000, None
    transform = instantiate(config, _convert_="all")
    torch.manual_seed(0)
    lengths = {len(transform(torch.randn(900).clamp(-1, 1), train=True).windows[0]) for _ in range(12)}
    assert lengths == {1000, 900, 819}  # 900 / 0.9, 900, 900 / 1.1
    assert len(transform(torch.randn(1), train=True).windows[0]) >= 1


def markers(frame: torch.Tensor, size: tuple[int, int], at: list[tuple[int, int]]) -> list[list[float]]:
    """Where pixels of the original, by (x, y), lie in what is shown of it."""
    (x0, y0, x1, y1), (width, height) = frame.tolist(), size
    return [[(x / width - x0) / (x1 - x0), (y / height - y0) / (y1 - y0)] for x, y in at]


@pytest.mark.parametrize("seed", range(6))
def test_what_is_shown_is_where_the_pixels_went(seed):
    """Coloured blocks are found again where the frame says that they are."""
    torch.manual_seed(seed)
    picture = torch.zeros(3, 60, 80, dtype=torch.uint8)
    blocks = [(24, 20), (52, 24), (36, 42)]  # (x, y) of their centres
    for channel, (x, y) in enumerate(blocks):
        picture[channel, y - 4 : y + 4, x - 4 : x + 4] = 255
    augment = [
        v2.RandomHorizontalFlip(),
        v2.RandomVerticalFlip(),
        v2.RandomAffine(0, translate=(0.05, 0.05), scale=(0.8, 1.2)),
        v2.RandomResizedCrop((60, 80), scale=(0.85, 1)),
        v2.Pad((6, 2, 0, 4)),
        v2.ColorJitter(brightness=0.1),
    ]
    pixels, frame = tracked(augment, picture)
    assert type(pixels) is torch.Tensor and pixels.shape == (3, 66, 86)
    for channel, (x, y) in enumerate(markers(frame, (80, 60), blocks)):
        weight = pixels[channel].double() * (pixels[channel] > 100)
        sums = weight.sum(0), weight.sum(1)
        centre = [float((s * (torch.arange(len(s)) + 0.5)).sum() / weight.sum() / len(s)) for s in sums]
        assert centre == pytest.approx([x, y], abs=0.012)  # a pixel is 0.012 and 0.015 of a side


def test_a_frame_by_hand():
    picture = torch.zeros(1, 40, 80, dtype=torch.uint8)
    assert tracked([], picture)[1].tolist() == [0, 0, 1, 1]
    assert tracked([v2.RandomHorizontalFlip(1)], picture)[1].tolist() == [1, 0, 0, 1]
    assert tracked([v2.RandomVerticalFlip(1)], picture)[1].tolist() == [0, 1, 1, 0]
    left = v2.Lambda(lambda x: v2.functional.crop(x, 10, 20, 20, 40))
    assert tracked([left], picture)[1].tolist() == [0.25, 0.25, 0.75, 0.75]
    assert tracked([left, v2.RandomHorizontalFlip(1)], picture)[1].tolist() == [0.75, 0.25, 0.25, 0.75]
    several = [v2.RandomHorizontalFlip(1), left, v2.Resize((7, 9))]
    assert tracked(several, picture)[1].tolist() == [0.75, 0.25, 0.25, 0.75]
    assert tracked([v2.Pad(20)], picture)[1].tolist() == [-0.25, -0.5, 1.25, 1.5]


@pytest.mark.parametrize(
    "one",
    [
        v2.RandomRotation((5, 5)),
        v2.RandomRotation((90, 90), expand=True),
        v2.RandomRotation((180, 180)),
        v2.RandomAffine(0, shear=(10, 10)),
        v2.RandomPerspective(p=1),
    ],
)
def test_what_boxes_cannot_follow_is_refused(one):
    """A half turn is fine: it mirrors both ways."""
    torch.manual_seed(0)
    picture = torch.zeros(1, 40, 40, dtype=torch.uint8)
    if isinstance(one, v2.RandomRotation) and one.degrees == [180, 180]:
        assert tracked([one], picture)[1].tolist() == pytest.approx([1, 1, 0, 0], abs=1e-5)
        return
    with pytest.raises(AugmentError, match=f"the augmentation {type(one).__name__} turns, shears or bends the picture"):
        tracked([one], picture)


def test_one_that_knows_no_boxes_is_named():
    with pytest.raises(AugmentError, match="TrivialAugmentWide on .* raised TypeError: .*; the target has boxes"):
        tracked([v2.TrivialAugmentWide()], torch.zeros(3, 8, 8, dtype=torch.uint8))
    with pytest.raises(AugmentError, match="<lambda> on .* raised TypeError"):
        tracked([lambda x: x], torch.zeros(3, 8, 8, dtype=torch.uint8))
