"""Tokens of frozen encoders, made once: equal to live ones, refused when stale or damaged, resumed, legal or not."""

from __future__ import annotations

import json
import logging
import shutil
import typing

import lightning as L
import numpy as np
import pytest
import torch
import yaml

from reg2rg.core.claims import Campaign
from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.task import Views
from reg2rg.data.encoded import Features
from reg2rg.inference.encode import encode
from reg2rg.models.encoders import Frozen, MaskPool, PerceiverResampler, Resize, TokenMean, ViT3D
from reg2rg.models.encoders.settled import facts_of, settled_part, settled_views
from reg2rg.store.container import verify
from reg2rg.store.encoded import EncodedStore, EncodedView, Encoding
from reg2rg.store.store import Store
from reg2rg.training.data_fit import offer_settled

SIZE = (16, 16, 8)


def vit(**changes):
    options = {"size": SIZE, "patch": (4, 4, 4), "dim": 24, "depth": 2, "heads": 2, "head_dim": 8, "mlp_dim": 32}
    return ViT3D(**(options | {"table_size": SIZE} | changes))


def model_of(toy, **changes):
    torch.manual_seed(1)
    texture = PerceiverResampler(Frozen(vit(), chunk=2), num_latents=3, depth=1, heads=2, head_dim=8)
    return toy.module(**({"texture": texture, "dropout": 0.0} | changes))


def parts_of(model):
    reporter = model.reporter
    told = settled_views(
        reporter.texture, reporter.geometry, "texture" if reporter.shares_texture else reporter.global_
    )
    return {view: part for view, part in told.items() if not isinstance(part, str)}


@pytest.fixture
def store(toy, tmp_path):
    shutil.copytree(toy.store, tmp_path / "store")
    return Store(tmp_path / "store")


def data_of(toy, model, store, **changes):
    data = toy.data(model, batch_size=3, **changes)
    data.store_path = store.root
    offer_settled(model, data)
    return data


def losses(model, data):
    """Loss of every training study and the gradients of their sum, dropout off."""
    model.eval()
    model.zero_grad()
    found = {}
    for batch in data.train_dataloader():
        nll = model.reporter(data.on_after_batch_transfer(batch, 0))
        nll.mean().backward()
        found[batch.study_ids] = float(nll.detach().mean())
    return found, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("bits", "loss_bar", "gradient_bar"), [(16, 1e-4, 2e-3), (8, 1e-3, 3e-2)])
def test_loss_and_gradients_are_those_of_the_live_encoder(toy, store, bits, loss_bar, gradient_bar):
    model = model_of(toy)
    live, live_gradients = losses(model, data_of(toy, model, store, features="never"))
    encode(store, store.studies(), parts_of(model), model.task.views, bits)
    data = data_of(toy, model, store, features="required", feature_bits=bits)
    batch = next(iter(data.train_dataloader()))
    assert batch.texture.shape == (len(batch.region_names), 32, 24)
    assert batch.global_.shape == (3, 32, 24)
    assert batch.geometry.shape[1:] == (1, *SIZE)  # its encoder trains
    found, gradients = losses(model, data)
    assert found.keys() == live.keys()
    for studies, loss in live.items():
        assert found[studies] == pytest.approx(loss, rel=loss_bar)
    assert gradients.keys() == live_gradients.keys()
    for name, gradient in live_gradients.items():
        assert (gradients[name] - gradient).abs().max() <= gradient_bar * gradient.abs().max().clamp(min=1e-6), name


def test_a_run_takes_them_and_leaves_the_encoder_alone(toy, store, monkeypatch):
    trained = {}
    for features in ("never", "auto"):
        model = model_of(toy)
        if features == "auto":
            encode(store, store.studies(), parts_of(model), model.task.views)
            monkeypatch.setattr(ViT3D, "forward", lambda *_: pytest.fail("the frozen encoder was run"))
        run = L.Trainer(
            max_steps=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=store.root,
        )  # fmt: skip
        data = toy.data(model, features=features, cache=True, region_dropout=0.5)
        data.store_path = store.root
        run.fit(model, datamodule=data)
        trained[features] = {name: p.detach().clone() for name, p in model.named_parameters()}
        assert run.predict(model, datamodule=data)
    for name, parameter in trained["never"].items():
        assert (trained["auto"][name] - parameter).abs().max() < 5e-3, name


