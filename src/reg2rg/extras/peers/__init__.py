"""Encoders of other systems: CT2Rep and CT-CLIP, M3D, MedVInT, R2GenGPT, CT-CHAT, Merlin. Importing registers them."""

from reg2rg.extras.peers.ctchat import AttentionPool
from reg2rg.extras.peers.ctvit import CTViT
from reg2rg.extras.peers.i3resnet import I3ResNet
from reg2rg.extras.peers.m3d import M3DViT
from reg2rg.extras.peers.medvint import ModifiedResNet, QueryDecoder
from reg2rg.extras.peers.swin2d import SwinDepthChannels

__all__ = ["AttentionPool", "CTViT", "I3ResNet", "M3DViT", "ModifiedResNet", "QueryDecoder", "SwinDepthChannels"]
