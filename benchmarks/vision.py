"""Vision forward of one study: the published way beside ours, same weights, same views, in one run.

Published: one volume after another, three equal channels, attention that writes out its weights. It is rebuilt plainly
here. Ours: all volumes packed in one batch (or a few at a time), one channel with folded patch embedding, SDPA.

    python benchmarks/vision.py                 a global view and three regions; every volume costs the same
    python benchmarks/vision.py --regions 10    a whole study

Also how much of the machine's matrix product peak our ViT reaches, in CPU time, which other load does not distort much.
Exit status 1 when a bar is missed: 1.4 times less CPU time, 60 % of the peak, same latents.
"""

from __future__ import annotations

import argparse
import sys

import torch
import torch.nn.functional as F
from _measure import GIB, machine, matmul_peak, take_turns
from torch import Tensor, nn

from reg2rg.models.encoders import Frozen, PerceiverResampler, ViT3D

TIME_BAR, SHARE_BAR, GAP = 1.4, 0.6, 1e-4


class PublishedViT(nn.Module):
    """The published 3D ViT on three channels, rebuilt from its description; parameter names as published."""

    def __init__(self, size=(256, 256, 64), patch=(32, 32, 4), dim=768, depth=12, heads=8, mlp=2048) -> None:
        super().__init__()
        self.size, self.patch, self.heads = size, patch, heads
        voxels = 3 * patch[0] * patch[1] * patch[2]
        self.to_patch_embedding = nn.Sequential(
            nn.Identity(), nn.LayerNorm(voxels), nn.Linear(voxels, dim), nn.LayerNorm(dim)
        )
        self.pos_embedding = nn.ModuleDict()
        for name, full, cell in zip(("row", "col", "dep"), (512, 512, 512), patch, strict=True):
            self.pos_embedding[f"{name}_embed"] = nn.Embedding(full // cell, dim // 3)
        self.transformer = nn.ModuleDict({"layers": nn.ModuleList(self._layer(dim, mlp) for _ in range(depth))})

    def _layer(self, dim: int, mlp: int) -> nn.ModuleList:
        inner = 64 * self.heads
        attention = nn.ModuleDict(
            {"to_qkv": nn.Linear(dim, 3 * inner, bias=False), "to_out": nn.ModuleList([nn.Linear(inner, dim)])}
        )
        net = nn.Sequential(nn.Linear(dim, mlp), nn.GELU(), nn.Identity(), nn.Linear(mlp, dim))
        return nn.ModuleList(
            [
                nn.ModuleDict({"norm": nn.LayerNorm(dim), "fn": attention}),
                nn.ModuleDict({"norm": nn.LayerNorm(dim), "fn": nn.ModuleDict({"net": net})}),
            ]
        )

    def forward(self, volumes: Tensor) -> Tensor:
        x = self.embed(volumes)
        for attention, mlp in self.transformer["layers"]:
            x = self._attend(attention["norm"](x), attention["fn"]) + x
            x = mlp["fn"]["net"](mlp["norm"](x)) + x
        return x

    def embed(self, volumes: Tensor) -> Tensor:
        """(N, 3, H, W, D) to patches with their positions, (N, T, C)."""
        (H, W, D), (p, q, r) = self.size, self.patch
        h, w, d = H // p, W // q, D // r
        x = (
            volumes.reshape(-1, 3, h, p, w, q, d, r)
            .permute(0, 2, 4, 6, 3, 5, 7, 1)
            .reshape(-1, h * w * d, p * q * r * 3)
        )
        x = self.to_patch_embedding(x)
        rows = []
        for name, cells in zip(("row", "col", "dep"), (h, w, d), strict=True):
            table = self.pos_embedding[f"{name}_embed"].weight
            rows.append(table[(torch.arange(cells) + 1) * (len(table) // cells) - 1])
        place = torch.cat(
            [
                rows[0][:, None, None].expand(h, w, d, -1),
                rows[1][None, :, None].expand(h, w, d, -1),
                rows[2][None, None].expand(h, w, d, -1),
            ],
            dim=-1,
        )
        return x + place.reshape(1, h * w * d, -1)

    def _attend(self, x: Tensor, fn: nn.ModuleDict) -> Tensor:
        q, k, v = (
            part.reshape(*part.shape[:2], self.heads, 64).transpose(1, 2) for part in fn["to_qkv"](x).chunk(3, -1)
        )
        weights = (torch.matmul(q, k.transpose(-1, -2)) * 64**-0.5).softmax(-1)
        return fn["to_out"][0](torch.matmul(weights, v).transpose(1, 2).flatten(2))


class PublishedPerceiver(nn.Module):
    """The published resampler with the weights of ours: concatenated norms, attention that writes out its weights."""

    def __init__(self, ours: PerceiverResampler) -> None:
        super().__init__()
        self.ours = ours.resampler

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.ours.latents.expand(len(tokens), -1, -1)
        for layer in self.ours.layers:
            latents = layer.latent_norm(x)
            both = torch.cat([layer.media_norm(tokens), latents], dim=1)
            k, v = layer.key_value(both).chunk(2, -1)
            q, k, v = (
                part.reshape(len(x), -1, layer.heads, 64).transpose(1, 2) for part in (layer.query(latents), k, v)
            )
            logits = torch.matmul(q * 64**-0.5, k.transpose(-1, -2))
            weights = (logits - logits.amax(-1, keepdim=True)).softmax(-1)
            x = layer.out(torch.matmul(weights, v).transpose(1, 2).flatten(2)) + x
            x = layer.mlp_out(F.gelu(layer.mlp_in(layer.mlp_norm(x)))) + x
        return self.ours.norm(x)


def views(regions: int, seed: int = 0) -> Tensor:
    """A global view and region views: smooth tissue with noise, air around the regions' boxes; (N, 1, 256, 256, 64)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(regions + 1, 1, 16, 16, 8, generator=generator)
    volumes = F.interpolate(coarse, size=(256, 256, 64), mode="trilinear") * 0.4 - 0.1
    volumes += torch.randn(volumes.shape, generator=generator) * 0.05
    axes = [torch.linspace(-1, 1, n) for n in (256, 256, 64)]
    radius = axes[0][:, None, None] ** 2 + axes[1][None, :, None] ** 2 + axes[2][None, None] ** 2
    for n in range(1, regions + 1):
        volumes[n, 0][radius > 0.5 + n / 12] = -1.0
    return volumes.clamp_(-1, 1)


def vit_gflop(vit: ViT3D) -> float:
    """GFLOP of the matrix products of one volume: patches, blocks, attention."""
    tokens, dim = vit.num_tokens, vit.out_channels
    block = vit.blocks[0]
    inner, hidden = block.attention.out.in_features, block.mlp_in.out_features
    a_block = tokens * dim * (4 * inner + 2 * hidden) + 2 * tokens**2 * inner
    return 2 * (tokens * vit.patch_linear.in_features * dim + len(vit.blocks) * a_block) / 1e9


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regions", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--chunk", type=int, help="volumes at a time on our side; 0: all in one batch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)

    published = PublishedViT().eval()
    ours_vit = ViT3D().eval()
    ours_vit.load_state_dict(dict(ours_vit.adapt_weights(published.state_dict())))
    frozen = Frozen(ours_vit, chunk=options.chunk)
    ours = PerceiverResampler(frozen).eval()
    published_perceiver = PublishedPerceiver(ours)
    volumes = views(options.regions)
    count = len(volumes)

    def run_published() -> Tensor:
        return torch.cat([published_perceiver(published(v[None].repeat(1, 3, 1, 1, 1))) for v in volumes])

    print(f"{count} volumes of 256 x 256 x 64, torch {torch.__version__}; {machine(options.threads)}", flush=True)
    frozen(volumes[:1])  # what only the first call pays is nobody's
    ways = {"published": run_published, "ours": lambda: ours(volumes), "our ViT alone": lambda: frozen(volumes)}
    results = take_turns(ways, options.repeats)
    theirs, mine, vit = results.values()
    print(f"{'':16}{'wall s':>8}{'CPU s':>8}{'ratio (CPU)':>13}{'GiB taken':>10}")
    for name, result in results.items():
        ratio = f"{theirs.cpu / result.cpu:.2f}" if result is not vit else ""
        print(f"{name:16}{result.wall:8.2f}{result.cpu:8.2f}{ratio:>13}{result.peak / GIB:10.2f}")
    gap = (theirs.output - mine.output).abs()
    print(f"latents, of deviation 1, differ by {gap.max():.1e} at most (bar {GAP:.0e}), {gap.mean():.1e} on average")
    reached, peak = vit_gflop(ours_vit) * count / vit.cpu, matmul_peak()
    ratio, share = theirs.cpu / mine.cpu, reached / peak
    print(f"our ViT: {reached:.0f} GFLOP/s, {share:.0%} of the {peak:.0f} of one large product (bar {SHARE_BAR:.0%})")
    met = ratio >= TIME_BAR and share >= SHARE_BAR and float(gap.max()) <= GAP
    print(f"vision forward {ratio:.2f} x (bar {TIME_BAR}): {'met' if met else 'missed'}")
    return int(not met)


if __name__ == "__main__":
    with torch.no_grad():
        sys.exit(main())
