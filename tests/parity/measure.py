"""Print the figures of docs/project/parity.md: the distance from plain references, and how rounding is amplified.

python tests/parity/measure.py            # small networks, then the published sizes: some minutes, 3 GiB
python tests/parity/measure.py --only small
python tests/parity/measure.py --only clipping
python tests/parity/measure.py --only ids --pinned PYTHON    # PYTHON has transformers 4.28.1 and sentencepiece
"""

# ruff: noqa: T201

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from parity import reference
from parity.agreement import exactly, gradient, leaves, relative_rms
from parity.forms import PerceiverForm, ViTForm, random_volumes, random_weights
from parity.llama import AREAS, WORDS, write_model, write_sentencepiece
from parity.ours import Given, our_perceiver, our_vit
from parity.preprocessing import Array, Size, published_views
from reg2rg.extras.phantom.anatomy import draw
from reg2rg.extras.phantom.grid import Grid
from reg2rg.extras.phantom.patient import draw_patient
from reg2rg.models.encoders.weights_radfm import rename_perceiver, rename_vit3d

VIT = ViTForm((256, 256, 64), (32, 32, 4), (512, 512, 512), 3, dim=768, depth=12, heads=8, head_dim=64, mlp=2048)
MASKS = ViTForm((256, 256, 64), (32, 32, 16), (256, 256, 64), 1, dim=255, depth=3, heads=8, head_dim=64, mlp=512)
PERCEIVER = PerceiverForm(dim=768, latents=32, depth=6, heads=8, head_dim=64, mult=4)


def row(*cells: object) -> None:
    texts = [f"{cell:.1e}" if isinstance(cell, float) else str(cell) for cell in cells]
    print(f"| {' | '.join(texts)} |", flush=True)


# ---- small networks: outputs and gradients


def small(draws: int) -> None:
    """Largest disagreement over random networks of random sizes."""
    print(f"\nSmall networks, worst of {draws} draws")
    row("", "outputs, float64", "gradients, float64", "outputs, float32")
    row("---", "---", "---", "---")
    for name, once in (("3D ViT, three channels folded", _vit), ("Perceiver", _perceiver), ("mask encoder", _masks)):
        row(name, *np.max([once(seed) for seed in range(draws)], axis=0).tolist())
    row("whole chain: every label's loss; gradients of all that trains", *_whole(draws))


def _vit(seed: int, channels: int = 3, mean: bool = False) -> tuple[float, float, float]:
    generator = np.random.default_rng(seed)
    patch, grid = generator.integers([2, 1, 1], 4), generator.integers(1, 4, 3)
    size = tuple(int(p * n) for p, n in zip(patch, grid, strict=True))
    table = tuple(int(s * generator.integers(1, 4)) for s in size)
    form = ViTForm(size, tuple(int(p) for p in patch), table, channels, 12, 2, 3, 5, 14)

    def published(volumes: Tensor, weights: dict[str, Tensor]) -> Tensor:
        tokens = [reference.vit(torch.stack([v] * channels), weights, form.patch, form.heads) for v in volumes]
        return torch.stack([one.mean(0, keepdim=True) if mean else one for one in tokens])

    def ours(volumes: Tensor, weights: dict[str, Tensor], dtype: torch.dtype) -> tuple[Tensor, dict[str, Tensor]]:
        vit = our_vit(form, weights, dtype, shift=0.0 if mean else 1.0)
        tokens = vit(volumes[:, None])
        return tokens.mean(1, keepdim=True) if mean else tokens, dict(vit.named_parameters())

    volumes = random_volumes(2, form.size, seed, low=0.0 if mean else -1.0)
    folded = ("to_patch_embedding.1", "to_patch_embedding.2.weight") if channels > 1 else ()
    return _compared(published, ours, volumes, form.shapes(), rename_vit3d, seed, folded)


def _masks(seed: int) -> tuple[float, float, float]:
    return _vit(seed, channels=1, mean=True)


