"""Scans and data brought to a contract: nothing lost where nothing need be, refused where it cannot be done."""

import dataclasses
import itertools
import logging
import re

import numpy as np
import pytest

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.regions import Region, RegionSet, load_region_set
from reg2rg.core.types import RegionVolume, Volume
from reg2rg.data.datamodule import RegionReportDataModule
from reg2rg.pretrained.contract import InputContract
from reg2rg.pretrained.input_adapter import ConformedViews, check_regions, conform, conform_data, views_of
from reg2rg.store.views import Views

ORIENTATIONS = [
    "".join(letters) for order in itertools.permutations(("RL", "AP", "SI")) for letters in itertools.product(*order)
]


def ramp(shape=(14, 11, 9), affine=None):
    """HU that grow linearly along all three patient axes, and a mask that is a half of the patient."""
    affine = np.diag([1.5, 2.0, 3.0, 1.0]) if affine is None else affine
    affine = np.array(affine, np.float64)
    affine[:3, 3] = -20, 7, 3
    return RegionVolume(Volume(hu(shape, affine), affine), {"heart": world(shape, affine)[0] > -10}, ("a note",))


def world(shape, affine):
    """(3, H, W, D) patient coordinates of every voxel."""
    indices = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), 0)
    return np.einsum("ij,jhwd->ihwd", affine[:3, :3], indices) + affine[:3, 3, None, None, None]


def hu(shape, affine):
    x, y, z = world(shape, affine)
    return np.asfortranarray(np.rint(10 * x - 7 * y + 5 * z).astype(np.int16))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_keeps_every_voxel_in_its_place(orientation):
    import nibabel as nib

    given = ramp()
    turned = conform(given, orientation)
    assert "".join(nib.orientations.aff2axcodes(turned.volume.affine)) == orientation
    assert np.array_equal(turned.volume.array, hu(turned.volume.array.shape, turned.volume.affine))
    assert np.array_equal(turned.masks["heart"], world(turned.volume.array.shape, turned.volume.affine)[0] > -10)
    back = conform(turned, "RAS")
    assert np.array_equal(back.volume.array, given.volume.array)
    assert np.allclose(back.volume.affine, given.volume.affine)
    assert turned.notes == ("a note",)


def test_the_same_orientation_copies_nothing():
    given = ramp()
    assert np.shares_memory(conform(given, "RAS").volume.array, given.volume.array)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 2.5, 1.2), (0.7, 4.0, 3.0), (1.5, 2.0, 6.0)])
def test_another_spacing_keeps_the_place_and_the_values(spacing):
    given = ramp()
    found = conform(given, "RAS", spacing)
    shape, affine = found.volume.array.shape, found.volume.affine
    assert np.allclose(found.volume.spacing, spacing)
    assert np.allclose(np.array(shape) * spacing, np.array(given.volume.array.shape) * given.volume.spacing, atol=4)
    # A linear field is what linear interpolation gives back, except beyond the outermost old voxels.
    x, y, z = coordinates = world(shape, affine)
    low, high = given.volume.affine[:3, 3], (given.volume.affine @ [*(np.array(given.volume.array.shape) - 1), 1])[:3]
    inside = np.all([(c >= a) & (c <= b) for c, a, b in zip(coordinates, low, high, strict=True)], axis=0)
    assert inside.mean() > 0.4
    assert np.abs(found.volume.array - (10 * x - 7 * y + 5 * z))[inside].max() <= 1.5  # rounded after each axis
    wrong = found.masks["heart"] != (x > -10)
    assert not wrong[np.abs(x + 10) > 0.75].any()
    assert found.notes[-1] == f"resampled from 1.5 x 2 x 3 to {' x '.join(f'{mm:g}' for mm in spacing)} mm"


def test_almost_the_same_spacing_is_left_alone():
    given = ramp()
    assert np.shares_memory(conform(given, "RAS", (1.51, 1.99, 3.02)).volume.array, given.volume.array)
    assert conform(given, "RAS", (1.53, 2, 3)).volume.array.shape == (14, 11, 9)  # as many voxels, another size


def test_oblique_scans_stay_oblique():
    turn = np.eye(4)
    turn[:3, :3] = [[0.98, -0.2, 0], [0.2, 0.98, 0], [0, 0, 1]]
    given = ramp(affine=turn @ np.diag([1.5, 1.5, 3, 1]))
    found = conform(given, "LPS", (3, 3, 3))
    assert np.allclose(found.volume.spacing, 3, atol=1e-6)
    x, y, z = world(found.volume.array.shape, found.volume.affine)
    middle = (slice(1, -1),) * 3
    assert np.abs(found.volume.array - (10 * x - 7 * y + 5 * z))[middle].max() <= 2.5


