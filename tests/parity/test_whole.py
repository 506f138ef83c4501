"""The whole chain against the published one: tokens, table, loss and gradients of micro-batches of several studies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from parity import reference
from parity.agreement import EXACT, ROUNDED, exactly, gradient, leaves, relative_rms
from parity.forms import ModelForm, PerceiverForm, ViTForm, random_volumes, random_weights, seeds
from parity.llama import AREAS, WORDS, logits, shipped, write_model
from parity.ours import our_reporter
from reg2rg.data.batch import Batch, Sample, collate
from reg2rg.data.prompt import PromptEncoder
from reg2rg.models.encoders.weights_radfm import rename_perceiver, rename_vit3d
from reg2rg.models.llm.causal_lm import CausalLM, LoRA
from reg2rg.models.reporter import RegionReporter

SIZE, WIDTH, VOCABULARY, LENGTH = (8, 4, 6), 8, 640, 400
LORA = LoRA(rank=2, alpha=8, dropout=0.1)
FORM = ModelForm(
    texture=ViTForm(SIZE, (4, 2, 3), (16, 8, 24), channels=3, dim=6, depth=1, heads=2, head_dim=3, mlp=7),
    masks=ViTForm(SIZE, (4, 4, 3), SIZE, channels=1, dim=3, depth=1, heads=2, head_dim=3, mlp=5),
    resampler=PerceiverForm(dim=6, latents=3, depth=2, heads=2, head_dim=3, mult=2),
    width=WIDTH,
)
SIZES = reference.Sizes(FORM.texture.patch, FORM.masks.patch, heads=2)
GLOBAL, REGION = 3, 4
TRAINED = tuple(
    f"embedding_layer.{name}"
    for name in ("mask_encoder.", "perceiver.", "fc.", "mask_fc.", "image_token_weight", "region_token_weight")
)
"""What the published code trains beside the adapters."""

few = settings(max_examples=10, deadline=None, derandomize=True, phases=[Phase.generate])
"""Without shrinking: an example takes a second when it fails, and is readable as it is."""
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(lambda words: " ".join(words) + ".")


@dataclass(frozen=True)
class Study:
    """A study in slot order; its float32 views follow from a seed."""

    areas: tuple[str, ...]
    reports: tuple[str, ...]
    seed: int

    @property
    def image(self) -> Tensor:
        return random_volumes(1, SIZE, self.seed)[0]

    @property
    def textures(self) -> Tensor:
        """The first has constant patches, as outside a region."""
        volumes = random_volumes(len(self.areas), SIZE, self.seed + 1)
        volumes[0, :4] = -1.0
        return volumes

    @property
    def masks(self) -> Tensor:
        return random_volumes(len(self.areas), SIZE, self.seed + 2, low=0.0)


@st.composite
def studies(draw: st.DrawFn) -> Study:
    """One to four of the ten regions, in any order."""
    areas = tuple(draw(st.lists(st.sampled_from(AREAS), min_size=1, max_size=4, unique=True)))
    return Study(areas, tuple(draw(texts) for _ in areas), draw(seeds))


batches = st.lists(studies(), min_size=1, max_size=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama")
    write_model(path, VOCABULARY, WIDTH)
    return path


@cache
def language_model(folder: Path, dtype: torch.dtype) -> CausalLM:
    """Ours, with adapters that do something."""
    llm = CausalLM(str(folder), lora=LORA)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in llm.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return llm.to(dtype).eval()


@cache
def oracle(folder: Path) -> LlamaForCausalLM:
    """Transformers' own, without adapters."""
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    return shipped(VOCABULARY)


@cache
def grown() -> PreTrainedTokenizerBase:
    more = shipped(VOCABULARY)
    more.add_special_tokens({"additional_special_tokens": reference.special_tokens(GLOBAL, REGION * len(AREAS))})
    return more


# ---- the published chain


@dataclass(frozen=True)
class Published:
    """What the reference makes of a micro-batch.

    Attributes:
        weights: of the published form.
        adapters: ours by name, in the form of leaves.
        embedded: (B, LENGTH, E).
        losses: of each study's labels.
    """

    weights: dict[str, Tensor]
    adapters: dict[str, Tensor]
    embedded: Tensor
    losses: list[list[Tensor]]


