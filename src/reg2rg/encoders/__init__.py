"""Views to tokens. Importing this package registers every built-in encoder."""

from reg2rg.encoders.base import ENCODERS, Encoder
from reg2rg.encoders.cnn3d import CNN3D
from reg2rg.encoders.ctvit import CTViT
from reg2rg.encoders.m3d import M3DViT
from reg2rg.encoders.medvint import ModifiedResNet, QueryDecoder
from reg2rg.encoders.monai_nets import MonaiSwinUNETR, MonaiViT
from reg2rg.encoders.perceiver import PerceiverResampler
from reg2rg.encoders.pooling import AttentionPool, Resize, TokenPool
from reg2rg.encoders.published import fold_channels
from reg2rg.encoders.swin2d import SwinDepthChannels
from reg2rg.encoders.timm_nets import TimmDepthChannels, TimmSlices
from reg2rg.encoders.vit3d import ViT3D
from reg2rg.encoders.wrappers import Frozen, Pretrained, TokenMean

__all__ = [
    "CNN3D",
    "ENCODERS",
    "AttentionPool",
    "CTViT",
    "Encoder",
    "Frozen",
    "M3DViT",
    "ModifiedResNet",
    "MonaiSwinUNETR",
    "MonaiViT",
    "PerceiverResampler",
    "Pretrained",
    "QueryDecoder",
    "Resize",
    "SwinDepthChannels",
    "TimmDepthChannels",
    "TimmSlices",
    "TokenMean",
    "TokenPool",
    "ViT3D",
    "fold_channels",
]
