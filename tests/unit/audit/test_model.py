"""A trained model as an audit sees it: from its own tokens comes the report that the model writes itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from reg2rg.audit.masks import altered_mask
from reg2rg.audit.model import ModelSubject, paragraphs_at_slots
from reg2rg.audit.records import AuditFolder
from reg2rg.audit.run import audit
from reg2rg.core.errors import ConfigError
from reg2rg.evaluation.labelers import RuleLabeler
from reg2rg.scans.boxed import RegionMask


@pytest.fixture(scope="module")
def subject(toy):
    model = toy.module(dropout=0.0, max_new_tokens=16).eval()
    return ModelSubject(model, toy.data(model), "test")


def test_it_writes_what_the_model_writes(subject):
    data, model = subject.data, subject.model
    tokens = {case.study: subject.read(case.study) for case in subject.cases}
    written = dict(zip(tokens, subject.write(list(tokens.values())), strict=True))
    for batch in data.texts_dataloader("test"):
        for answer in model.reporter.generate(data.on_after_batch_transfer(batch, 0), model.decoding):
            assert tokens[answer.study].regions == answer.regions
            assert written[answer.study] == paragraphs_at_slots(answer.text, len(answer.regions))


def test_tokens_are_those_of_one_pass(subject):
    one = subject.read("s7")
    assert set(one.own) == {"texture", "geometry"}
    assert one.own["texture"].shape == (3, 2, 32)
    assert one.image.shape == (2, 32)
    batch = subject._batch([subject._sample("s7")])
    with torch.no_grad():
        table = subject.model.reporter.visual_table(batch)
    torch.testing.assert_close(subject._table([one]), table)


def test_a_mask_that_is_not_changed_gives_the_same_tokens(subject, monkeypatch):
    monkeypatch.setattr("reg2rg.audit.model.altered_detail", lambda detail, region, how: detail)
    one, again = subject.read("s7"), subject.altered("s7", "shifted")
    for slot, name in enumerate(one.regions):
        for part in one.own:
            np.testing.assert_allclose(again[name][part], one.own[part][slot], atol=1e-5)


def test_every_intervention_is_made(subject, tmp_path):
    records = audit(subject, RuleLabeler(), AuditFolder(tmp_path))
    assert [record.study for record in records] == ["s6", "s7"]
    made = {trial.intervention for record in records for trial in record.trials}
    assert made == set(subject.able()[0]) - {"eroded", "shifted"}  # nothing is left of so small a region
    assert all(not t.changed for record in records for t in record.trials if t.intervention == "same")
    assert any(trial.changed for record in records for trial in record.trials if trial.intervention != "same")
    assert audit(subject, RuleLabeler(), AuditFolder(tmp_path)) == records


def test_what_the_model_does_not_see_cannot_be_changed(toy):
    model = toy.module(texture=None, global_=None, max_new_tokens=8).eval()
    able, why = ModelSubject(model, toy.data(model)).able()
    assert not {"mixed", "no_global"} & set(able)
    assert "does not see the whole image" in why
    blind = toy.module(texture=None, geometry=None, global_=toy.encoder(), target="joined", max_new_tokens=8).eval()
    with pytest.raises(ConfigError, match=r"this model has none \(task.target 'joined'"):
        ModelSubject(blind, toy.data(blind), "train")


def test_paragraphs_go_by_their_slots():
    text = (
        "The region 1 is lung: Clear. The region 0 is liver: Large.  The region 1 is lung: Again. The region 7 is x: y"
    )
    assert paragraphs_at_slots(text, 3) == ("Large.", "Clear.", "")


AFFINE = np.diag([2.0, 1.0, 4.0, 1.0])


def boxed(*spans, shape=(12, 12, 8)):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*span) for span in spans)] = True
    return RegionMask.of(mask)


def test_masks_change_in_millimetres():
    mask = boxed((4, 8), (4, 8), (2, 6))
    grown = altered_mask(mask, (12, 12, 8), AFFINE, "dilated", 4.0)
    assert grown.box == ((2, 10), (0, 12), (1, 7))
    shrunk = altered_mask(mask, (12, 12, 8), AFFINE, "eroded", 1.5)
    assert shrunk.box == ((4, 8), (5, 7), (2, 6))
    assert altered_mask(mask, (12, 12, 8), AFFINE, "eroded", 50.0) is None
    assert altered_mask(mask, (12, 12, 8), AFFINE, "shifted", 6.0).box == ((1, 5), (4, 8), (2, 6))
    flipped = AFFINE * [[-1], [1], [1], [1]]  # the first axis of the file runs to the left
    assert altered_mask(mask, (12, 12, 8), flipped, "shifted", 6.0).box == ((7, 11), (4, 8), (2, 6))
    assert altered_mask(mask, (12, 12, 8), AFFINE, "shifted", 12.0).box == ((0, 2), (4, 8), (2, 6))  # cut at the edge
    assert altered_mask(mask, (12, 12, 8), AFFINE, "shifted", 40.0) is None
    low = replace(mask, box=((1, 5), *mask.box[1:]))
    assert altered_mask(low, (12, 12, 8), AFFINE, "mirrored", 0.0).box == ((7, 11), (4, 8), (2, 6))
    with pytest.raises(ValueError, match="'bent'"):
        altered_mask(mask, (12, 12, 8), AFFINE, "bent", 1.0)
