"""Views to tokens. Importing this package registers every built-in encoder."""

from reg2rg.models.encoders.attributes import AttributeEncoder
from reg2rg.models.encoders.base import ENCODERS, Encoder, Reads
from reg2rg.models.encoders.cnn3d import CNN3D
from reg2rg.models.encoders.grids import GridCells, MaskPool
from reg2rg.models.encoders.monai_nets import MonaiSwinUNETR, MonaiViT
from reg2rg.models.encoders.perceiver import PerceiverResampler
from reg2rg.models.encoders.pooling import Resize, TokenPool
from reg2rg.models.encoders.timm_nets import TimmDepthChannels, TimmSlices
from reg2rg.models.encoders.vit3d import ViT3D
from reg2rg.models.encoders.weights_radfm import fold_channels
from reg2rg.models.encoders.wrappers import Frozen, Pretrained, TokenMean

__all__ = [
    "CNN3D",
    "ENCODERS",
    "AttributeEncoder",
    "Encoder",
    "Frozen",
    "GridCells",
    "MaskPool",
    "MonaiSwinUNETR",
    "MonaiViT",
    "PerceiverResampler",
    "Pretrained",
    "Reads",
    "Resize",
    "TimmDepthChannels",
    "TimmSlices",
    "TokenMean",
    "TokenPool",
    "ViT3D",
    "fold_channels",
]
