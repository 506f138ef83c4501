"""Views to tokens. Importing this package registers every built-in encoder."""

from reg2rg.encoders.base import ENCODERS, Encoder
from reg2rg.encoders.cnn3d import CNN3D
from reg2rg.encoders.monai_nets import MonaiSwinUNETR, MonaiViT
from reg2rg.encoders.perceiver import PerceiverResampler
from reg2rg.encoders.published import fold_channels
from reg2rg.encoders.timm_nets import TimmDepthChannels, TimmSlices
from reg2rg.encoders.vit3d import ViT3D
from reg2rg.encoders.wrappers import Frozen, TokenMean

__all__ = [
    "CNN3D",
    "ENCODERS",
    "Encoder",
    "Frozen",
    "MonaiSwinUNETR",
    "MonaiViT",
    "PerceiverResampler",
    "TimmDepthChannels",
    "TimmSlices",
    "TokenMean",
    "ViT3D",
    "fold_channels",
]
