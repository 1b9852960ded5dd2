"""Any torch module as an encoder."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mm.configurable import Configurable, configured
from mm.layers import grid_position, masked_mean, single_token, time_position
from mm.types import Features, InputSpec

BUILDERS = "torchvision.models"  # whose functions build registered models
OUTPUTS = "(B, D), (B, T, D), or of images (B, D, H, W)"


class TorchvisionModel(Configurable, nn.Module):
    """A model of torchvision by its name, so that a model directory can state which one it is.

    Args:
        name: Name of a model, as `torchvision.models.list_models()` has it.
        pretrained: Name of pre-trained weights, such as "DEFAULT"; None: random weights. A model directory holds the
            weights themselves, and leaves the name out.
        arguments: Further arguments of the model's builder, such as {"num_classes": 64}.

    Raises:
        ValueError: If there is no such model.
    """

    def __init__(self, name: str, pretrained: str | None = None, arguments: Mapping[str, Any] | None = None):
        from torchvision.models import get_model, list_models

        super().__init__()
        if name not in list_models():
            raise ValueError(f"name: got '{name}', wanted one of torchvision.models.list_models()")
        given = dict(arguments or {})
        if sources := {"weights", "weights_backbone", "pretrained"} & set(given):
            raise ValueError(f"arguments: {', '.join(sorted(sources))} can't be among them; use `pretrained`")
        self.network = get_model(name, weights=pretrained, **given)

    def get_config(self) -> dict[str, Any]:
        """Return constructor arguments that build the same architecture without the weights it began with."""
        return super().get_config() | {"pretrained": None}

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the network. (B, C, H, W) -> (B, D)"""
        return self.network(x)


class WrappedEncoder(Configurable, nn.Module):
    """Encode an input by a module that returns a tensor.

    The output of the module is (B, D), which becomes one token; (B, T, D), tokens in the order of time; or, of images,
    (B, D, H, W), whose cells are tokens. Absent rows have no influence on the result. Whether padding has an influence
    depends on the module: one that sums over time needs `pass_mask`. `mm.check` tests it.

    Args:
        module: The module, called as `module(x)`.
        modality: Modality of the input: text, vision or audio.
        embed_dim: Width D of its output.
        pass_mask: Whether it is called as `module(x, mask)`. The mask is (B, T), True where the input is real.
        tokenizer: Of text, "bytes" or a folder that holds a tokenizer.
        max_length: The longest input, of text in tokens, of audio in samples.
        size: Of images, height and width in pixels; None: those of the data.
        channels: Of images; None: those of the data.
        mean: Mean of each channel, of pixels in 0..1; None: that of the data.
        std: Standard deviation of each channel; None: that of the data.
        sample_rate: Of audio, in Hz; None: that of the data.

    Example:
        >>> from torch import nn
        >>> encoder = WrappedEncoder(configured(nn.Conv2d, in_channels=3, out_channels=8, kernel_size=4), "vision", 8)
        >>> encoder(torch.zeros(2, 3, 8, 8), torch.ones(2, 1, dtype=torch.bool)).tokens.shape
        torch.Size([2, 25, 8])
    """

    def __init__(
        self,
        module: nn.Module,
        modality: str,
        embed_dim: int,
        *,
        pass_mask: bool = False,
        tokenizer: str | None = None,
        max_length: int | None = None,
        size: tuple[int, int] | None = None,
        channels: int | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        sample_rate: int | None = None,
    ):
        super().__init__()
        self.module = module
        self.embed_dim = embed_dim
        self.pass_mask = pass_mask
        self.input = InputSpec(
            modality=modality,
            tokenizer="bytes" if modality == "text" and tokenizer is None else tokenizer,
            max_length=max_length,
            size=(int(size[0]), int(size[1])) if size else None,
            channels=channels,
            mean=tuple(mean) if mean else None,
            std=tuple(std) if std else None,
            sample_rate=sample_rate,
        )

    def forward(self, x: Tensor, mask: Tensor) -> Features:
        """Return the features of a batch. (B, ...), (B, T) -> tokens (B, T', D)"""
        present = mask.any(1)
        real_input = mask if mask.shape == x.shape else present.view(-1, *[1] * (x.ndim - 1))
        x = x * real_input  # padding and absent rows are zero
        y = self.module(x, mask) if self.pass_mask else self.module(x)
        axis = 1 if isinstance(y, Tensor) and y.ndim == 4 else -1
        if not isinstance(y, Tensor) or y.ndim not in (2, 3, 4) or y.shape[axis] != self.embed_dim:
            got = f"a tensor {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(
                f"{type(self.module).__name__} returned {got}, wanted a tensor {OUTPUTS} with D = "
                f"embed_dim = {self.embed_dim}; wrap a module that returns one, and state its width as embed_dim"
            )
        if y.ndim == 2:
            return single_token(y, present)
        if y.ndim == 4:
            height, width = y.shape[-2:]
            tokens, real = y.flatten(2).transpose(1, 2), present.unsqueeze(1).expand(-1, height * width)
            position = grid_position(height, width, len(y), y.device)
        else:
            tokens, real = y, token_mask(mask, y.shape[1])
            position = time_position(real)
        return Features(tokens, real, masked_mean(tokens, real), position)


