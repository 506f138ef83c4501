import base64
import io

import numpy as np
import pytest
from PIL import Image

from reg2rg.core.types import RegionVolume, Volume
from reg2rg.show.slices import HU_RANGE, draw_study


@pytest.fixture
def study():
    """Air, with a bright block that is right, front and head; RAS axes."""
    array = np.full((20, 16, 10), -1000, np.int16)
    mask = np.zeros(array.shape, bool)
    mask[15:19, 11:15, 6:9] = True
    array[mask] = 100
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    return RegionVolume(Volume(array, affine), {"block": mask, "air": ~mask})


def pixels(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_axial_slices_are_radiological(study):
    view = draw_study(study).planes["axial"]
    picture = pixels(view.images[view.best["block"]])
    rows, columns = np.nonzero(picture > picture.min())
    assert picture.shape == (16, 20)
    assert columns.max() < 10, "the patient's right belongs on the left of the picture"
    assert rows.max() < 8, "front belongs up"


def test_coronal_slices_are_radiological(study):
    view = draw_study(study).planes["coronal"]
    picture = pixels(view.images[view.best["block"]])
    rows, columns = np.nonzero(picture > picture.min())
    assert picture.shape == (10, 20)
    assert columns.max() < 10
    assert rows.max() < 5, "head belongs up"


def test_aspect_ratio_is_in_millimetres(study):
    planes = draw_study(study).planes
    assert (planes["axial"].width, planes["axial"].height) == (40.0, 48.0)
    assert (planes["coronal"].width, planes["coronal"].height) == (40.0, 40.0)


def test_outline_runs_around_the_mask_in_the_pictures_frame(study):
    view = draw_study(study).planes["axial"]
    outline = view.outlines[view.best["block"]]["block"]
    numbers = np.array([float(word) for word in outline.replace("M", " ").replace("L", " ").replace("Z", " ").split()])
    x, y = numbers[::2], numbers[1::2]
    # Columns 20 - 19 .. 20 - 15, rows 16 - 15 .. 16 - 11.
    assert (x.min(), x.max(), y.min(), y.max()) == (1.0, 5.0, 1.0, 5.0)


def test_slices_without_the_region_have_no_outline(study):
    view = draw_study(study).planes["axial"]
    assert "block" not in view.outlines[view.middle]


def test_window_follows_what_the_region_is_made_of(study):
    assert draw_study(study).window == {"block": "soft", "air": "lung"}


def test_grey_levels_span_the_stated_range(study):
    view = draw_study(study).planes["axial"]
    low, high = HU_RANGE
    picture = pixels(view.images[view.best["block"]]).astype(float)
    step = (high - low) / 255
    assert picture.max() * step + low == pytest.approx(100, abs=step)
    assert picture.min() * step + low == pytest.approx(-1000, abs=step)


def test_large_pictures_are_thinned(study):
    view = draw_study(study, max_pixels=10).planes["axial"]
    assert view.pixels == (10, 8)
    assert pixels(view.images[view.middle]).shape == (8, 10)
