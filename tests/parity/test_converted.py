"""From a file of the published form through the converter to a model: its visual tokens are the published ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from parity import reference
from parity.agreement import ROUNDED, relative_rms
from parity.forms import random_volumes
from parity.llama import write_model
from published_files import DEPTHS, HEAD, MASKS, MLP, TEXTURE, WIDTH, fill, reg2rg_shapes
from reg2rg import Reg2RG
from reg2rg.data.batch import Sample, collate
from reg2rg.data.prompt import PromptEncoder
from reg2rg.extras.convert import FORMATS, Opened, Options, account, convert
from reg2rg.extras.convert.reg2rg import recipe
from reg2rg.models.tensors import TensorEntry, TensorSource

VOCABULARY = 640
SIZES = reference.Sizes(TEXTURE.patch, MASKS.patch, heads=8)


def test_visual_tokens(tmp_path: Path) -> None:
    """Keys at their full number, the published patches on 256 x 256 x 64, reduced widths; one region and the image."""
    weights = fill(reg2rg_shapes(VOCABULARY), dtype=torch.bfloat16)
    weights = {name: weight for name, weight in weights.items() if not name.endswith("inv_freq")}
    weights["embedding_layer.weight"] = weights["lang_model.base_model.model.model.embed_tokens.weight"]
    llama = tmp_path / "llama"
    write_model(llama, VOCABULARY, WIDTH, DEPTHS["llm"], heads=WIDTH // HEAD, mlp=MLP)
    empty = {
        name: torch.empty(0, dtype=torch.bfloat16)
        for name in weights
        if (name.startswith("lang_model") and ".lora_" not in name) or name == "embedding_layer.weight"
    }
    torch.save({**weights, **empty}, tmp_path / "pytorch_model.bin")
    done = convert(tmp_path / "pytorch_model.bin", "reg2rg", tmp_path / "out", Options(llm=str(llama)))
    model = Reg2RG.from_pretrained(done.folder)

    texture, image = random_volumes(2, TEXTURE.size, 0)
    mask = random_volumes(1, MASKS.size, 1, low=0.0)[0]
    encoder = PromptEncoder(model.tokenizer, model.token_counts, max_length=2048)
    encoded = encoder.encode_sample(("heart",), ("normal.",))
    views = (texture[None].numpy(), mask[None].numpy(), image.numpy())
    batch = collate([Sample("s", ("heart",), ("normal.",), encoded, *views)], model.token_counts, encoder.pad_id)

    doubled = {name: tensor.double() for name, tensor in weights.items()}
    with torch.no_grad():
        words = torch.zeros(VOCABULARY, WIDTH, dtype=torch.float64)
        slot = reference.region_tokens(texture.double(), mask.double(), doubled, SIZES)
        shown = reference.image_tokens(image.double(), doubled, SIZES)
        expected = reference.table(words, doubled, shown, [slot], 1)[VOCABULARY:]
        found = model.reporter.visual_table(batch)
    assert relative_rms(found, expected) < ROUNDED
    for part in (slice(4, 36), slice(36, 68), slice(68, 69)):  # the image, the region's texture, its geometry
        assert relative_rms(found[part], expected[part]) < ROUNDED
    assert np.array_equal(batch.visual_source, [0, *range(4, 36), 1, 2, *range(36, 69), 3])


@pytest.mark.parametrize(("vocabulary", "checked"), [(32000, True), (640, False)])
def test_ids_are_checked_for_weights_with_the_published_vocabulary(vocabulary: int, checked: bool) -> None:
    shapes = reg2rg_shapes(vocabulary)
    entries = {k: TensorEntry(s, torch.float32, lambda s=s: torch.empty(s, device="meta")) for k, s in shapes.items()}
    format_ = FORMATS["reg2rg"]
    found = account(format_.keys, format_.layers, entries, "", "")
    assert recipe(Opened(TensorSource(None, entries), found))["data"]["published_ids"] is checked
