"""Load weights with transformers, with one line in place of its table."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

logger = logging.getLogger("mm")
REPORT = "LOAD REPORT"  # in the message of transformers 5 that holds a table of all keys that do not match


def load_pretrained(kind: Any, source: str, **settings: Any) -> Any:
    """Load a pre-trained model. Weights of the file that the model has no place for are left out silently.

    Args:
        kind: A class of transformers with `from_pretrained`, such as AutoModel.
        source: A folder or a hub name.
        **settings: Further arguments of `from_pretrained`.

    Returns:
        The model. A log message says how many of its weights the file lacks, which are random then.
    """
    with withheld_report() as withheld:
        try:
            model, info = kind.from_pretrained(source, output_loading_info=True, **settings)
        except RuntimeError:
            for record in withheld:  # the error refers to it
                logger.warning(record.getMessage())
            raise
    missing = sorted(info["missing_keys"])
    if missing:
        logger.warning(
            f"{source}: has no value for {len(missing)} weights of {type(model).__name__}, which start at random, the "
            f"first: {missing[0]}"
        )
    return model


@contextmanager
def withheld_report() -> Iterator[list[logging.LogRecord]]:
    """Keep the tables that transformers would log in a list, until the end of the block."""
    withheld: list[logging.LogRecord] = []

    def withhold(record: logging.LogRecord) -> bool:
        is_report = REPORT in record.getMessage()
        if is_report:
            withheld.append(record)
        return not is_report

    source = logging.getLogger("transformers.modeling_utils")
    source.addFilter(withhold)
    try:
        yield withheld
    finally:
        source.removeFilter(withhold)
