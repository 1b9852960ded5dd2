"""Against a few emojis written on the spot; and the real ones where there are."""

import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mm.datamodules.noto_emoji import NotoEmojiDataModule, family
from mm.transforms.vision.pixels import ImageTransform

SETTINGS = {"text": ["en", "en_keywords"], "join": ": ", "skin_tones": False, "target": "group"}
SPLIT = {"val": 0.2, "test": 0.2, "seed": 0}
SHARED = {"batch_size": 8, "num_workers": 0, "on_error": "raise", "split": SPLIT, "seed": 0}
HEAD = "file\tchar\tskin_tone\ten\ten_keywords\tde\tfr\tgroup"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twenty fruits, and ten waving hands of which each has a light variant."""
    (tmp_path / "png").mkdir()
    lines = [HEAD]
    for i in range(20):
        lines.append(f"f{i}.png\t{chr(0x1F330 + i)}\t0\tfruit {i}\tfruit|sweet\tObst {i}\tfruit {i}\tFood & Drink")
    for i in range(10):
        lines.append(f"h{i}.png\t{chr(0x1F440 + i)}\t0\thand {i}\t\tHand {i}\tmain {i}\tPeople")
        lines.append(f"h{i}l.png\t{chr(0x1F440 + i)}\U0001f3fb\t1\thand {i}: light\t\tHand {i}\tmain {i}\t")
    (tmp_path / "names.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for line in lines[1:]:
        pixels = np.zeros((72, 72, 4), np.uint8)  # transparent but for a red corner
        pixels[:36, :36] = (255, 0, 0, 255)
        Image.fromarray(pixels).save(tmp_path / "png" / line.split("\t")[0])
    return tmp_path


def build(path: Path, **changed: object) -> NotoEmojiDataModule:
    return NotoEmojiDataModule(path=str(path), **SETTINGS | SHARED | changed)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("👋", "👋🏿"),
        ("🏃", "🏃🏽‍♀️"),
        ("🏃", "🏃‍♂️‍➡️"),
        ("👨‍🌾", "👩🏻‍🌾"),
        ("🧑‍🌾", "👩‍🌾"),
        ("👬", "👨🏻‍🤝‍👨🏿"),
        ("👭", "🧑‍🤝‍🧑"),
        ("💏", "👩‍❤️‍💋‍👨"),
        ("💑", "🧑🏻‍❤️‍🧑🏿"),
        ("🤝", "🫱🏻‍🫲🏿"),
        ("👪", "👨‍👩‍👧‍👦"),
        ("👨‍👦", "🧑‍🧑‍🧒"),
        ("👵", "👴🏽"),
        ("🤶", "🧑🏿‍🎄"),
        ("🕺", "💃🏼"),
        ("🐈", "🐈‍⬛"),
        ("🏻", "🏿"),
    ],
)
def test_variants_are_of_one_family(one: str, other: str) -> None:
    assert family(one) == family(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("🏃", "🚶"),
        ("🐈", "🐕"),
        ("👨‍🌾", "👨‍🍳"),
        ("♀", "♂"),
        ("⬛", "⬜"),
        ("❤", "❤️‍🔥"),
        ("👪", "🧑"),
        ("🤝", "🧑‍🤝‍🧑"),
        ("➡", "⬅"),
    ],
)
def test_others_are_not(one: str, other: str) -> None:
    assert family(one) != family(other)


def test_rows_and_splits(root: Path) -> None:
    table = build(root).table
    assert {name: int((table.split == name).sum()) for name in ("train", "val", "test", "")} == {
        "train": 18,
        "val": 6,
        "test": 6,
        "": 10,
    }
    assert table.inputs["text"][:1] == ["fruit 0: fruit, sweet"]
    assert table.inputs["text"][20] == "hand 0"  # no keywords, and nothing to join
    assert table.ids[20:22] == ["h0", "h0l"]
    assert table.spec.targets["target"].classes == ("Food & Drink", "People")
    assert (build(root, split=SPLIT | {"seed": 1}).table.split != table.split).any()
    assert (build(root, seed=1).table.split == table.split).all()

    more = build(root, skin_tones=True).table
    untoned = np.array([not name.endswith("l") for name in table.ids])
    assert (more.split[untoned] == table.split[untoned]).all()
    where = dict(zip(more.ids, more.split))
    assert {where[f"h{i}l"] for i in range(10)} == {"train", ""}
    assert all((where[f"h{i}l"] == "train") == (where[f"h{i}"] == "train") for i in range(10))
    assert more.targets["target"][21] == -100  # of no group


def test_texts_are_a_choice(root: Path) -> None:
    assert build(root, text=["de"]).table.inputs["text"][3] == "Obst 3"
    assert build(root, text=["en", "fr"], join=" / ").table.inputs["text"][3] == "fruit 3 / fruit 3"
    alone = build(root, text=None, target=None).table
    assert list(alone.inputs) == list(alone.spec.inputs) == ["vision"]
    assert not alone.targets


def test_what_is_transparent_is_white(root: Path) -> None:
    module = build(root)
    module.use({"vision": ImageTransform((72, 72), 3)})
    pixels = module.dataset(False, None).transforms["vision"](module.table.inputs["vision"][0]).windows[0]
    assert pixels[:, 0, 0].tolist() == [255, 0, 0]
    assert (pixels[:, 40:, 40:] == 255).all()


def test_mistakes(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="datamodule.text: got 'english', wanted some of en, en_keywords, de, fr"):
        build(root, text=["english"])
    with pytest.raises(ValueError, match="datamodule.target: got 'en', wanted group or null"):
        build(root, target="en")
    with pytest.raises(ValueError, match=r"nowhere lacks names.tsv or png/; .* MM_DATA=FOLDER"):
        build(tmp_path / "nowhere").read()
    (root / "names.tsv").write_text("file\tchar\nf0.png\ta\n")
    with pytest.raises(ValueError, match=r"names.tsv: no column 'skin_tone'"):
        build(root).read()


def test_the_real_emojis() -> None:
    data = os.environ.get("MM_DATA")
    if not data or not (Path(data) / "noto_emoji/names.tsv").is_file():
        pytest.skip("needs the emojis in noto_emoji/ of the folder MM_DATA, which is not there")
    module = build(Path(data) / "noto_emoji", skin_tones=True)
    table = module.table
    assert int((table.split != "").sum()) > 2000
    # A base emoji, told from the names alone: without what follows a colon, and without woman and man.
    found = defaultdict(set)
    for text, split in zip(table.inputs["text"], table.split):
        name = text.split(":")[0].replace("woman ", "").replace("man ", "").replace("person ", "")
        if split and name not in ("keycap", "man", "woman", "person"):  # of many
            found[name].add(split)
    assert [name for name, splits in found.items() if len(splits) > 1] == []
    tested = [text for text, split in zip(table.inputs["text"], table.split) if split in ("val", "test")]
    assert len({text.split(":")[0] for text in tested}) > 0.8 * len(tested)
    names = build(Path(data) / "noto_emoji", text=["en"]).table
    for split in ("val", "test"):
        mine = [text for text, where in zip(names.inputs["text"], names.split) if where == split]
        assert len(set(mine)) == len(mine)  # equal names would be wrong negatives
    module.use({"vision": ImageTransform((72, 72), 3)})
    assert module.batch([0, 1]).inputs["vision"].dtype == torch.float32
