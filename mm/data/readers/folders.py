"""Folders of files, a folder per class -> columns of cells."""

from pathlib import Path

from mm.data.splitting import spelt
from mm.data.table import SPLITS, Cells
from mm.modalities import get_modality


def read_folder(path: Path, modality: str, flat: bool = False) -> Cells:
    """A folder per class, perhaps below a folder per split -> columns named by modality, target, id and split.

    flat: files without a class folder are fine, and have no target. Hidden files and folders are passed over.
    """
    path = path.resolve()
    kind = get_modality(modality)
    found = [(f, f.relative_to(path).parts) for f in sorted(path.rglob("*")) if f.suffix.lower() in kind.suffixes]
    found = [(f, p) for f, p in found if f.is_file() and not any(part.startswith(".") for part in p)]
    if not found:
        raise ValueError(f"datamodule.path: no file below {path} ends in {', '.join(kind.suffixes)}")
    files, parts = [f for f, _ in found], [p for _, p in found]
    cells: Cells = {
        modality: [kind.read_file(f) for f in files],
        "id": ["/".join(p) for p in parts],
    }
    if flat and all(len(p) == 1 for p in parts):
        return cells
    named = [spelt(p[0]) in SPLITS for p in parts]
    splits = all(named)
    for p, is_split in zip(parts, named, strict=True):
        if len(p) < 2 + splits:
            wanted = f"{path}/{p[0] + '/' if splits else ''}CLASS/{p[-1]}"
            raise ValueError(f"datamodule.path: {path.joinpath(*p)} lies in no class folder, wanted {wanted}")
        if is_split and not splits:
            other = next(q[0] for q, n in zip(parts, named, strict=True) if not n)
            raise ValueError(
                f"datamodule.path: {path} holds the split '{p[0]}' and beside it '{other}', wanted SPLIT/CLASS/FILE or "
                f"CLASS/FILE; move one of them away"
            )
    cells["target"] = [p[1] if splits else p[0] for p in parts]
    return cells | ({"split": [p[0] for p in parts]} if splits else {})
