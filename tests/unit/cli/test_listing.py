from __future__ import annotations

import ast
import inspect
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import reg2rg.extras.peers  # noqa: F401 (registers the encoders of other systems)
from reg2rg.cli.listing import summary
from reg2rg.cli.main import main
from reg2rg.cli.trainer import component_registries
from reg2rg.config.overlay import packaged_configs
from reg2rg.config.sources import Argument, _nested, components, constructor_arguments
from reg2rg.core.regions import packaged_region_sets
from reg2rg.core.registry import Registry, load_plugins
from reg2rg.data.datamodule import RegionReportDataModule
from reg2rg.evaluation.labelers import LABELERS
from reg2rg.evaluation.labelers.radbert import RadBertLabeler  # noqa: F401 (registers itself)
from reg2rg.evaluation.metrics.base import METRICS, metric_classes
from reg2rg.inference.exporters import EXPORTERS
from reg2rg.models.llm.causal_lm import LoRA
from reg2rg.runners import RUNNERS
from reg2rg.scans.read import READERS
from reg2rg.scans.segmenters import SEGMENTERS
from reg2rg.show.page_exporter import Page


def all_registries() -> tuple[Registry[Any], ...]:
    load_plugins()
    metric_classes()  # registers them
    assert Page.__name__ in EXPORTERS  # it registers itself where it is imported
    return (*component_registries(), METRICS, LABELERS, RUNNERS, READERS, SEGMENTERS, EXPORTERS)


def test_the_list_equals_the_registries() -> None:
    load_plugins()
    listed = {(item.kind, item.name) for item in components() if item.module.startswith("reg2rg.")}
    registered = {
        (registry.kind, name)
        for registry in all_registries()
        for name in registry
        if registry.get(name).__module__.startswith("reg2rg.")
    }
    assert listed == registered
    assert len(listed) > 8


def test_arguments_and_first_lines_equal_the_classes() -> None:
    registries = {registry.kind: registry for registry in all_registries()}
    for item in components():
        if not item.module.startswith("reg2rg."):
            continue
        cls = registries[item.kind].get(item.name)
        assert item.summary == (inspect.getdoc(cls) or "").splitlines()[0]
        assert [argument.name for argument in item.arguments] == list(inspect.signature(cls).parameters)


def test_arguments_of_the_datamodule() -> None:
    listed = [argument.name for argument in constructor_arguments("reg2rg.data.datamodule", "RegionReportDataModule")]
    assert listed == list(inspect.signature(RegionReportDataModule).parameters)


def test_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "encoders"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("encoder\n")
    assert "\n  CNN3D: " in text
    assert "\n      size: " in text
    assert "RadGenome" not in text
    assert main(["list", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert {"kind", "name", "summary", "arguments", "module"} <= set(table["components"][0])
    assert set(table["configs"]) == set(packaged_configs())
    assert set(table["region_sets"]) == set(packaged_region_sets())


def test_fields_of_a_record_stand_below_its_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "llm"]) == 0
    shown = capsys.readouterr().out
    lora = ("      lora: LoRA | None = None", "          rank: PositiveInt = 8", "          alpha: PositiveFloat = 32")
    assert "\n".join(lora) in shown
    (llm,) = [item for item in components() if item.name == "CausalLM"]
    nested = {argument.name: [field.name for field in argument.arguments] for argument in llm.arguments}
    assert nested["lora"] == [field.name for field in fields(LoRA)]
    assert nested["path"] == []


def test_a_record_of_another_module_is_found() -> None:
    tree = ast.parse("from reg2rg.models.llm.adapters import LoRA, with_adapters\nfrom elsewhere import Other")
    nested = _nested(Argument("adapters", "dict[str, LoRA] | None", ""), tree).arguments
    assert [field.name for field in nested] == [field.name for field in fields(LoRA)]
    for annotation in ("Other", "CausalLM", "str | None"):
        assert not _nested(Argument("one", annotation, ""), tree).arguments


@pytest.mark.parametrize("kind", ["region_set", "region-sets"])
def test_region_sets(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", kind]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("region_set\n  lobes: ")
    assert "\n  radgenome: 10 regions\n" in shown
    assert "\n      right lower lobe (also lung lower lobe right, lower lobe right, RLL): 1 label(s) of Total" in shown
    assert "\n      pleura (also pleurae, pleural): no label(s) of TotalSegmentator\n" in shown
    assert "CNN3D" not in shown


@pytest.mark.parametrize("name", packaged_configs())
def test_every_packaged_config_says_what_it_is(name: str) -> None:
    assert len(summary(name)) > 20


def test_a_plugin_is_listed_without_being_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    info = tmp_path / "acme_listed-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme_listed\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[reg2rg.plugins]\nacme = acme_listed.parts\n")
    (tmp_path / "acme_listed").mkdir()
    (tmp_path / "acme_listed" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (tmp_path / "acme_listed" / "parts.py").write_text(
        "from reg2rg.models.encoders import ENCODERS, Encoder\n\n@ENCODERS.register\nclass AcmeListed(Encoder):\n"
        '    """From a plug-in."""\n\n    def __init__(self, width: int = 3): ...\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["list", "encoder"]) == 0
    assert "  AcmeListed: From a plug-in.\n      width: int = 3\n" in capsys.readouterr().out
