import json
import re
import time
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from browser import CHROMIUM, SOFTWARE_GL, WITHOUT_GL, Browser
from dicom_results import TOLD
from reg2rg.core.errors import ConfigError
from reg2rg.core.report import Report, Written, parse_report
from reg2rg.core.types import RegionVolume, Volume
from reg2rg.show.case_page import (
    PALETTE,
    Around,
    PageStudy,
    RegionRow,
    how_written,
    room_for_volumes,
    write_page,
    written_notes,
    wrong_count,
)
from reg2rg.show.page_exporter import Page
from reg2rg.show.plots import draw_curves
from reg2rg.show.slices import draw_study
from reg2rg.show.table import make_table
from reg2rg.show.volume import draw_volume
from reg2rg.testing.exporters import sample_result
from reg2rg.training.curves import read_curves

HOSTILE = "Fine </script><script>document.title='owned'</script> & <b>bold</b>."
AFFINE = np.array([[3.0, 0, 0, -40], [0, 3.0, 0, -30], [0, 0, 5.0, 100], [0, 0, 0, 1]])
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


def scan():
    """The heart lies on the patient's left, in front, in the mediastinum; the lung on the right."""
    array = np.full((40, 32, 24), -1000, np.int16)
    array[4:36, 4:28] = 30
    masks = {name: np.zeros(array.shape, bool) for name in ("lung", "mediastinum", "heart")}
    masks["lung"][24:34, 8:24, 8:22] = True
    masks["mediastinum"][6:20, 6:26, 6:20] = True
    masks["heart"][7:15, 17:25, 7:13] = True
    array[masks["lung"]] = -850
    return RegionVolume(Volume(array, AFFINE), masks)


def page_study(name="study_1", said=HOSTILE, volume=True):
    study = scan()
    report = parse_report(f"The region 0 is lung: {said} The region 1 is heart: Large heart. ", ["lung", "heart"])
    other = parse_report("The region 0 is lung: Nodule in the right lung. ", ["lung", "heart"])
    return PageStudy(
        name,
        ("lung", "heart"),
        report,
        {"lung": "Nodule in the left lung.", "heart": "Large heart."},
        draw_study(study),
        {"Cardiomegaly": (True, True)},
        others=(other,),
        volume=draw_volume(study, 10**6) if volume else None,
        regions=(
            *(RegionRow(name, "given", volume_ml=12.34, mean_hu=-12.3, sd_hu=4.5) for name in study.masks),
            RegionRow("thyroid", "absent", "no mask of it", there=False),
        ),
        files={"json": '{"study": "ü"}\n', "txt": "lung: Fine.\n"},
        told=TOLD if name == "study_1" else None,
    )


def write(path):
    frame = pd.DataFrame({"step": [1, 2, 3], "train/loss": [3.0, 2.0, 1.0]})
    around = Around(
        tables=[make_table("summary", "Summary", ("model", "F1"), [("ours", 0.5), ("floor", None)], ["What it is."])],
        curves=draw_curves({"run": frame}, {"loss": ("train/loss",)}),
        facts={"seed": "0"},
        models=("ours", "theirs"),
        chosen="By hand.",
    )
    studies = [page_study(), page_study("study_2", "Nodule in the left lung."), page_study("study_3", volume=False)]
    write_page(path, title="A <page>", studies=studies, around=around)
    return path


def test_how_a_paragraph_came_by_its_name_in_words():
    shares = {"heart": 0.9, "lung": 0.06, "bone": 0.04}
    assert how_written(Written(0, "heart", shares)) == "called heart with referring probability 0.90 (lung 0.06)"
    assert (
        how_written(Written(0, "lung", shares, forced=True))
        == "name given, with referring probability 0.06 (heart 0.90)"
    )
    assert (
        how_written(Written(0, "heart", {"heart": 1.0}, truncated=True))
        == "called heart with referring probability 1.00; cut short"
    )
    assert how_written(Written(0, "heart", truncated=True)) == "cut short"
    assert written_notes([Written(0, "heart")]) == []
    assert len(written_notes([Written(0, "heart", shares, True)])) == 2


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write(tmp_path_factory.mktemp("page") / "page.html")