def _perceiver(seed: int) -> tuple[float, float, float]:
    generator = np.random.default_rng(seed)
    form = PerceiverForm(*(int(n) for n in generator.integers([6, 1, 1, 1, 2, 1], [13, 5, 4, 4, 6, 4])))

    def published(media: Tensor, weights: dict[str, Tensor]) -> Tensor:
        return torch.stack([reference.perceiver(one[..., 0], weights, form.heads) for one in media])

    def ours(media: Tensor, weights: dict[str, Tensor], dtype: torch.dtype) -> tuple[Tensor, dict[str, Tensor]]:
        module = our_perceiver(Given(5, form.dim), form, weights, dtype)
        return module(media[:, None]), dict(module.resampler.named_parameters())

    media = random_volumes(2, (5, form.dim, 1), seed)
    return _compared(published, ours, media, form.shapes(), rename_perceiver, seed)


def _compared(
    published: Callable[..., Tensor],
    ours: Callable[..., tuple[Tensor, dict[str, Tensor]]],
    inputs: Tensor,
    shapes: dict[str, tuple[int, ...]],
    rename: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    seed: int,
    folded: tuple[str, ...] = (),
) -> tuple[float, float, float]:
    weights = leaves(random_weights(shapes, seed))
    expected = published(inputs.double(), weights)
    found, own = ours(inputs.double(), {name: tensor.detach() for name, tensor in weights.items()}, torch.float64)
    expected.square().sum().backward()
    found.square().sum().backward()
    off = [
        exactly(gradient(own[next(iter(rename({name: tensor})))]), gradient(tensor))
        for name, tensor in weights.items()
        if not (folded and name.startswith(folded))
    ]
    rounded = random_weights(shapes, seed, torch.float32)
    with torch.no_grad():
        exact = published(inputs.double(), {name: tensor.double() for name, tensor in rounded.items()})
        single, _ = ours(inputs, rounded, torch.float32)
    return exactly(found, expected), max(off), relative_rms(single, exact)


def _whole(draws: int) -> tuple[float, float, float]:
    from parity import test_whole as whole

    worst = []
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), whole.VOCABULARY, whole.WIDTH)
        for seed in range(draws):
            generator = np.random.default_rng(seed)
            batch = []
            for study in range(generator.integers(1, 4)):
                areas = tuple(str(area) for area in generator.permutation(AREAS)[: generator.integers(1, 5)])
                texts = tuple(" ".join(generator.choice(WORDS, 4)) + "." for _ in areas)
                batch.append(whole.Study(areas, texts, 10 * seed + study))
            weights = random_weights(whole.FORM.shapes(), seed)
            theirs, ours = whole.published_chain(Path(folder), batch, weights), None
            ours = whole.our_chain(Path(folder), weights, torch.float64)
            nll = ours(whole.our_batch(batch, ours, torch.float64))
            expected = [loss for study in theirs.losses for loss in study]
            reference.mean_loss(expected).backward()
            nll.mean().backward()
            found = whole.published_gradients(ours) | {
                name: gradient(parameter) for name, parameter in ours.llm.named_parameters() if "lora_" in name
            }
            trained = {name: t for name, t in theirs.weights.items() if name in found} | theirs.adapters
            off = max(exactly(found[name], gradient(tensor)) for name, tensor in trained.items())
            rounded = random_weights(whole.FORM.shapes(), seed, torch.float32)
            exact = whole.published_chain(Path(folder), batch, rounded)
            single = whole.our_chain(Path(folder), rounded, torch.float32)
            with torch.no_grad():
                losses = single(whole.our_batch(batch, single, torch.float32))
            rms = relative_rms(losses, torch.stack([loss for study in exact.losses for loss in study]))
            worst.append((exactly(nll, torch.stack(expected)), off, rms))
    return tuple(np.max(worst, axis=0).tolist())


# ---- the published sizes


def views() -> Iterator[tuple[str, Tensor]]:
    """Views of a synthetic scan as the published recipe makes them, in HU and float64, before the window."""
    hu, masks = draw(draw_patient(0, 0), Grid((300, 300, 110)))
    for name in ("whole image", "lung", "heart"):
        shown = hu if name == "whole image" else np.where(masks[name], hu, -1024)
        box = tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in np.nonzero(shown > -1000))
        pooled = torch.nn.functional.adaptive_avg_pool3d(torch.from_numpy(shown[box]).double()[None, None], VIT.size)
        yield name, pooled[0, 0]


