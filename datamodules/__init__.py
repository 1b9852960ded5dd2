"""Data modules: one for each supported data set, and those for your own tables, parallel files and shards."""

from typing import TYPE_CHECKING

from mm.lazy import lazy_exports

if TYPE_CHECKING:
    from mm.datamodules.av_mnist import AVMNISTDataModule
    from mm.datamodules.dialogue import DialogueDataModule
    from mm.datamodules.digit_questions import DigitQuestionsDataModule
    from mm.datamodules.digits import DigitsDataModule
    from mm.datamodules.fsdd import FSDDDataModule
    from mm.datamodules.manifest import Manifest, ManifestDataModule
    from mm.datamodules.movielens import MovieLensDataModule
    from mm.datamodules.noto_emoji import NotoEmojiDataModule
    from mm.datamodules.parallel import ParallelDataModule
    from mm.datamodules.semeval import SemEvalDataModule
    from mm.datamodules.shards import ShardsDataModule
    from mm.datamodules.spoken_digits import SpokenDigitsDataModule

__all__ = [
    "AVMNISTDataModule",
    "DialogueDataModule",
    "DigitQuestionsDataModule",
    "DigitsDataModule",
    "FSDDDataModule",
    "Manifest",
    "ManifestDataModule",
    "MovieLensDataModule",
    "NotoEmojiDataModule",
    "ParallelDataModule",
    "SemEvalDataModule",
    "ShardsDataModule",
    "SpokenDigitsDataModule",
]

__getattr__, __dir__ = lazy_exports(__name__, __file__)