def test_regions_come_in_the_order_asked_for(toy, store):
    model = model_of(toy)
    parts = parts_of(model)
    encode(store, ["s2"], parts, model.task.views)
    one = EncodedView(store, Encoding("texture", model.task.views, facts_of(parts["texture"])))
    names, key = store.regions("s2"), store.index()["s2"].key
    assert len(names) == 4
    both = one.read("s2", names, key)
    np.testing.assert_array_equal(one.read("s2", names[::-1], key), both[::-1])
    np.testing.assert_array_equal(one.read("s2", names[2:3], key), both[2:3])
    source = EncodedStore(store, {"texture": one})
    views = source.views("s2", model.task.views, names[:2], {"texture", "geometry"})
    assert (views.texture.shape, views.geometry.shape, views.global_) == ((2, 32, 24), (2, *SIZE), None)
    with pytest.raises(ConfigError, match="no region 'spleen'"):
        one.read("s2", ("spleen",), key)


def test_stale_tokens_are_refused_by_name_and_made_anew(toy, store, caplog):
    model = model_of(toy)
    parts, views = parts_of(model), model.task.views
    encode(store, store.studies(), parts, views)
    before = {path: path.read_bytes() for path in store.root.glob("encoded/*/*.r2g")}
    store.write("s1", "another", store.read("s1").detail)
    store.write_index()
    one = EncodedView(store, Encoding("texture", views, facts_of(parts["texture"])))
    with pytest.raises(DataFault, match=r"NOT_ENCODED s1 .*tokens of an older entry"):
        one.read("s1", store.regions("s1"), "another")
    with pytest.raises(ConfigError, match=r"texture view of 1 of 5 studies are stale \(s1\)"):
        data_of(toy, model, store, features="required").train_dataloader()
    with caplog.at_level(logging.WARNING):
        batch = next(iter(data_of(toy, model, store).train_dataloader()))
    assert batch.texture.ndim == 5
    assert "scans are encoded at every step, for tokens of the texture view of 1 of 5" in caplog.text
    summary = encode(store, store.studies(), parts, views)
    assert (summary.counts["renewed"], summary.counts["kept"]) == (1, 7)
    assert one.read("s1", store.regions("s1"), "another").shape == (3, 32, 24)
    changed = {path.name for path, content in before.items() if path.read_bytes() != content}
    assert changed == {"s1.r2g"}


def test_damage_is_found_named_and_mended(toy, store):
    model = model_of(toy)
    parts, views = parts_of(model), model.task.views
    encode(store, store.studies(), parts, views)
    one = EncodedView(store, Encoding("texture", views, facts_of(parts["texture"])))
    key, sound = store.index()["s3"].key, one.path("s3").read_bytes()
    one.path("s3").write_bytes(sound[:-9] + bytes([sound[-9] ^ 1]) + sound[-8:])
    with pytest.raises(DataFault, match=r"STORE_CORRUPT s3 .*s3.r2g: damaged ones .*--check-contents"):
        one.read("s3", store.regions("s3"), key)
    summary = encode(store, store.studies(), parts, views, check_contents=True)
    assert (summary.counts["repaired"], summary.counts["kept"]) == (1, 7)
    assert one.path("s3").read_bytes() == sound
    one.path("s3").write_bytes(sound[:-9])
    with pytest.raises(ConfigError, match=r"are damaged \(s3\)"):
        data_of(toy, model, store, features="required").train_dataloader()
    one.path("s3").unlink()
    assert encode(store, store.studies(), parts, views).counts["encoded"] == 1


def test_nothing_to_do_opens_no_file(toy, store, monkeypatch):
    model = model_of(toy)
    encode(store, store.studies(), parts_of(model), model.task.views)
    monkeypatch.setattr("reg2rg.store.encoded.verify", lambda path: pytest.fail(f"{path} was read"))
    assert encode(store, store.studies(), parts_of(model), model.task.views).counts == {"kept": 8}


def test_weights_are_hashed_once_for_all_loaders(toy, store, monkeypatch):
    model, hashed = model_of(toy), []
    encode(store, store.studies(), parts_of(model), model.task.views)
    monkeypatch.setattr("reg2rg.models.encoders.settled.facts_of", lambda part: hashed.append(part) or facts_of(part))
    data = data_of(toy, model, store, features="required")
    assert not hashed
    data.train_dataloader(), data.val_dataloader()
    assert len(hashed) == 1


