import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from mm.datamodules.digits import RATE, DigitsDataModule, misspelt, tones
from mm.targets.regression import RegressionTarget
from mm.targets.tags import TagTarget
from mm.types import TargetData

# ITU-T Q.23, written down anew: key -> low, high tone in Hz
Q23 = {1: (697, 1209), 2: (697, 1336), 3: (697, 1477), 4: (770, 1209), 5: (770, 1336), 6: (770, 1477),
       7: (852, 1209), 8: (852, 1336), 9: (852, 1477), 0: (941, 1336)}  # fmt: skip
NOISE = {"pixel_noise": 0.45, "snr": -9.0, "seconds": 0.1, "typos": 0.4, "noise_seed": 0}


@pytest.fixture(scope="module")
def digits() -> DigitsDataModule:
    return build()


def build(**changed: object) -> DigitsDataModule:
    shared = {"batch_size": 64, "num_workers": 0, "on_error": "raise", "split": {"val": 0.1, "test": 0.1, "seed": 0}}
    return DigitsDataModule(**NOISE | shared | {"seed": 0} | changed)


def goertzel(wave: np.ndarray, frequency: float) -> float:
    """Power of one frequency."""
    twice = 2 * np.cos(2 * np.pi * frequency / RATE)
    before = last = 0.0
    for x in wave:
        before, last = last, x + twice * last - before
    return before**2 + last**2 - twice * before * last


@pytest.mark.parametrize("digit", range(10))
def test_tones_are_those_of_the_telephone(digit: int) -> None:
    wave = tones(digit, 0.1, 10.0, np.random.default_rng(digit))
    assert wave.shape == (800,)
    assert wave.dtype == np.float32
    low = max((697, 770, 852, 941), key=lambda f: goertzel(wave, f))
    high = max((1209, 1336, 1477, 1633), key=lambda f: goertzel(wave, f))
    assert (low, high) == Q23[digit]
    spectrum = np.abs(np.fft.rfft(tones(digit, 1.0, 20.0, np.random.default_rng(0))))  # of 1 Hz
    assert tuple(sorted(np.argsort(spectrum)[-2:])) == Q23[digit]


def test_noise_is_as_loud_as_said() -> None:
    """Of what is left when the two sines are fitted away."""
    for snr in (-9.0, 0.0, 12.0):
        wave = tones(5, 4.0, snr, np.random.default_rng(0)).astype(np.float64)
        time = np.arange(len(wave)) / RATE
        sines = np.stack([g(2 * np.pi * f * time) for f in Q23[5] for g in (np.sin, np.cos)], 1)
        fitted = sines @ np.linalg.lstsq(sines, wave, rcond=None)[0]
        measured = 10 * np.log10((fitted**2).mean() / ((wave - fitted) ** 2).mean())
        assert measured == pytest.approx(snr, abs=0.3)


def test_phrases() -> None:
    rng = np.random.default_rng(0)
    assert misspelt("it says seven", 0.0, rng) == "it says seven"
    wrong = misspelt("it says seven", 1.0, rng)
    assert [c == " " for c in wrong] == [c == " " for c in "it says seven"]
    assert wrong != "it says seven"
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    table = build(typos=0.0).table
    assert all(names[digit] in text for digit, text in zip(load_digits().target, table.inputs["text"]))


EVERY = {"digit": "digit", "ear": "heard", "odd": "parity", "total": "sum", "words": "tags"}


def test_several_targets() -> None:
    readers = {"total": RegressionTarget(), "words": TagTarget("text")}
    module = build(sound="another", targets=EVERY, readers=readers, typos=0.0)
    table, seen = module.table, load_digits().target.tolist()
    assert list(table.spec.targets) == list(EVERY)
    spoken = []
    for row in range(200):
        wave = table.inputs["audio"][row]
        digit, heard, odd, total, words = (module.truth(name, row) for name in EVERY)
        assert digit == str(seen[row])
        assert (odd == "odd") == seen[row] % 2
        assert total == seen[row] + int(heard)
        text = table.inputs["text"][row].split()
        names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
        assert ["B-digit" if word == names[seen[row]] else "O" for word in text] == words
        low, high = Q23[int(heard)]
        others = [goertzel(wave, f) for f in {f for pair in Q23.values() for f in pair} - {low, high}]
        spoken.append(min(goertzel(wave, low), goertzel(wave, high)) > max(others))
    assert np.mean(spoken) > 0.9  # in noise
    assert np.mean([a == int(module.truth("ear", row)) for row, a in enumerate(seen)]) == pytest.approx(0.1, abs=0.03)
    same = build(typos=0.0).table
    assert all(np.array_equal(same.inputs["vision"][row], table.inputs["vision"][row]) for row in (0, 7, 1796))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"targets": {"a": "digits"}}, r"datamodule.targets.a: got 'digits', wanted .*; did you mean 'digit'"),
        ({"sound": "other"}, "datamodule.sound: got 'other', wanted one of same, another"),
    ],
)
def test_unknown_targets(changed: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build(**changed)


def test_rows_are_those_of_scikit_learn(digits: DigitsDataModule) -> None:
    data = load_digits()
    table = digits.table
    assert table.targets["target"].tolist() == data.target.tolist()
    clean = build(pixel_noise=0.0).table.inputs["vision"]
    np.testing.assert_allclose(np.stack(clean), data.images / 16, atol=1e-6)
    assert table.spec.inputs["audio"].sample_rate == 8000
    assert table.spec.targets["target"].classes == tuple("0123456789")


def test_splits_are_stratified(digits: DigitsDataModule) -> None:
    table = digits.table
    for name, part in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
        rows = table.split == name
        assert rows.mean() == pytest.approx(part, abs=0.002)
        counts = torch.bincount(table.targets["target"][rows], minlength=10)
        whole = torch.bincount(table.targets["target"], minlength=10)
        assert (counts - whole * part).abs().max() <= 1.5
    assert table.spec.targets["target"].facts["counts"] == (
        torch.bincount(table.targets["target"][table.split == "train"], minlength=10).tolist()
    )


def test_noise_belongs_to_the_row(digits: DigitsDataModule) -> None:
    """Not to the split, its seed or the run's; a different noise_seed is different noise."""
    other = build(split={"val": 0.3, "test": 0.2, "seed": 5}, seed=9).table
    assert (other.split != digits.table.split).any()
    for name in ("text", "vision", "audio"):
        for row in (0, 7, 1796):
            assert np.array_equal(other.inputs[name][row], digits.table.inputs[name][row])
    fresh = build(noise_seed=1).table
    assert not np.array_equal(fresh.inputs["audio"][7], digits.table.inputs["audio"][7])


def test_labels_of_a_trained_model_win() -> None:
    classes = tuple("9876543210")
    table = build(known={"target": TargetData(kind="class", classes=classes)}).table
    assert table.targets["target"].tolist() == [9 - d for d in load_digits().target.tolist()]
    with pytest.raises(ValueError, match=r"digits: row 0 .*unknown label '0'; the model knows zero, one"):
        _ = build(known={"target": TargetData(kind="class", classes=("zero", "one"))}).table


@pytest.mark.parametrize("changed", [{"seconds": 0.0}, {"typos": 1.5}, {"pixel_noise": -1.0}])
def test_wrong_settings(changed: dict) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(changed))}={next(iter(changed.values()))}"):
        build(**changed)