def clipping() -> None:
    """What clipping to the range of a CT before the averages changes, in the whole image of a synthetic scan."""
    hu, _ = draw(draw_patient(0, 0), Grid((300, 300, 110)))
    i, j, _ = (np.indices(hu.shape) + 0.5) / np.array(hu.shape).reshape(3, 1, 1, 1)
    circle = (i - 0.5) ** 2 + (j - 0.5) ** 2 > 0.5**2
    rods = np.zeros(hu.shape, bool)
    rods[130:133, 60:63], rods[170:173, 60:63] = True, True
    print("\nClipped before the averages against after them: largest difference of the whole image, scaled unit")
    row("", "64 x 64 x 32", "256 x 256 x 64")
    row("---", "---", "---")
    for name, where, value in (
        ("padding of -3024 outside the circle", circle, -3024),
        ("padding of -2000", circle, -2000),
        ("two rods of 20,000 HU", rods, 20_000),
    ):
        given = np.where(where, value, hu).astype(np.float64)
        brought = np.clip(given, -1024, 3071)
        row(name, *(float(np.abs(_whole_image(given, n) - _whole_image(brought, n)).max()) for n in SIZES))


SIZES: tuple[Size, ...] = ((64, 64, 32), (256, 256, 64))


def _whole_image(hu: Array, size: Size) -> Array:
    return published_views(hu, hu > -1000, size)["global"]


def scaled(hu: Tensor) -> Tensor:
    return (hu.clamp(-1000, 200) + 400) / 600


@torch.no_grad()
def full() -> None:
    """At the published sizes: the whole texture chain, and the mask encoder."""
    print("\nPublished sizes, random weights, views of a synthetic scan; ours in float32, the reference in float64")
    weights = random_weights(VIT.shapes(), 0, torch.float32)
    vit = our_vit(VIT, weights, torch.float32)
    resampling = random_weights(PERCEIVER.shapes(), 1, torch.float32)
    resampler = our_perceiver(Given(1024, 768), PERCEIVER, resampling, torch.float32)
    masks = random_weights(MASKS.shapes(), 2, torch.float32)
    mask_encoder = our_vit(MASKS, masks, torch.float32, shift=0.0)
    row("view", "ViT tokens, relative rms", "after the Perceiver", "mask encoder")
    row("---", "---", "---", "---")
    for name, hu in views():
        x = scaled(hu).float()
        exact = reference.vit(torch.stack([x.double()] * 3), doubled(weights), VIT.patch, VIT.heads)
        latents = reference.perceiver(exact, doubled(resampling), PERCEIVER.heads)
        soft = (x + 1) / 2
        token = reference.vit(soft.double()[None], doubled(masks), MASKS.patch, MASKS.heads).mean(0)
        tokens = vit(x[None, None])
        row(
            name,
            relative_rms(tokens[0], exact),
            relative_rms(resampler(tokens)[0], latents),
            relative_rms(mask_encoder(soft[None, None])[0].mean(0), token),
        )


def doubled(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.double() for name, tensor in weights.items()}


@torch.no_grad()
def flat() -> None:
    """What the LayerNorm over a patch makes of rounding."""
    weights = random_weights(VIT.shapes(), 0, torch.float32)
    plain, shifted = (our_vit(VIT, weights, torch.float32, shift=shift) for shift in (0.0, 1.0))
    exact = our_vit(VIT, weights, torch.float64)
    print("\nAir at -1 with noise of a given spread: relative rms of the tokens, float32 against float64")
    row("spread of x in a patch", "LayerNorm multiplies by", "of x (shift 0)", "of x + 1 (shift 1)", "gain")
    row("---", "---", "---", "---", "---")
    for spread in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5):
        generator = torch.Generator().manual_seed(0)
        x = (-1 + spread * torch.randn(VIT.size, generator=generator, dtype=torch.float64)).float()
        truth = exact(x.double()[None, None])
        off = [relative_rms(vit(x[None, None]), truth) for vit in (plain, shifted)]
        gain = f"{off[0] / off[1]:.0f} x"
        row(f"{spread:.0e}", f"{(spread**2 + 1e-5) ** -0.5:.0f}", *off, gain)

    print("\nViews of a synthetic scan, rounded to a stored form: relative rms of the tokens, all else in float64")
    forms: dict[str, Callable[[Tensor], Tensor]] = {
        "float32 of x": lambda hu: scaled(hu).float(),
        "int16, 1/16 HU (the store's views)": lambda hu: scaled((hu.clamp(-1000, 200) * 16).round() / 16),
        "int16, whole HU": lambda hu: scaled(hu.round()),
        "float16 of x": lambda hu: scaled(hu).half(),
        "float16 of x + 1": lambda hu: (scaled(hu) + 1).half().double() - 1,
        "bfloat16 of x": lambda hu: scaled(hu).bfloat16(),
        "bfloat16 of x + 1": lambda hu: (scaled(hu) + 1).bfloat16().double() - 1,
    }
    scans = dict(views())
    truths = {name: exact(scaled(hu)[None, None]) for name, hu in scans.items()}
    row("stored form", *scans)
    row("---", *("---" for _ in scans))
    for form, rounded in forms.items():
        row(form, *(relative_rms(exact(rounded(hu).double()[None, None]), truths[n]) for n, hu in scans.items()))