def published_chain(folder: Path, batch: Sequence[Study], weights: dict[str, Tensor]) -> Published:
    """Study by study; tables as long as the union of the batch's regions wants, the same padding for all."""
    weights, model = leaves(weights, *TRAINED), oracle(folder)
    adapters = {
        name: parameter.detach().double().clone().requires_grad_()
        for name, parameter in language_model(folder, torch.float64).named_parameters()
        if "lora_" in name
    }
    words = model.get_input_embeddings().weight.detach()
    most = len({area for study in batch for area in study.areas})
    embedded, samples = [], []
    for study in batch:
        image = reference.image_tokens(study.image.double(), weights, SIZES)
        slots = [
            reference.region_tokens(texture.double(), mask.double(), weights, SIZES)
            for texture, mask in zip(study.textures, study.masks, strict=True)
        ]
        question, answer = reference.prompt(len(slots), GLOBAL, REGION), reference.target(study.areas, study.reports)
        sample = reference.training_sample(
            lambda text: list(grown()(text)["input_ids"]), question, answer, LENGTH, eos=2, vocabulary=VOCABULARY
        )
        embedded.append(reference.look_up(sample.ids, reference.table(words, weights, image, slots, most)))
        samples.append(sample)
    inputs = torch.stack(embedded)
    found = logits(model, inputs, [sample.attention for sample in samples], updates(adapters))
    losses = [reference.nll(one, sample.labels) for one, sample in zip(found, samples, strict=True)]
    return Published(weights, adapters, inputs, losses)


def updates(adapters: dict[str, Tensor]) -> dict[str, Tensor]:
    """alpha / rank * B A for each adapted weight, under the plain model's names."""
    found = {}
    for name, down in adapters.items():
        if ".lora_A." in name:
            up = adapters[name.replace(".lora_A.", ".lora_B.")]
            target = name.split(".base_model.model.")[1].replace(".lora_A.default", "")
            found[target] = LORA.alpha / LORA.rank * torch.einsum("or,ri->oi", up, down)
    return found


# ---- ours


def our_batch(batch: Sequence[Study], counts_of: RegionReporter, dtype: torch.dtype) -> Batch:
    counts = counts_of.token_counts
    encoder = PromptEncoder(tokenizer(), counts)
    samples = [
        Sample(
            f"s{i}",
            study.areas,
            study.reports,
            encoder.encode_sample(study.areas, study.reports),
            *(view.to(dtype).numpy() for view in (study.textures, study.masks, study.image)),
        )
        for i, study in enumerate(batch)
    ]
    return collate(samples, counts, encoder.pad_id)


def our_chain(folder: Path, weights: dict[str, Tensor], dtype: torch.dtype) -> RegionReporter:
    reporter = our_reporter(FORM, language_model(folder, dtype), weights, dtype)
    reporter.zero_grad()
    return reporter


def each_loss(batch: Batch, nll: Tensor) -> list[Tensor]:
    """The losses of each study."""
    counts = (batch.labels != -100).sum(1).tolist()
    return list(nll.split(counts))


@few
@given(batch=batches, seed=seeds)
def test_loss_and_gradients(folder: Path, batch: list[Study], seed: int) -> None:
    """Of the slots, of every label, and of everything that trains: adapters, resampler, mask encoder, maps, tags."""
    weights = random_weights(FORM.shapes(), seed)
    theirs, ours = published_chain(folder, batch, weights), our_chain(folder, weights, torch.float64)
    given_batch = our_batch(batch, ours, torch.float64)
    length = given_batch.input_ids.shape[1]
    real = given_batch.attention_mask.clone()
    real[torch.arange(len(batch)), real.sum(1) - 1] = False  # EOS, whose embedding nobody reads
    assert exactly(ours.embed(given_batch)[real], theirs.embedded[:, :length][real]) < EXACT

    nll = ours(given_batch)
    expected = [loss for study in theirs.losses for loss in study]
    assert exactly(nll, torch.stack(expected)) < EXACT
    reference.mean_loss(expected).backward()
    nll.mean().backward()
    found = published_gradients(ours)
    for name, tensor in theirs.weights.items():
        if name.startswith(TRAINED):
            assert exactly(found.pop(name), gradient(tensor)) < EXACT, name
    own = dict(ours.llm.named_parameters())
    for name, tensor in theirs.adapters.items():
        assert exactly(gradient(own[name]), gradient(tensor)) < EXACT, name
        assert gradient(tensor).abs().max() > 0, name
    assert not found, "all that trains was compared"


