"""Encoders of images, which map pixels to one vector per patch."""

from typing import TYPE_CHECKING

from mm.lazy import lazy_exports

if TYPE_CHECKING:
    from mm.encoders.vision.conv import VisionConv
    from mm.encoders.vision.huggingface import HuggingFaceVision
    from mm.encoders.vision.resnet import VisionResNet
    from mm.encoders.vision.timm import TimmVision

__all__ = ["HuggingFaceVision", "TimmVision", "VisionConv", "VisionResNet"]

__getattr__, __dir__ = lazy_exports(__name__, __file__)