# ---- ids of the pinned tokenizer

PINNED = """
import json, sys
from transformers import LlamaTokenizer, LlamaTokenizerFast
folder, special, cases = json.load(sys.stdin)
found = {}
for kind, cls in (("fast", LlamaTokenizerFast), ("slow", LlamaTokenizer)):
    tokenizer = cls(vocab_file=folder + "/tokenizer.model")
    tokenizer.save_pretrained(folder + "/" + kind)
    words = len(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    found[kind] = [[tokenizer(text)["input_ids"] for text in case] for case in cases]
print(json.dumps([words, found]))
"""


def ids(python: str) -> None:
    """Ids and labels of ours against those that the pinned release gives, for 1 to 10 regions."""
    from transformers import AutoTokenizer

    from reg2rg.data.prompt import PromptEncoder, TokenCounts

    generator = np.random.default_rng(0)
    cases, studies = [], []
    for regions in range(1, 11):
        areas = [str(area) for area in generator.permutation(AREAS)[:regions]]
        texts = [" ".join(generator.choice(WORDS, 6)) + "." for _ in areas]
        question = reference.prompt(regions, 32, 33)
        studies.append((areas, texts))
        cases.append((question, question + " " + reference.target(areas, texts)))
    with tempfile.TemporaryDirectory() as folder:
        write_sentencepiece(Path(folder, "tokenizer.model"))
        said = subprocess.run(
            [python, "-c", PINNED],
            input=json.dumps([folder, reference.special_tokens(32, 330), cases]),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        words, found = json.loads(said)
        ours = PromptEncoder(AutoTokenizer.from_pretrained(f"{folder}/fast"), TokenCounts(32, 1, 32))
        equal = {"fast": 0, "slow": 0}
        for kind in equal:
            for (areas, texts), (question, whole) in zip(studies, found[kind], strict=True):
                encoded = ours.encode_sample(areas, texts)
                expected = np.array([*whole, 2])
                if len(expected) != len(encoded.ids):
                    continue
                text = expected < words
                labels = np.where(np.arange(len(expected)) < len(question), -100, expected)
                same = np.array_equal(encoded.ids[text], expected[text]) and np.array_equal(encoded.labels, labels)
                equal[kind] += same and np.array_equal(encoded.visual_sources, expected[~text] - words)
    print("\nIds, slots and labels equal to those of transformers 4.28.1, of 10 studies with 1 to 10 regions")
    print(f"fast tokenizer (the published data set's): {equal['fast']}; slow one (decodes only): {equal['slow']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("small", "full", "flat", "clipping", "ids"))
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--pinned", metavar="PYTHON", help="interpreter with transformers 4.28.1, for the ids")
    asked = parser.parse_args()
    torch.set_num_threads(torch.get_num_threads() if asked.only in (None, "full", "flat") else 1)
    if asked.only in (None, "small"):
        small(asked.draws)
    if asked.only in (None, "full"):
        full()
    if asked.only in (None, "flat"):
        flat()
    if asked.only in (None, "clipping"):
        clipping()
    if asked.only == "ids" or asked.pinned:
        if not asked.pinned:
            parser.error("--only ids needs --pinned PYTHON")
        ids(asked.pinned)


if __name__ == "__main__":
    main()
