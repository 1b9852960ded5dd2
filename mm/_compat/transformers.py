"""The model class of a config, which transformers keeps to itself (transformers 5)."""

from transformers import AutoModel, PretrainedConfig, PreTrainedModel


def model_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """Return the class that `AutoModel` builds from a config."""
    return AutoModel._model_mapping[type(config)]  # type: ignore[return-value]  # a lazy mapping
