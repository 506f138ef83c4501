import json
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from reg2rg.core.errors import ConfigError
from reg2rg.core.report import Written, parse_report
from reg2rg.core.types import RegionVolume, Volume
from reg2rg.show.case_page import PageStudy, how_written, write_page, written_notes
from reg2rg.show.plots import draw_curves
from reg2rg.show.slices import draw_study
from reg2rg.show.table import make_table
from reg2rg.training.curves import read_curves

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = "Fine </script><script>document.title='owned'</script> & <b>bold</b>."


def page_study(name="study_1"):
    array = np.full((24, 20, 12), -900, np.int16)
    heart = np.zeros(array.shape, bool)
    heart[4:12, 5:12, 2:6] = True
    lung = np.zeros(array.shape, bool)
    lung[14:22, 5:15, 5:11] = True
    array[heart] = 40
    images = draw_study(RegionVolume(Volume(array, np.diag([3.0, 3.0, 5.0, 1.0])), {"heart": heart, "lung": lung}))
    report = parse_report(f"The region 0 is lung: {HOSTILE} The region 1 is heart: Large. ", ["lung", "heart"])
    return PageStudy(
        name, ("lung", "heart"), report, {"lung": "Clear.", "heart": "Large."}, images, {"Cardiomegaly": (True, True)}
    )


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "page.html"
    frame = pd.DataFrame({"step": [1, 2, 3], "train/loss": [3.0, 2.0, 1.0]})
    write_page(
        path,
        title="A <page>",
        studies=[page_study(), page_study("study_2")],
        tables=[make_table("summary", "Summary", ("model", "F1"), [("ours", 0.5), ("floor", None)], ["What it is."])],
        curves=draw_curves({"run": frame}, {"loss": ("train/loss",)}),
        facts={"seed": "0"},
    )
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


def test_page_names_no_other_place(page):
    html = page.read_text(encoding="utf-8")
    addresses = set(re.findall(r"""(?:https?:)?//[\w.-]+""", html))
    # Names of XML dialects in the drawing; nothing is fetched from them.
    assert {a for a in addresses if "w3.org" not in a and "purl.org" not in a and "creativecommons" not in a} <= {
        "http://matplotlib.org",
        "https://matplotlib.org",
    }
    assert "default-src 'none'" in html


def test_report_text_cannot_leave_its_place(page):
    html = page.read_text(encoding="utf-8")
    assert "<script>document.title" not in html
    data = json.loads(html.partition('id="data">')[2].partition("</script>")[0])
    assert data["studies"][0]["slots"][0]["predicted"]["text"] == HOSTILE


def test_page_is_the_same_for_the_same_input(page, tmp_path):
    before = page.read_bytes()
    frame = pd.DataFrame({"step": [1, 2, 3], "train/loss": [3.0, 2.0, 1.0]})
    write_page(
        page,
        title="A <page>",
        studies=[page_study(), page_study("study_2")],
        tables=[make_table("summary", "Summary", ("model", "F1"), [("ours", 0.5), ("floor", None)], ["What it is."])],
        curves=draw_curves({"run": frame}, {"loss": ("train/loss",)}),
        facts={"seed": "0"},
    )
    assert page.read_bytes() == before


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


def dom(page, fragment=""):
    """The page's elements after its script ran, in a browser that has no network."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={page.parent / 'profile'}"]
    command += ["--virtual-time-budget=3000", "--dump-dom", f"file://{page}{fragment}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_paragraph_lights_up_its_region_in_a_browser(page):
    html = dom(page, "#study=1&region=heart")
    assert re.search(r'id="axial"[^>]*data-index="\d+"[^>]*data-region="heart"', html)
    assert re.search(r'class="slot on"[^>]*data-region="heart"', html) or re.search(
        r'data-region="heart"[^>]*class="slot on"', html
    )
    assert len(re.findall(r'<path[^>]*class="on"|<path[^>]*data-region="heart"[^>]*class="on"', html)) == 2
    assert html.count('class="side r"') == 2
    assert html.count('class="side l"') == 2
    assert "<title>A &lt;page&gt;</title>" in html


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_tabs_open_by_address_in_a_browser(page):
    html = dom(page, "#tab=scores")
    assert re.search(r'<section id="studies" hidden', html)
    assert re.search(r'<section id="scores">', html)
