"""Files and folders -> columns of cells, by the suffix of a file or the layout of a folder."""

import json
from pathlib import Path

from mm.data.readers.boxes import has_annotations, is_coco, is_voc, read_annotated, read_coco, read_voc
from mm.data.readers.conll import read_conll
from mm.data.readers.delimited import TableFormat, read_delimited
from mm.data.readers.encoding import check_encoding
from mm.data.readers.folders import read_folder
from mm.data.readers.jsonl import read_jsonl
from mm.data.readers.lines import read_texts
from mm.data.readers.parquet import read_parquet
from mm.data.readers.squad import read_squad
from mm.data.readers.suffixes import check_table_file
from mm.data.readers.yolo import is_yolo, read_yolo
from mm.data.table import Cells
from mm.messages import say


def read_cells(path: Path, form: TableFormat | None = None) -> Cells:
    """Return the columns of a table, or of a file or folder of a task's own format.

    Args:
        path: The file or folder.
        form: How CSV and TSV files are written.

    Raises:
        ValueError: If it can't be read; the message names file and line.
    """
    form = form or TableFormat()
    form.check()
    if is_voc(path):
        return read_voc(path)
    if path.is_dir() and is_yolo(path):
        return read_yolo(path)
    how = check_table_file(path)
    if how not in (",", "\t") and form.header is not None:
        raise ValueError(f"datamodule.column_names: {path.name} names its columns itself; leave it out")
    for key in ("delimiter", "encoding"):
        if how not in (",", "\t") and getattr(form, key) is not None:
            raise ValueError(f"datamodule.{key}: is for .csv and .tsv files, got {path.name}; leave it out")
    if how in FORMATS:
        cells = FORMATS[how](path)
    else:
        quotes = how == "," if form.quotes is None else form.quotes
        cells = read_delimited(path, form.delimiter or how, quotes, form.header, form.encoding)
    if not cells or not next(iter(cells.values())):
        raise ValueError(f"{path}: has no rows")
    return cells


def read_whole(path: Path) -> Cells:
    """A JSON file of COCO's or SQuAD's. Errors: ValueError where it is neither."""
    check_encoding(path)
    try:
        document = json.loads(path.read_text("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is no JSON ({error}); wanted a file of SQuAD's or COCO's") from None
    return read_coco(path, document) if is_coco(document) else read_squad(path, document)


FORMATS = {"lines": read_texts, "json": read_jsonl, "conll": read_conll, "whole": read_whole, "parquet": read_parquet}
FORMATS |= {"yolo": read_yolo}


def read_any(
    path: Path, modality: str, form: TableFormat | None = None, flat: bool = False, boxes: bool = False
) -> Cells:
    """Return the columns of a folder of files of a modality, or of a table file.

    Args:
        path: The folder or file.
        modality: Of the files.
        form: How CSV and TSV files are written.
        flat: Whether files may lie in no class folder.
        boxes: Whether the target is boxes, which annotations beside the pictures, or YOLO's text files, state.
    """
    if not path.is_dir() or is_voc(path):
        return read_cells(path, form)
    if modality == "vision" and has_annotations(path):
        if boxes:
            return read_annotated(path)
        say(f"{path.name}: holds annotations of boxes (VOC), which model/heads=detection reads")
    elif modality == "vision" and is_yolo(path):
        if boxes:
            return read_yolo(path)
        say(f"{path.name}: holds text files of boxes (YOLO), which model/heads=detection reads")
    return read_folder(path, modality, flat)