def test_what_parts_have_done_is_not_read_again(toy, store, monkeypatch):
    model = model_of(toy)
    parts, views, studies = parts_of(model), model.task.views, store.studies()
    for part in (1, 2):
        encode(store, studies, parts, views, shard=(part, 2))
    read = []
    monkeypatch.setattr("reg2rg.store.encoded.verify", lambda path: read.append(path.stem) or verify(path))
    assert encode(store, studies, parts, views).counts == {"kept": 8}
    assert not read
    again = encode(store, studies, parts, views, shard=(3, 3), campaign=Campaign("c"), workers=2)
    assert again.counts == {"kept": 8}
    assert set(read) == {*studies} - {*studies[2::3]}  # it did the others' share as well, of which it knew nothing


def test_shards_and_a_run_that_was_ended_leave_the_same_bytes(toy, store, tmp_path, monkeypatch):
    model = model_of(toy)
    parts, views, studies = parts_of(model), model.task.views, store.studies()
    encode(store, studies, parts, views, workers=0)
    whole = {path.name: path.read_bytes() for path in store.root.glob("encoded/texture-*/*")}
    for name in ("ended", "parts"):
        shutil.copytree(toy.store, tmp_path / name)
    ended, in_parts = Store(tmp_path / "ended"), Store(tmp_path / "parts")
    written = EncodedView.write

    def write(self, study, *arguments):
        if study == "s4":
            raise KeyboardInterrupt
        return written(self, study, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(EncodedView, "write", write)
        with pytest.raises(KeyboardInterrupt):
            encode(ended, studies, parts, views, workers=2)
    assert encode(ended, studies, parts, views, workers=2).counts == {"kept": 4, "encoded": 4}
    campaign = Campaign("c")
    first = encode(in_parts, studies, parts, views, shard=(2, 2), campaign=campaign)
    assert first.counts == {"encoded": 8}  # the other has not begun: it does all
    assert encode(in_parts, studies, parts, views, shard=(1, 2), campaign=campaign).counts == {"encoded": 8}
    for other in (ended, in_parts):
        assert {path.name: path.read_bytes() for path in other.root.glob("encoded/texture-*/*")} == whole


def test_a_study_that_cannot_be_read_stops_no_other(toy, store):
    model = model_of(toy)
    path = store.native_path("s5")
    sound = path.read_bytes()
    path.write_bytes(sound[:-3] + bytes([sound[-3] ^ 1]) + sound[-2:])
    summary = encode(store, [f"s{i}" for i in range(8)], parts_of(model), model.task.views, max_skip=0.2)
    assert [(skip.study, skip.code) for skip in summary.skipped] == [("s5", "STORE_CORRUPT")]
    written = json.loads((store.root / "encoded" / "summary.json").read_text())
    assert (written["ready"], written["skipped_by_code"]) == (7, {"STORE_CORRUPT": 1})


def test_what_is_not_legal_is_refused_with_the_reason(toy, store):
    def refused(model, **changes):
        with pytest.raises(ConfigError, match=r"data\.features is required: ") as caught:
            data_of(toy, model, store, features="required", **changes).train_dataloader()
        return str(caught.value)

    assert "no encoder of the model is frozen" in refused(toy.module())
    assert "ToyEncoder is trained" in refused(toy.module())
    dropping = PerceiverResampler(Frozen(vit(), dropout=True), num_latents=3, depth=1, heads=2, head_dim=8)
    assert "Frozen has dropout: true" in refused(model_of(toy, texture=dropping))
    model = model_of(toy)
    assert "no tokens of the texture view by this encoder" in refused(model)
    encode(store, store.studies(), parts_of(model), model.task.views)
    assert "but of other encoders, weights, views or bits (texture-" in refused(model, feature_bits=8)
    data = data_of(toy, model, store, features="required")
    data.augment = object()
    with pytest.raises(ConfigError, match=r"data\.augment changes the scans at every epoch"):
        data.train_dataloader()
    features = Views(size=SIZE, features="somebody")
    with pytest.raises(ConfigError, match="features already"):
        data_of(toy, model, store, features="required", views=features).train_dataloader()
    untold = toy.data(model, features="required")
    with pytest.raises(ConfigError, match="no model said"):
        untold.train_dataloader()


def test_the_part_is_the_outermost_that_nothing_trains():
    frozen = Frozen(vit())
    assert settled_part(PerceiverResampler(frozen, 3, 1, 2, 8)) is frozen
    mean = TokenMean(frozen)
    assert settled_part(mean) is mean
    whole = Frozen(PerceiverResampler(vit(), 3, 1, 2, 8))
    assert settled_part(whole) is whole
    inside = Resize(PerceiverResampler(frozen, 3, 1, 2, 8), (16, 16, 8))
    assert settled_part(inside) == "Resize is trained (expected Frozen around what is not)"
    frozen.encoder.token_norm.weight.requires_grad_(True)
    assert settled_part(mean) == "Frozen has parameters that train"


def test_pooled_regions_take_the_tokens_of_the_image(toy, store):
    torch.manual_seed(2)
    model = toy.module(texture=MaskPool(Frozen(vit())), global_=None, dropout=0.0)
    assert set(parts_of(model)) == {"global"}
    live, _ = losses(model, data_of(toy, model, store, features="never"))
    encode(store, store.studies(), parts_of(model), model.task.views)
    found, _ = losses(model, data_of(toy, model, store, features="required"))
    assert list(found.values()) == pytest.approx(list(live.values()), rel=1e-4)
    reporter = toy.module(texture=MaskPool(Frozen(vit())), global_=Frozen(vit())).reporter
    assert "encoded twice" in settled_views(reporter.texture, reporter.geometry, reporter.global_)["global"]


def test_the_key_holds_all_that_decides_the_tokens():
    def key(encoder, view="texture", bits=16, **changes):
        return Encoding(view, Views(size=SIZE, **changes), facts_of(encoder), bits).key

    def seeded(**changes):
        torch.manual_seed(0)
        return Frozen(vit(**changes))

    plain = key(seeded())
    assert key(seeded()) == plain
    assert key(seeded(dropout=0.3, embedding_dropout=0.0, checkpointing=True)) == plain
    other = seeded()
    other.chunk = 1
    assert key(other) == plain
    with torch.no_grad():
        other.encoder.token_norm.bias[3] += 1e-6
    assert key(other) != plain
    keys = {
        plain,
        key(seeded(shift=0.0)),
        key(seeded(heads=4, head_dim=4)),  # the same weights, split otherwise
        key(seeded(), view="global"),
        key(seeded(), bits=8),
        key(seeded(), window=(-900, 200)),
        key(TokenMean(seeded())),
        key(seeded().double()),
    }
    assert len(keys) == 8


def test_empty_patches_whose_tokens_are_equal_cost_nothing(store):
    one = EncodedView(store, Encoding("texture", Views(size=SIZE), {"tokens": 256, "channels": 32}))
    full, empty = np.random.default_rng(0).normal(size=(2, 1, 256, 32)).astype(np.float32)
    empty[:, 32:] = 0.25  # seven of eight
    sizes = [one.write(f"s{i}", "key", ("heart",), tokens) for i, tokens in enumerate((full, empty))]
    assert sizes[1] < sizes[0] / 4


@pytest.mark.parametrize("bits", [16, 8])
def test_tokens_that_cannot_be_kept_are_refused(store, bits):
    facts = {"tokens": 2, "channels": 3}
    one = EncodedView(store, Encoding("global", Views(size=SIZE), facts, bits))
    with pytest.raises(DataFault, match="NON_FINITE s0: tokens of the global view up to nan"):
        one.write("s0", "key", (), np.full((1, 2, 3), np.nan, np.float32))
    tokens = np.array([[[0, 0, 0], [-2, 1, 0.5]]], np.float32)
    one.write("s0", "key", (), tokens)
    np.testing.assert_allclose(one.read("s0", (), "key"), tokens[0], atol=0.5 * 2 / 127)


@pytest.mark.parametrize("value", typing.get_args(Features))
def test_a_choice_of_tokens_is_a_text_in_a_config_too(value):
    assert yaml.safe_load(f"features: {value}") == {"features": value}, (
        "YAML reads on, off, yes and no as true and false"
    )
