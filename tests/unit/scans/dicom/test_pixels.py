"""Pixels in every transfer syntax that scanners and archives write come out as they went in."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from dicom_files import chest, enhanced, in_ras, pydicom, save, slices, store
from reg2rg.core.errors import DataFault
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.read import read_scan

RAW = (np.hypot(*np.mgrid[:12, :16] - 5.0) * 97 + 900).astype(np.uint16)
SMALL = ReadOptions(min_slices=1, hu="trust", clip=False)
# RAW as other encoders wrote it: imagecodecs 2026.3.6 with liblj92, OpenJPEG 2.5.4 and OpenJPH 0.26.3.
CODESTREAMS = {
    "1.2.840.10008.1.2.4.57": (
        "/9j/xAAbAAEAAwADAQAAAAAAAAAAAAAEBQYCAwcBCf/DAAsMAAwAEAEAEQD/2gAIAQAABgAA+GHX9HqkGZM5a7x2B2R2b2j2n2t1/VqpTqbT"
        "qjVq5XoSFiImMjaPXKrUKZTanWq/Cw8VGRwA1SBrdTpdLq0DDxUcAQiFg4uFrdNo0DGhGQxuHg4DcJgwXWSc8eMYzjPiedT53s0+uTk5OTW9"
        "anJSastyvU/JuatKudHPa5+yWy63S1T0zKyMg5rFXix2u33O522zWCamZWUkZB/YFptlxudyt9qslhnJqXlpOT7ItVuuNzuNwtdoslhnpuZm"
        "JYD/2Q=="
    ),
    "1.2.840.10008.1.2.4.90": (
        "/0//UQApAAAAAAAQAAAADAAAAAAAAAAAAAAAEAAAAAwAAAAAAAAAAAABDwEB/1IADAAAAAEAAAQEAAH/XAAEQID/ZAAlAAFDcmVhdGVkIGJ5"
        "IE9wZW5KUEVHIHZlcnNpb24gMi41LjT/kAAKAAAAAAEZAAH/k8/8NQcRUFSv/31hrAAAAAGEhKMVdQAxVgAAYR/nIGI+xIXHXe6MMPpnH0F7"
        "UZhNLjU7cVOisXUly2Co3lD1PtJB8T9wCUr6ec7G8Rk9+ntMmjM4z/8IPrn/ZoHPFl97c5ru58KBF76kCmoONaD2yNh/UmMv0wjq5Bx8jz5x"
        "iHY9E5sxZYYSW8bDXwJIlMC7LcCOuBA8fBBkA/qZ6HP/YYAQAj1FNG9dnkiBBU5F7YS146iVsLGw3styCyVTGaNkFZkduz3ifkVPpu9+kc5l"
        "MQ8KBwtrtVVb2Eq/hACDl70+RTsF1FhaLziSg/idhuFK9GdPmCSNttW+/dcMko2d9oa97kV9+ZZOlmZXf//Z"
    ),
    "1.2.840.10008.1.2.4.201": (
        "/0//UQApQAAAAAAQAAAADAAAAAAAAAAAAAAAEAAAAAwAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQ"
        "kJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAQEAAf+TwAAmp/UFB3QAAMAAEsAAEsAAEgDhAAd0AOUBB3QAAEd0"
        "AMAAFTAABNAABMCFE/AL9wEGtACpmwBiNAAj4gGBdADAABaUAAFpQAAVoLvA7tdhh7tKR0j+J9wQAPeXALvcoLfGZ2vRFg3aAr3OCDOXAJfa"
        "M1gAWesGfzYLlgDAAC6mAAF1kAALWFcfsR/3gYDKFnGXpscR4fMtkujZouhptkDAhvo2OEayhojoQllUl50A1xXdFdfP852RHumREb0kB0cB"
        "FQAGgAXUwXHYh/hDkBB5AY/rVpuJws4LnwAH8hAlRpTACQD8IPPXuOsix4nSFnwA/9k="
    ),
}


def plain(count=9):
    """Slices that all have the pixels RAW."""
    return slices(np.repeat(RAW.T[:, :, None], count, 2).astype(np.int32) - 1024)


@pytest.mark.parametrize("syntax", CODESTREAMS)
def test_what_other_encoders_wrote(tmp_path, syntax) -> None:
    if not pydicom.pixels.get_decoder(syntax).is_available:
        pytest.skip(f"no decoder of {pydicom.uid.UID(syntax).name}")
    series = plain()
    for one in series:
        one.file_meta.TransferSyntaxUID = syntax
        one.PixelData = pydicom.encaps.encapsulate([base64.b64decode(CODESTREAMS[syntax])])
        one["PixelData"].VR, one["PixelData"].is_undefined_length = "OB", True
    scan = read_scan(save(series, tmp_path), SMALL)
    assert np.array_equal(scan.volume.array[:, :, 4], in_ras(RAW.T.astype(np.int16) - 1024))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", ["RLELossless", "JPEGLSLossless"])
def test_what_pydicom_encodes(tmp_path, syntax, signed) -> None:
    uid, series = getattr(pydicom.uid, syntax), slices()
    if not pydicom.pixels.get_encoder(uid).is_available:
        pytest.skip(f"no decoder of {uid.name}")
    for k, one in enumerate(series):
        if signed:
            store(one, chest()[:, :, k], slope=1, inter=0, signed=True)
        one.compress(uid, generate_instance_uid=False)
    assert np.array_equal(read_scan(save(series, tmp_path), ReadOptions()).volume.array, in_ras(chest()))


@pytest.mark.parametrize("syntax", ["DeflatedExplicitVRLittleEndian", "ImplicitVRLittleEndian", "ExplicitVRBigEndian"])
def test_uncompressed_in_every_form(tmp_path, syntax) -> None:
    series = slices()
    for one in series:
        one.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
        if syntax == "ExplicitVRBigEndian":
            one.PixelData = np.frombuffer(one.PixelData, "<u2").astype(">u2").tobytes()
    assert np.array_equal(read_scan(save(series, tmp_path), ReadOptions()).volume.array, in_ras(chest()))


def test_enhanced_and_compressed(tmp_path) -> None:
    whole = enhanced(slices())
    whole.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
    assert np.array_equal(read_scan(save([whole], tmp_path), ReadOptions()).volume.array, in_ras(chest()))


def test_twelve_bits_with_junk_above_and_signs_not_extended(tmp_path) -> None:
    series, random = slices(), np.random.default_rng(0)
    for k, one in enumerate(series):
        store(one, chest()[:, :, k], signed=k % 2 == 1)
        one.BitsStored, one.HighBit = 12, 11
        raw = np.frombuffer(one.PixelData, "<u2") & 0x0FFF
        one.PixelData = (raw | (random.integers(0, 16, raw.shape).astype(np.uint16) << 12)).tobytes()
    assert np.array_equal(read_scan(save(series, tmp_path), ReadOptions()).volume.array, in_ras(chest()))


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.110"])  # MPEG-4, JPEG XL
def test_no_decoder_is_said_by_name(tmp_path, syntax) -> None:
    series = plain()
    for one in series:
        one.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"
        one.PixelData = pydicom.encaps.encapsulate([bytes(2)])
        one["PixelData"].VR, one["PixelData"].is_undefined_length = "OB", True
    for file in save(series, tmp_path).iterdir():
        file.write_bytes(file.read_bytes().replace(b"1.2.840.10008.1.2.4.102", syntax.encode()))
    with pytest.raises(DataFault, match=r"CODEC .*pixels in .*, for which no decoder is installed") as caught:
        read_scan(tmp_path, SMALL)
    assert pydicom.uid.UID(syntax).name in str(caught.value)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_file_cut_short(tmp_path, share) -> None:
    save(slices(), tmp_path)
    file = min(tmp_path.iterdir())
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    with pytest.raises(DataFault, match=r"CORRUPT .*export or download the file again"):
        read_scan(tmp_path, ReadOptions())
