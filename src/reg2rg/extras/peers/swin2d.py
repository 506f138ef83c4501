"""The 2D Swin transformer of R2GenGPT, with the slices as the channels of one picture."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from reg2rg.core.types import PositiveInt, UnitFloat
from reg2rg.extras.peers.weights import widen_channels
from reg2rg.extras.peers.weights_swin import rename_swin
from reg2rg.models.encoders.axes import as_images, to_square
from reg2rg.models.encoders.base import ENCODERS, Encoder, Size, check_size

_MEAN, _STD = 2 * (0.485 + 0.456 + 0.406) / 3 - 1, 2 * (0.229 + 0.224 + 0.225) / 3
"""ImageNet's mean and deviation, averaged over the colours, for pictures in [-1, 1]."""
_FIRST = "swin.patch_embed.proj.weight"


@ENCODERS.register
class SwinDepthChannels(Encoder):
    """A 2D Swin transformer with the slices as the channels of one picture; defaults: R2GenGPT's Swin-B.

    The network is timm's. Its weights may come from timm, from Hugging Face (such as those of
    ``microsoft/swin-base-patch4-window7-224``) or from a checkpoint of R2GenGPT with a trained encoder; a first
    convolution for three colours is widened.

    Args:
        size: H, W, D of the input in voxels; D becomes the number of channels.
        image_size: side to which pictures are resized.
        patch_size: side of a patch in pixels.
        embed_dim: width of the first stage; every further stage doubles it.
        depths: blocks of each stage; each but the first halves the map.
        heads: attention heads of each stage.
        window: side of the attention windows in tokens.
        dropout: on attention, projections and perceptrons, in training.
        drop_path: share of residual branches that the last block drops, in training; less before it.
    """

    def __init__(
        self,
        size: Size = (256, 256, 64),
        image_size: PositiveInt = 224,
        patch_size: PositiveInt = 4,
        embed_dim: PositiveInt = 128,
        depths: tuple[PositiveInt, ...] = (2, 2, 18, 2),
        heads: tuple[PositiveInt, ...] = (4, 8, 16, 32),
        window: PositiveInt = 7,
        dropout: UnitFloat = 0.0,
        drop_path: UnitFloat = 0.1,
    ) -> None:
        super().__init__()
        from timm.models.swin_transformer import SwinTransformer

        if len(depths) != len(heads) or not depths:
            raise ValueError(f"SwinDepthChannels: depths {depths} and heads {heads}, expected one of each for a stage")
        stride = patch_size * 2 ** (len(depths) - 1)
        if image_size % stride:
            raise ValueError(
                f"SwinDepthChannels: image_size is {image_size}, expected a multiple of {stride}: patches of "
                f"{patch_size}, halved {len(depths) - 1} times"
            )
        self.size, self.image_size = size, image_size
        self.out_channels = embed_dim * 2 ** (len(depths) - 1)
        self.num_tokens = (image_size // stride) ** 2
        self.swin = SwinTransformer(
            img_size=image_size,
            patch_size=patch_size,
            in_chans=size[2],
            num_classes=0,
            global_pool="",
            embed_dim=embed_dim,
            depths=depths,
            num_heads=heads,
            window_size=window,
            proj_drop_rate=dropout,
            attn_drop_rate=dropout,
            drop_path_rate=drop_path,
        )

    def forward(self, volumes: Tensor) -> Tensor:
        """(N, 1, H, W, D) to (N, T, C); cells row by row from the front left of the picture."""
        check_size(volumes, self.size, self)
        images = to_square(as_images(volumes.squeeze(1)), self.image_size)
        cells: Tensor = self.swin.forward_features((images - _MEAN) / _STD)  # (N, rows, columns, C)
        return cells.flatten(1, 2)

    def adapt_weights(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Accept this class's own weights, timm's, Hugging Face's and R2GenGPT's."""
        found = dict(weights) if any(name.startswith("swin.layers.") for name in weights) else rename_swin(weights)
        first = found.get(_FIRST)
        if first is not None and first.shape[1] == 3 != self.size[2]:
            found[_FIRST] = widen_channels(first, self.size[2])
        return found
