"""Modalities: the kinds of inputs that models support, one class per file.

To add a modality, write a subclass of `Modality` in a file of its own and call `register_modality(MyModality())` before
its data is loaded.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from mm.messages import near
from mm.modalities.audio import Audio
from mm.modalities.base import Modality, Sound
from mm.modalities.tabular import Tabular
from mm.modalities.text import Text
from mm.modalities.vision import Vision
from mm.targets.base import AlignedCodec
from mm.types import DataSpec, InputSpec, TargetCodec, Transform

__all__ = [
    "Modality",
    "Sound",
    "default_transforms",
    "get_modality",
    "modality_names",
    "modality_of_file",
    "register_modality",
    "sort_inputs",
]

# In the order in which inputs are listed, as in `test[text+audio]/accuracy`; registered modalities come last.
_MODALITIES: dict[str, Modality] = {one.name: one for one in (Text(), Vision(), Audio(), Tabular())}


def register_modality(modality: Modality) -> None:
    """Register a modality; a modality of the same name is replaced.

    Raises:
        ValueError: If its name is not a valid Python identifier.
    """
    if not modality.name.isidentifier():
        raise ValueError(f"modality: got the name '{modality.name}', wanted a plain word such as 'series'")
    _MODALITIES[modality.name] = modality


def get_modality(name: str) -> Modality:
    """Return the registered modality of a name.

    Raises:
        ValueError: If no modality has this name.
    """
    if name not in _MODALITIES:
        raise ValueError(
            f"modality: got '{name}', wanted one of {', '.join(_MODALITIES)}{near(name, _MODALITIES)}; another one is "
            "registered with mm.modalities.register_modality"
        )
    return _MODALITIES[name]


def modality_names() -> tuple[str, ...]:
    """Return the names of all modalities, in the order in which inputs are listed."""
    return tuple(_MODALITIES)


def sort_inputs(names: Iterable[str]) -> list[str]:
    """Sort names of inputs: names of modalities come first, in their order, then the others as given."""
    known = modality_names()
    return sorted(names, key=lambda name: known.index(name) if name in known else len(known))


def modality_of_file(suffix: str) -> str | None:
    """Return the modality of files with a suffix, such as `.png`, or None if no modality has the suffix."""
    return next((name for name, modality in _MODALITIES.items() if suffix.lower() in modality.suffixes), None)


def default_transforms(
    spec: DataSpec,
    codecs: Mapping[str, TargetCodec] | None = None,
    needs: Mapping[str, InputSpec] | None = None,
) -> dict[str, Transform]:
    """Return the default transform of each input of the data.

    Args:
        spec: Inputs and targets of the data.
        codecs: Target name to codec. A codec whose targets depend on the tokens or pixels of an input makes the
            transform of this input return their positions.
        needs: Input name to the requirements of its encoder, for the inputs of a model. None or empty: the requirements
            of the default encoders, for all inputs.
    """
    needs = needs or {}
    settings: dict[str, dict[str, Any]] = {name: {} for name in spec.inputs}
    for codec in (codecs or {}).values():
        if isinstance(codec, AlignedCodec) and codec.needs is not None and codec.input in settings:
            settings[codec.input][codec.needs[1]] = True
    return {
        name: get_modality(data.modality).transform(data, needs.get(name), **settings[name])
        for name, data in spec.inputs.items()
        if not needs or name in needs
    }
