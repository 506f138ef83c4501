"""Data brought to a model's task, or refused where that cannot be done."""

import dataclasses
import logging
import re

import pytest

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.regions import Region, RegionSet, load_region_set
from reg2rg.core.task import Views, check_regions


@pytest.fixture
def wanted(model, predict):
    made = model()
    return made, predict(made)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"views": Views((16, 16, 8), (-500, 900))}, r"views\.window from \[-500, 900\] to \[-1000, 200\]"),
        ({"views": Views((32, 8, 8))}, r"views\.size from \[32, 8, 8\] to \[16, 16, 8\]"),
        ({"views": Views((16, 16, 8), coupled=True)}, r"views\.coupled from True to False"),
        ({"identity": False}, "identity from False to True"),
        ({"instruction": "Sing."}, r"instruction from Sing\. to Report\."),
    ],
)
def test_other_settings_are_brought_to_the_contract(wanted, predict, caplog, changes, said):
    made, answers = wanted
    with caplog.at_level(logging.WARNING):
        assert predict(made, **changes) == answers
    assert re.search(said, caplog.text)
    with pytest.raises(ConfigError, match=r"of another task than the model: .*Fix: .*model\.conform"):
        predict(made, conform=False, **changes)


def test_without_a_contract_the_models_own_task_holds(wanted, predict):
    made, answers = wanted
    made.contract = None
    assert predict(made, views=Views((16, 16, 8), (-500, 900))) == answers
    made.task = dataclasses.replace(made.task, views=Views((16, 16, 8), (-500, 900)))
    assert predict(made) != answers


def test_data_that_agree_are_left_alone(wanted, predict, data_of, caplog):
    made, answers = wanted
    assert predict(made, conform=False) == answers
    data = data_of(made)
    assert made.conform(data).task == data.task
    assert "contract" not in caplog.text


def test_the_given_data_stay_as_they_were(model, data_of):
    made = model()
    data = data_of(made, views=Views((8, 8, 8)), order="listed", max_length=400)
    data.setup("predict")
    entries = data.entries("test")
    conformed = made.conform(data)
    assert (data.task.views.size, data.entries("test")) == ((8, 8, 8), entries)
    assert (conformed.task.views, conformed.task.order, conformed.task.max_length) == (made.task.views, "listed", 400)
    assert conformed.encoder is not data.encoder


def test_other_words_are_refused_and_brought_over(model, data_of, toy):
    from transformers import AutoTokenizer

    made = model()
    strange = AutoTokenizer.from_pretrained(str(toy.lm))
    strange.add_tokens(["<strange>"])
    data = data_of(made, tokenizer=strange)
    made.trainer = type("Trainer", (), {"datamodule": data, "strategy": None, "callbacks": []})()
    with pytest.raises(ConfigError, match="another task than the model: tokenizer"):
        made.setup("predict")
    made.trainer.datamodule = made.conform(data)
    made.setup("predict")


def test_a_stated_spacing_acts_in_predict(wanted, predict, caplog):
    made, answers = wanted

    def state(spacing):
        views = dataclasses.replace(made.contract.task.views, spacing=spacing)
        made.contract = dataclasses.replace(made.contract, task=dataclasses.replace(made.contract.task, views=views))

    state((1.0, 1.0, 1.0))
    assert predict(made) == answers  # the toy's scans have that
    state((2.0, 2.0, 2.0))
    assert predict(made) != answers
    assert "views.spacing from None to [2.0, 2.0, 2.0]" in caplog.text


def test_a_store_of_other_views_alone_is_refused_with_the_reason(model, toy, predict, tmp_path):
    from reg2rg.store.store import Store

    made, wide = model(), Views((16, 16, 8), (-500, 900))
    for views, name in ((wide, "wide"), (Views((16, 16, 8)), "right")):
        given, store = Store(toy.store), Store(tmp_path / name)
        for study in given.studies():
            store.write(study, "key", given.read(study).detail, views, native=False)
        store.write_index()
    toy_store, toy.store = toy.store, tmp_path / "wide"
    try:
        with pytest.raises(DataFault, match=r"views alone .*none of these settings"):
            predict(made, views=wide)
        toy.store = tmp_path / "right"
        right = predict(made, views=wide)
    finally:
        toy.store = toy_store
    assert right == predict(made)


def test_another_region_set_is_refused_with_the_reason(model, predict):
    made = model()
    with pytest.raises(ConfigError, match=r"'lobes' of the data has left upper lobe.*cannot be brought"):
        predict(made, regions="lobes")
    one, more = load_region_set(), RegionSet("more", (*load_region_set().regions, Region("spleen")))
    with pytest.raises(ConfigError, match="has spleen, which the model was not trained on"):
        check_regions(more, one)
    check_regions(one, more)


def test_fewer_regions_stay_fewer_and_their_order_is_the_models(model, data_of, tmp_path, caplog):
    (tmp_path / "two.yaml").write_text("name: two\nregions: [lung, heart]\n")
    made = model()
    data = made.conform(data_of(made, regions=str(tmp_path / "two.yaml"), test_regions="all"))
    assert "regions from ['lung', 'heart'] to ['heart', 'lung']" in caplog.text
    assert data.task.region_set.names == ("heart", "lung")
    data.setup("predict")
    assert all(entry.regions == ("heart", "lung") for entry in data.entries("test", True))