class Elements(HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self, html):
        super().__init__()
        self.tags = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_page_names_no_other_place(page):
    html = page.read_text(encoding="utf-8")
    for _, attributes in Elements(html).tags:
        for name in ("href", "src", "xlink:href", "action", "data"):
            assert (attributes.get(name) or "#").startswith("#"), attributes
    assert not re.search(r"@import|url\((?!#)", html)
    assert "default-src 'none'" in html


def test_report_text_cannot_leave_its_place(page):
    html = page.read_text(encoding="utf-8")
    assert "<script>document.title" not in html
    data = json.loads(html.partition('id="data">')[2].partition("</script>")[0])
    marks = data["studies"][0]["slots"][0]["said"][0]["marks"]
    assert " ".join(text for text, _, _ in marks) == HOSTILE


def test_page_is_the_same_for_the_same_input(page, tmp_path):
    assert write(tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_what_is_wrong_is_counted():
    assert wrong_count(page_study(said="Nodule in the left lung.")) == 0
    assert wrong_count(page_study(said="Nodule in the right lung.")) == 2  # the sentence, and the reference's
    silent = PageStudy(
        "s", ("lung",), Report(()), {"lung": "x"}, draw_study(scan()), {"A": (True, False), "B": (None, True)}
    )
    assert wrong_count(silent) == 2  # no paragraph, and a finding that was missed


def test_page_of_a_noisy_scan_keeps_to_its_size(tmp_path):
    result = sample_result()
    array = np.random.default_rng(0).normal(0, 300, (160, 160, 80)).astype(np.int16)
    masks = {name: np.zeros(array.shape, bool) for name in ("heart", "lung")}
    masks["heart"][20:60, 20:60, 20:60] = masks["lung"][90:140, 20:120, 20:60] = True
    source = RegionVolume(Volume(array, np.diag([2.0, 2.0, 3.0, 1.0])), masks)
    object.__setattr__(result, "source", source)
    [path] = Page(max_mb=2.0).write(result, tmp_path)
    assert 1_200_000 < path.stat().st_size <= 2_000_000
    assert "means over voxels of" in path.read_text(encoding="utf-8")
    [small] = Page(viewer=False, max_pixels=32).write(result, tmp_path / "without")
    assert small.stat().st_size < 150_000


def test_room_for_volumes_leaves_what_the_rest_needs():
    assert room_for_volumes(1e6, [draw_study(scan())]) == 0
    assert 6.0e6 < room_for_volumes(10e6, []) < 6.6e6


# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
DEUTERANOPIA = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
PROTANOPIA = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]


@pytest.mark.parametrize(("eye", "least"), [(np.eye(3), 22), (DEUTERANOPIA, 12.9), (PROTANOPIA, 12.9)])
def test_colours_of_regions_stay_apart(eye, least):
    rgb = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in PALETTE])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lab = to_lab(np.clip(linear @ np.array(eye).T, 0, 1))
    apart = [delta_e(lab[i], lab[j]) for i in range(12) for j in range(i)]
    assert min(apart) >= least
    assert lab[:, 0].min() > 30  # seen on a dark scan


def to_lab(linear):
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    xyz = linear @ np.array(to_xyz).T / [0.95047, 1, 1.08883]
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


def delta_e(one, other):
    """CIEDE2000."""
    chroma = (np.hypot(*one[1:]) + np.hypot(*other[1:])) / 2
    more = 1 + 0.5 * (1 - np.sqrt(chroma**7 / (chroma**7 + 25**7)))
    a, b = np.array([one[1], other[1]]) * more, np.array([one[2], other[2]])
    C, h = np.hypot(a, b), np.degrees(np.arctan2(b, a)) % 360
    turn = (h[1] - h[0] + 180) % 360 - 180
    dL, dC, dH = other[0] - one[0], C[1] - C[0], 2 * np.sqrt(C[0] * C[1]) * np.sin(np.radians(turn / 2))
    L, C, h = (one[0] + other[0]) / 2, C.mean(), (h[0] + turn / 2) % 360
    cos = lambda degrees: np.cos(np.radians(degrees))  # noqa: E731
    T = 1 - 0.17 * cos(h - 30) + 0.24 * cos(2 * h) + 0.32 * cos(3 * h + 6) - 0.2 * cos(4 * h - 63)
    SL, SC, SH = 1 + 0.015 * (L - 50) ** 2 / np.sqrt(20 + (L - 50) ** 2), 1 + 0.045 * C, 1 + 0.015 * C * T
    RT = -2 * np.sqrt(C**7 / (C**7 + 25**7)) * np.sin(np.radians(60 * np.exp(-(((h - 275) / 25) ** 2))))
    return np.sqrt((dL / SL) ** 2 + (dC / SC) ** 2 + (dH / SH) ** 2 + RT * dC / SC * dH / SH)