def published_gradients(ours: RegionReporter) -> dict[str, Tensor]:
    """Ours under the published names."""
    own = {name: gradient(parameter) for name, parameter in ours.named_parameters() if parameter.requires_grad}
    found = {}
    for name in FORM.shapes():
        inner = name.removeprefix("embedding_layer.")
        kind, _, rest = inner.partition(".")
        if kind == "mask_encoder":
            found[name] = own.pop("geometry.encoder." + _key(rename_vit3d, rest))
        elif kind == "perceiver":
            found[name] = own.pop("texture.resampler." + _key(rename_perceiver, rest))
        elif kind in ("fc", "mask_fc"):
            found[name] = own.pop(f"{'texture' if kind == 'fc' else 'geometry'}_projector.linear.{rest}")
    found["embedding_layer.image_token_weight"], found["embedding_layer.region_token_weight"] = own.pop("tags").split(2)
    assert all(".lora_" in name for name in own), own.keys()
    return found


def _key(rename, name: str) -> str:  # type: ignore[no-untyped-def]
    (renamed,) = rename({name: torch.empty(0)})
    return str(renamed)


@few
@given(batch=batches, seed=seeds)
def test_single_precision(folder: Path, batch: list[Study], seed: int) -> None:
    """The filled prompt; the loss, a mean of logarithms, is held as tightly."""
    weights = random_weights(FORM.shapes(), seed, torch.float32)
    theirs, ours = published_chain(folder, batch, weights), our_chain(folder, weights, torch.float32)
    given_batch = our_batch(batch, ours, torch.float32)
    filled = given_batch.visual_rows, given_batch.visual_cols
    with torch.no_grad():
        assert relative_rms(ours.embed(given_batch)[filled], theirs.embedded[filled]) < ROUNDED
        expected = torch.stack([loss for study in theirs.losses for loss in study])
        assert relative_rms(ours(given_batch), expected) < ROUNDED


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, EXACT), (torch.float32, ROUNDED)])
@few
@given(batch=batches, seed=seeds)
def test_batch_mates_change_nothing(
    folder: Path, dtype: torch.dtype, bound: float, batch: list[Study], seed: int
) -> None:
    """A study's slots and losses alone, among others, and in another order of the batch."""
    reporter = our_chain(folder, random_weights(FORM.shapes(), seed, dtype), dtype)

    def run(chosen: list[Study]) -> list[tuple[Tensor, Tensor]]:
        together = our_batch(chosen, reporter, dtype)
        with torch.no_grad():
            losses, embedded = each_loss(together, reporter(together)), reporter.embed(together)
        return [(loss, embedded[i][together.attention_mask[i]]) for i, loss in enumerate(losses)]

    alone = [run([study])[0] for study in batch]
    for found in (run(batch), run(batch[::-1])[::-1]):
        for (loss, filled), (one_loss, one_filled) in zip(found, alone, strict=True):
            if dtype == torch.float64:
                assert exactly(loss, one_loss) < bound
                assert exactly(filled, one_filled) < bound
            else:
                assert relative_rms(loss, one_loss) < bound
                assert relative_rms(filled, one_filled) < bound


def test_a_table_by_id_at_the_published_size() -> None:
    """32 + 33 j rows behind 32,036: the id of a slot minus 32,000 is the row of our table, for ten regions."""
    image, slots = torch.randn(32, 4).double(), [torch.randn(33, 4).double() for _ in range(10)]
    tags = {f"embedding_layer.{kind}_token_weight": torch.randn(2, 4).double() for kind in ("image", "region")}
    rows = reference.table(torch.randn(32000, 4).double(), tags, image, slots, 10)
    assert len(rows) == 32366
    ours = torch.cat([*tags.values(), image, *slots])
    for source in np.random.default_rng(0).permutation(366):
        assert torch.equal(rows[32000 + source], ours[source])
    assert torch.equal(rows[32036 + 33 * 7 + 32], slots[7][32])