def token_mask(mask: Tensor, steps: int) -> Tensor:
    """Return the mask (B, steps) of tokens that divide the time of an input with mask (B, T) evenly."""
    if mask.shape[1] == steps:
        return mask
    real = mask.sum(1, keepdim=True) * steps  # a token is real if its first time step is
    return torch.arange(steps, device=mask.device) * mask.shape[1] < real


def wrap(
    module: nn.Module | type[nn.Module] | partial[nn.Module] | Any,
    modality: str,
    embed_dim: int,
    **settings: Any,
) -> WrappedEncoder:
    """Make an encoder of any torch module, such as a plain model of torchvision.

    Args:
        module: A module that returns a tensor (B, D), (B, T, D), or of images (B, D, H, W). For a model that is saved,
            pass the class, a function of `torchvision.models`, a `functools.partial` of one, or an object of
            `mm.configured(MyModule, width=64)`: only these say how they are built.
        modality: Modality of the input: text, vision or audio.
        embed_dim: Width D of the output.
        **settings: Of the input, and `pass_mask`; see `WrappedEncoder`.

    Returns:
        The encoder, which `mm.build(data.spec, vision=encoder)` takes. A model directory that names a class of another
        package is loaded with `mm.load(path, allow=["my_pkg"])`; models of torchvision need no `allow`.

    Raises:
        ValueError: If `module` is neither a module nor a class or function that builds one.

    Example:
        >>> from functools import partial
        >>> import mm
        >>> from torchvision.models import squeezenet1_1
        >>> mm.wrap(partial(squeezenet1_1, num_classes=16), modality="vision", embed_dim=16, size=(64, 64)).embed_dim
        16
    """
    if not isinstance(module, nn.Module):
        module = build_module(module)
    return WrappedEncoder(module, modality, embed_dim, **settings)


def build_module(factory: Any) -> nn.Module:
    """Build a module from its class, a builder of torchvision, or a partial of one, and record how it was built."""
    given = factory if isinstance(factory, partial) else partial(factory) if callable(factory) else None
    if given is None:
        raise ValueError(f"module: got {factory!r}, wanted an nn.Module, its class, or a functools.partial of it")
    function, keywords = given.func, dict(given.keywords)
    if given.args:
        raise ValueError(f"module: got a partial with positional arguments {given.args}; name them, as width=64")
    if not isinstance(function, type) and getattr(function, "__module__", "").startswith(BUILDERS):
        return TorchvisionModel(function.__name__, keywords.pop("weights", None), keywords)
    built = configured(function, **keywords)
    if not isinstance(built, nn.Module):
        raise ValueError(f"module: {function!r} built {type(built).__name__}, wanted an nn.Module")
    return built