def test_curves_of_a_resumed_run_are_joined(tmp_path):
    for version, (steps, losses) in enumerate([([1, 2, 3], [9.0, 8.0, 7.0]), ([3, 4], [6.5, 6.0])]):
        folder = tmp_path / f"version_{version}"
        folder.mkdir()
        pd.DataFrame({"step": steps, "train/loss": losses}).to_csv(folder / "metrics.csv", index=False)
    joined = read_curves(tmp_path)
    assert joined["step"].tolist() == [1, 2, 3, 4]
    assert joined["train/loss"].tolist() == [9.0, 8.0, 6.5, 6.0]


def test_missing_curves_say_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match=r"runs: not found .* Fix: run `reg2rg fit` first"):
        read_curves(tmp_path / "runs")


# ---- in a browser, with WebGL in software


@pytest.fixture(scope="module")
def chromium(page):
    with Browser(*SOFTWARE_GL) as browser:
        browser.open(page)
        browser.wait("document.body.dataset.viewer")
        yield browser


@pytest.fixture
def opened(chromium):
    """The page as it was opened; whatever a test did, the console stays clean and nothing is asked for."""
    chromium.resize(1280, 900)
    chromium.js("$('find').value = state.words = ''; $('wrong').checked = state.wrong = false")
    chromium.js("openTab('studies'); scrollTo(0, 0); $('window-auto').click(); showStudy(0)")
    chromium.wait("live")
    assert chromium.js("document.body.dataset.viewer") == "live"
    yield chromium
    assert chromium.console == []
    assert chromium.requests == []


def crosshair(browser):
    """Index in the scan, asked of the viewer itself: from the mm that it shows."""
    mm = browser.js("[...viewer.nv.frac2mm(viewer.nv.scene.crosshairPos, 0, true)].slice(0, 3)")
    return tuple(np.rint(np.linalg.solve(AFFINE, [*mm, 1])[:3]).astype(int))


def press(browser, selector):
    """Click with the mouse in the middle of an element."""
    box = browser.js(
        f"(n => {{ const r = n.getBoundingClientRect(); return [r.x, r.y, r.width, r.height]; }})({selector})"
    )
    browser.click(box[0] + box[2] / 2, box[1] + box[3] / 2)


@in_a_browser
def test_a_click_on_a_paragraph_moves_the_crosshair_into_its_region(opened):
    masks = scan().masks
    for slot, region in enumerate(("lung", "heart")):
        press(opened, f"document.querySelectorAll('.slot')[{slot}]")
        at = crosshair(opened)
        assert masks[region][at]
        assert opened.js("viewer.where().map((v, i) => v + viewer.info.first[i])") == list(at)
        assert opened.js("state.region") == region
        assert opened.js("viewer.hu(viewer.where())") == (-850 if region == "lung" else 30)
        assert opened.js("document.querySelector('.slot.on').dataset.region") == region
        assert opened.js("document.querySelector('#regions tr.on button').getAttribute('aria-pressed')") == "true"
    # The heart's window is that of soft tissue, and the numbers stand there.
    assert opened.js("[viewer.nv.volumes[0].cal_min, viewer.nv.volumes[0].cal_max]") == [-160, 240]
    assert opened.js("document.getElementById('level').textContent") == "W 400 L 40"
    said = opened.js("document.getElementById('where').textContent")
    x, y, z = (AFFINE @ [*at, 1])[:3]
    assert said == f"L {-x:.1f}  A {y:.1f}  S {z:.1f} mm · 30 HU · mediastinum, heart"
    assert opened.js("document.getElementById('at-axial').textContent") == f"{at[2] + 1} of 24"
    assert opened.js("location.hash") == "#study=study_1&region=heart"


