import pytest
import torch

from mm.transforms.audio.waveform import Waveform
from mm.transforms.augment import AugmentError, augmented
from mm.transforms.vision.pixels import Pixels


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
        Pixels((4, 4), 1, augment=[Broken()])(image, train=True)
    Pixels((4, 4), 1, augment=[Broken()])(image)
    with pytest.raises(AugmentError):
        Waveform(100, augment=[Broken()])(torch.zeros(9), train=True)
    Waveform(100, augment=[Broken()])(torch.zeros(9))


@pytest.mark.parametrize("wrong", [lambda x: x[:, :2], lambda x: x.float() / 255])
def test_pixels_keep_their_shape_and_type(wrong: object) -> None:
    with pytest.raises(AugmentError, match=r"wanted uint8 as before, of \(1, 4, 4\)"):
        Pixels((4, 4), 1, augment=[wrong])(torch.zeros(4, 4).byte().numpy(), train=True)


@pytest.mark.parametrize("wrong", [lambda x: x[:0], lambda x: x.view(1, -1), lambda x: x / 0])
def test_waveforms_stay_waveforms(wrong: object) -> None:
    with pytest.raises(AugmentError, match="wanted finite samples"):
        Waveform(100, augment=[wrong])(torch.zeros(9), train=True)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["photo", "shift"])
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
    lengths = {len(transform(torch.randn(900), train=True).windows[0]) for _ in range(12)}
    assert lengths == {1000, 900, 819}  # 900 / 0.9, 900, 900 / 1.1
    assert len(transform(torch.randn(1), train=True).windows[0]) >= 1
