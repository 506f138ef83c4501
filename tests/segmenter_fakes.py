"""What TotalSegmentator 2.18.0 and lungmask 0.2.22 take and give, as recorded; the parts that segmenters call alone.

Lungs are what is from -900 to -600 HU, the heart what is above 20 HU: enough to see whether labels land in place.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Extension

from reg2rg.scans.class_names import TOTAL

CLASS_MAP = {
    "total": {label: name for name, label in TOTAL.items()},
    "breasts": {1: "breast"},
    "trunk_cavities": {1: "abdominal_cavity", 2: "thoracic_cavity", 3: "pericardium", 4: "mediastinum"},
    "lung_vessels": {1: "lung_airways", 2: "lung_airways_wall", 3: "lung_arteries", 4: "lung_veins"},
}
VERSIONS = {"TotalSegmentator": "2.18.0", "nnunetv2": "2.8.1", "batchgenerators": "0.25.5", "lungmask": "0.2.22"}


class Calls:
    """What was asked of a fake.

    Attributes:
        made: (task, keyword arguments) of each call.
        loaded: folders of models, in the order of loading.
    """

    def __init__(self) -> None:
        self.made: list[tuple[str, dict[str, Any]]] = []
        self.loaded: list[str] = []
        self.shift = 0.0
        self.error: BaseException | None = None


def _lung(array: np.ndarray) -> np.ndarray:
    return (array > -900) & (array < -600)


def _label_table(task: str) -> bytes:
    labels = "".join(f'<Label Key="{key}" Red="1" Green="0" Blue="0" Alpha="1"><![CDATA[{name}]]></Label>'
                     for key, name in CLASS_MAP[task].items())  # fmt: skip
    return f'<?xml version="1.0" encoding="UTF-8"?><CaretExtension><LabelTable>{labels}</LabelTable>'.encode()


def totalsegmentator(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Put the fake package in place."""
    calls = Calls()

    class nnUNetPredictor:
        def __init__(self, tile_step_size: float = 0.5, perform_everything_on_device: bool = True) -> None:
            self.network = self.plans_manager = None
            self.device = "cuda"

        def initialize_from_trained_model_folder(
            self, model_training_output_dir: str, use_folds: Any, checkpoint_name: str = "checkpoint_final.pth"
        ) -> None:
            calls.loaded.append(model_training_output_dir)
            self.network = object()
            self.plans_manager = model_training_output_dir

    def run(
        input: nib.Nifti1Image, output: None = None, ml: bool = False, task: str = "total", fast: bool = False,
        skip_saving: bool = False, quiet: bool = False, device: str = "gpu",
    ) -> nib.Nifti1Image:  # fmt: skip
        calls.made.append((task, {"ml": ml, "fast": fast, "skip_saving": skip_saving, "device": device}))
        if calls.error is not None:
            raise calls.error
        from totalsegmentator import nnunet

        predictor = nnunet.nnUNetPredictor(tile_step_size=0.5)
        predictor.initialize_from_trained_model_folder(f"{task}{'_fast' if fast else ''}", use_folds=[0])
        assert predictor.network is not None
        assert predictor.device == "cuda"
        array = np.asarray(input.dataobj)
        labels = np.zeros(array.shape, np.uint8)
        if task == "total":
            labels[_lung(array)] = TOTAL["lung_upper_lobe_left"]
            labels[: len(labels) // 2][_lung(array[: len(labels) // 2])] = TOTAL["lung_lower_lobe_right"]
            labels[array > 20] = TOTAL["heart"]
        else:
            labels[array > 100] = max(CLASS_MAP[task])
        found = nib.Nifti1Image(labels, input.affine + calls.shift)
        found.header.extensions.append(Nifti1Extension(0, _label_table(task)))
        return found

    package = {
        name: ModuleType(f"totalsegmentator.{name}") for name in ("python_api", "config", "nnunet", "map_to_binary")
    }
    package["python_api"].totalsegmentator = run
    package["config"].setup_nnunet = lambda: None
    package["nnunet"].nnUNetPredictor = nnUNetPredictor
    package["map_to_binary"].class_map = CLASS_MAP
    _install(monkeypatch, "totalsegmentator", package)
    return calls


def lungmask(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Put the fake package in place."""
    calls = Calls()

    class LMInferer:
        def __init__(
            self, modelname: str = "R231", modelpath: str | None = None, fillmodel: str | None = None,
            fillmodel_path: str | None = None, force_cpu: bool = False, batch_size: int = 20,
            volume_postprocessing: bool = True, tqdm_disable: bool = False,
        ) -> None:  # fmt: skip
            calls.loaded.append(modelname)
            self.lobes = modelname == "LTRCLobes"

        def apply(self, image: np.ndarray) -> np.ndarray:
            """(slices, front to back, right to left); 1 is the right lung, or 1 and 2 are the left lobes."""
            calls.made.append((str(image.shape), {"dtype": image.dtype, "contiguous": image.flags.c_contiguous}))
            if calls.error is not None:
                raise calls.error
            labels = np.zeros(image.shape, np.uint8)
            half = image.shape[2] // 2
            air = _lung(image)
            labels[:, :, :half][air[:, :, :half]] = 3 if self.lobes else 1
            labels[:, :, half:][air[:, :, half:]] = 1 if self.lobes else 2
            return labels

    _install(monkeypatch, "lungmask", {}, LMInferer=LMInferer)
    return calls


def _install(monkeypatch: pytest.MonkeyPatch, name: str, modules: dict[str, ModuleType], **attributes: Any) -> None:
    from reg2rg.scans.segmenters import lungmask, totalsegmentator

    package = ModuleType(name)
    for word, value in {**modules, **attributes}.items():
        setattr(package, word, value)
    monkeypatch.setitem(sys.modules, name, package)
    for word, module in modules.items():
        monkeypatch.setitem(sys.modules, f"{name}.{word}", module)
    for module in (lungmask, totalsegmentator):
        monkeypatch.setattr(module, "installed_version", lambda package, extra: VERSIONS[package])