@in_a_browser
def test_a_click_in_the_picture_leads_to_the_paragraph(opened):
    # A place of the axial picture that the viewer itself says shows the lung.
    place = opened.js("""(() => {
        const nv = viewer.nv, rect = nv.canvas.getBoundingClientRect(), dpr = nv.uiData.dpr;
        const tile = nv.screenSlices.findIndex(t => t.axCorSag === 0);
        const [left, top, width, height] = nv.screenSlices[tile].leftTopWidthHeight;
        for (let x = left + 2; x < left + width; x += 3) for (let y = top + 2; y < top + height; y += 3) {
            const frac = nv.screenXY2TextureFrac(x, y, tile);
            const at = viewer.info.shape.map((n, i) => Math.floor(frac[i] * n));
            if (viewer.regions(at).includes("lung")) return [rect.x + x / dpr, rect.y + y / dpr, (x - left) / width];
        }
    })()""")
    assert place[2] < 0.5  # the patient's right is on the left
    opened.click(place[0] + 9, place[1])
    opened.wait("state.region === 'lung'", 5)
    assert scan().masks["lung"][crosshair(opened)]
    assert opened.js("document.querySelector('.slot.on').dataset.region") == "lung"


@in_a_browser
def test_orientation_is_radiological_and_marked(opened):
    ends = opened.js("""viewer.nv.screenSlices.filter(t => t.axCorSag < 2).map(tile => {
        const index = viewer.nv.screenSlices.indexOf(tile), [left, top, width, height] = tile.leftTopWidthHeight;
        return [left + 2, left + width - 2].map(x => viewer.nv.screenXY2TextureFrac(x, top + height / 2, index)[0]);
    })""")
    assert len(ends) == 2
    for left, right in ends:
        assert left > 0.9  # RAS: the first axis grows to the patient's right
        assert right < 0.1
    options = "viewer.nv.opts.isOrientationTextVisible && viewer.nv.opts.showAllOrientationMarkers"
    assert opened.js(options) is True


@in_a_browser
def test_keys_go_through_paragraphs_studies_and_windows(opened):
    names = []
    for key in "nnnp":
        opened.key(key)
        names.append(opened.js("state.region"))
    assert names == ["lung", "heart", "lung", "heart"]
    opened.key("2")
    assert opened.js("document.getElementById('level').textContent") == "W 1500 L -600"
    before = crosshair(opened)
    opened.js("document.getElementById('gl').focus()")
    opened.key("ArrowUp", code="ArrowUp", windowsVirtualKeyCode=38)
    assert crosshair(opened) == (*before[:2], before[2] + 1)
    opened.key("+")
    assert opened.js("viewer.nv.scene.pan2Dxyzmm[3]") == 1.25
    opened.key("]")
    opened.wait("live && state.study === 1")
    assert opened.js("document.querySelector('.slot').textContent").startswith("lung 12 ml · −12 ± 4 HU")
    opened.key("]")
    assert opened.js("document.getElementById('thinned').textContent").startswith("Of this study the page holds static")
    assert opened.js("getComputedStyle(document.querySelector('.planes')).display") == "grid"


@in_a_browser
def test_search_and_what_is_wrong(opened):
    assert opened.js("[...document.querySelectorAll('.slot')[0].querySelectorAll('.mark')].map(n => n.title)") == [
        "the reference does not say it",
        "another side; the reference says: Nodule in the left lung.",
        "the prediction does not say it",
    ]
    opened.js("document.getElementById('wrong').click()")
    assert opened.js("[...document.querySelectorAll('#pick option')].map(o => o.hidden)") == [False, True, False]
    assert opened.js("[...document.querySelectorAll('.slot')].map(n => n.dataset.region)") == ["lung"]
    opened.js("document.getElementById('wrong').click()")
    opened.key("/")
    opened.call("Input.insertText", text="LARGE")
    assert opened.js("[...document.querySelectorAll('.slot')].map(n => n.dataset.region)") == ["heart"]
    assert opened.js("[...document.querySelectorAll('mark')].map(n => n.textContent)") == ["Large", "Large"]