def test_absurd_sizes_are_refused():
    with pytest.raises(DataFault, match="TOO_LARGE"):
        conform(ramp(), "RAS", (1e-3, 1e-3, 1e-3))


def test_conformed_views_are_those_of_the_conformed_scan():
    given = ramp((30, 28, 20))
    plain = Views((8, 8, 4), (-200, 200))
    contract = InputContract(
        load_region_set(), size=(8, 8, 4), window=(-200, 200), orientation="LPS", spacing=(3, 3, 3)
    )
    views = views_of(contract)
    assert isinstance(views, ConformedViews)
    assert views.key != plain.key  # baked views of the unconformed scan are not taken for these
    found, wanted = views.compute(given), plain.compute(conform(given, "LPS", (3, 3, 3)))
    for name in ("texture", "geometry", "global_"):
        assert np.array_equal(getattr(found, name), getattr(wanted, name))
        assert not np.array_equal(getattr(found, name), getattr(plain.compute(given), name))
    assert views_of(InputContract(load_region_set(), size=(8, 8, 4), window=(-200, 200))) == plain


def test_a_region_that_vanishes_at_the_spacing_is_a_fault():
    given = ramp((30, 28, 20))
    masks = {"heart": given.masks["heart"], "thyroid": np.zeros(given.volume.array.shape, bool)}
    masks["thyroid"][4, 4, 4] = True
    views = ConformedViews((8, 8, 4), spacing=(9, 9, 9))
    with pytest.raises(DataFault, match=r"NO_REGION.*thyroid lost every voxel"):
        views.compute(RegionVolume(given.volume, masks), ["thyroid"])


def data_of(toy, model, **changes):
    options = {"workers": 0, "views": Views(size=(16, 16, 8)), "instruction": "Report.", "max_length": 512}
    return RegionReportDataModule(
        toy.dataset(), str(toy.store), model.tokenizer, model.token_counts, **(options | changes)
    )


@pytest.fixture
def wanted(model, predict):
    made = model()
    return made, predict(made)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"views": Views((16, 16, 8), (-500, 900))}, r"views\.window from \(-500, 900\) to \(-1000, 200\)"),
        ({"views": Views((32, 8, 8))}, r"views\.size from \(32, 8, 8\) to \(16, 16, 8\)"),
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


def test_without_a_contract_other_settings_do_matter(wanted, predict):
    made, answers = wanted
    made.contract = None
    assert predict(made, views=Views((16, 16, 8), (-500, 900))) != answers
    with pytest.raises(ValueError, match="size"):
        predict(made, views=Views((32, 8, 8)))


def test_data_that_agree_are_left_alone(wanted, toy, predict, caplog):
    made, answers = wanted
    assert predict(made) == answers
    assert "contract" not in caplog.text
    data = RegionReportDataModule(toy.dataset(), str(toy.store), str(toy.lm), made.token_counts, workers=0,
                                  views=Views((16, 16, 8)), instruction="Report.")  # fmt: skip
    assert conform_data(made.contract, data, made.tokenizer, made.token_counts) == []
    assert data.tokenizer is made.tokenizer


def test_a_stated_spacing_acts_in_predict(wanted, predict, caplog):
    made, answers = wanted
    made.contract = dataclasses.replace(made.contract, spacing=(1.0, 1.0, 1.0))
    assert predict(made) == answers  # the toy's scans have that
    made.contract = dataclasses.replace(made.contract, spacing=(2.0, 2.0, 2.0))
    assert predict(made) != answers
    assert "orientation and spacing from ('RAS', None) to ('RAS', (2.0, 2.0, 2.0))" in caplog.text


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


def test_fewer_regions_stay_fewer_and_their_order_is_the_models(model, toy, tmp_path):
    (tmp_path / "two.yaml").write_text("name: two\nregions: [lung, heart]\n")
    made = model()
    data = data_of(toy, made, regions=str(tmp_path / "two.yaml"), test_regions="all")
    said = conform_data(made.contract, data, made.tokenizer, made.token_counts)
    assert said == ["regions from ['lung', 'heart'] to ['heart', 'lung']"]
    assert data.region_set.names == ("heart", "lung")
    data.setup("predict")
    assert all(entry.regions == ("heart", "lung") for entry in data.entries("test", True))