@in_a_browser
def test_the_dial_says_which_findings_count_and_leaves_the_text(opened):
    def shown():
        cards = "[...document.querySelectorAll('.slot')]"
        return opened.js(f"{cards}.map(n => [...n.querySelectorAll('.heads li')].map(i => [i.title, i.className]))")

    said, text = (
        "document.getElementById('from-said').textContent",
        opened.js("$('slots').querySelector('p').textContent"),
    )
    nodule, large = "probability 0.82", "probability 0.31"
    wanting = ", the paragraph may leave it out"
    assert shown() == [[[f"{nodule}, counts{wanting}", "on"]], [[large, ""]]]
    assert (
        opened.js(said)
        == "as the report was made (f1, named in the prompt): 1 counts. The text stays as it was written."
    )
    assert opened.js("[...document.querySelectorAll('.review')].map(n => n.textContent)") == [TOLD.mark("lung")]

    def turn(value):
        opened.js(f"$('from').value = {value}; $('from').dispatchEvent(new Event('input'))")

    turn(7)
    low = [["probability 0.07, counts", "on"]]
    assert shown() == [[[f"{nodule}, counts{wanting}", "on"], *low], [[f"{large}, counts", "on"]]]
    turn(90)
    assert shown() == [[[f"{nodule}{wanting}", ""]], [[large, ""]]]
    assert opened.js(said) == "probability 0.90: 0 count. The text stays as it was written."
    assert opened.js("$('slots').querySelector('p').textContent") == text
    turn(-1)
    opened.js("showStudy(1)")  # whose model has no head
    assert opened.js("[$('dial').hidden, document.querySelectorAll('.heads').length]") == [True, 0]


@in_a_browser
def test_a_link_opens_a_study_at_a_region(opened):
    opened.js("location.hash = '#study=study_2&region=heart'")
    opened.wait("live && state.study === 1 && state.region === 'heart'")
    opened.wait("viewer.regions(viewer.where()).includes('heart')", 10)
    opened.js("location.hash = '#tab=scores'")
    opened.wait("document.getElementById('studies').hidden", 5)
    assert opened.js("document.querySelector('[data-tab=scores]').getAttribute('aria-selected')") == "true"


@in_a_browser
def test_report_can_be_saved(opened, tmp_path):
    opened.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    for kind, content in (("json", '{"study": "ü"}\n'), ("txt", "lung: Fine.\n")):
        opened.js(f"document.querySelector('[data-download={kind}]').click()")
        path = tmp_path / f"study_1.{kind}"
        end = time.monotonic() + 10
        while not path.is_file() and time.monotonic() < end:
            opened.js("1")
            time.sleep(0.05)
        assert path.read_text(encoding="utf-8") == content


@in_a_browser
def test_on_a_phone_the_region_of_a_paragraph_is_in_sight(opened):
    opened.resize(390, 844, mobile=True)
    assert opened.js("document.documentElement.scrollWidth") == 390
    opened.js("document.querySelectorAll('.slot')[1].scrollIntoView()")
    press(opened, "document.querySelectorAll('.slot')[1].querySelector('button')")
    assert opened.js("state.region") == "heart"
    top, bottom = opened.js("(r => [r.top, r.bottom])(document.getElementById('gl').getBoundingClientRect())")
    assert 0 <= top < bottom <= opened.js("document.querySelectorAll('.slot')[1].getBoundingClientRect().top") < 844


@in_a_browser
def test_on_paper_there_are_pictures(opened):
    opened.call("Emulation.setEmulatedMedia", media="print")
    shown = opened.js("['.planes', '#screen', '.bar'].map(q => getComputedStyle(document.querySelector(q)).display)")
    opened.call("Emulation.setEmulatedMedia", media="")
    assert shown == ["grid", "none", "none"]


@in_a_browser
def test_without_webgl_there_are_pictures(page):
    with Browser(*WITHOUT_GL) as browser:
        browser.open(page, "#study=study_2&region=heart")
        browser.wait("document.body.dataset.viewer")
        assert browser.js("document.body.dataset.viewer") == "static"
        assert browser.js("document.getElementById('thinned').textContent").startswith("This browser has no WebGL 2")
        browser.wait("document.getElementById('axial').dataset.region === 'heart'")
        assert browser.js("document.querySelectorAll('.stage path.on').length") == 2
        assert browser.js("[...document.querySelectorAll('.side.r, .side.l')].length") == 4
        assert browser.js("document.querySelector('figcaption').textContent") == (
            "axial, slice 8 of 24, soft tissue W 400 L 40: heart"
        )
        browser.js("document.querySelectorAll('.slot')[0].click()")
        browser.wait("document.getElementById('axial').dataset.region === 'lung'")
        assert browser.js("document.title") == "A <page>"
        assert browser.console == []
        assert browser.requests == []
