"""Names of TotalSegmentator's classes (its own spelling, package version 2.18), and which label each has.

A file that holds the names is read by them; one file a class is named by them. `VERSION_1` are the 104 classes of its
first version (``--v1_order``), whose numbers mean other organs.
"""

from __future__ import annotations

from collections.abc import Mapping

_ABDOMEN = [
    "spleen",
    "kidney_right",
    "kidney_left",
    "gallbladder",
    "liver",
    "stomach",
    "pancreas",
    "adrenal_gland_right",
    "adrenal_gland_left",
    "lung_upper_lobe_left",
    "lung_lower_lobe_left",
    "lung_upper_lobe_right",
    "lung_middle_lobe_right",
    "lung_lower_lobe_right",
    "esophagus",
    "trachea",
    "thyroid_gland",
    "small_bowel",
    "duodenum",
    "colon",
    "urinary_bladder",
    "prostate",
    "kidney_cyst_left",
    "kidney_cyst_right",
    "sacrum",
]
_VERTEBRAE = [
    f"vertebrae_{part}{number}" for part, count in (("L", 5), ("T", 12), ("C", 7)) for number in range(count, 0, -1)
]
_VESSELS = [
    "aorta",
    "pulmonary_vein",
    "brachiocephalic_trunk",
    "subclavian_artery_right",
    "subclavian_artery_left",
    "common_carotid_artery_right",
    "common_carotid_artery_left",
    "brachiocephalic_vein_left",
    "brachiocephalic_vein_right",
    "atrial_appendage_left",
    "superior_vena_cava",
    "inferior_vena_cava",
    "portal_vein_and_splenic_vein",
    "iliac_artery_left",
    "iliac_artery_right",
    "iliac_vena_left",
    "iliac_vena_right",
]
_LIMBS = [
    f"{bone}_{side}" for bone in ("humerus", "scapula", "clavicula", "femur", "hip") for side in ("left", "right")
]
_MUSCLES = [
    f"{muscle}_{side}"
    for muscle in ("gluteus_maximus", "gluteus_medius", "gluteus_minimus", "autochthon", "iliopsoas")
    for side in ("left", "right")
]
_RIBS = [f"rib_{side}_{number}" for side in ("left", "right") for number in range(1, 13)]

TOTAL: Mapping[str, int] = {
    name: number
    for number, name in enumerate(
        [
            *_ABDOMEN,
            "vertebrae_S1",
            *_VERTEBRAE,
            "heart",
            *_VESSELS,
            *_LIMBS,
            "spinal_cord",
            *_MUSCLES,
            "brain",
            "skull",
            *_RIBS,
            "sternum",
            "costal_cartilages",
        ],
        1,
    )
}
"""Class -> label of the task ``total`` of version 2."""

_HEART = [
    f"heart_{part}" for part in ("myocardium", "atrium_left", "ventricle_left", "atrium_right", "ventricle_right")
]

VERSION_1: Mapping[str, int] = {
    name: number
    for number, name in enumerate(
        [
            *_ABDOMEN[:6],
            "aorta",
            "inferior_vena_cava",
            "portal_vein_and_splenic_vein",
            *_ABDOMEN[6:14],
            *_VERTEBRAE,
            "esophagus",
            "trachea",
            *_HEART,
            "pulmonary_artery",
            "brain",
            *_VESSELS[-4:],
            *_ABDOMEN[17:20],
            *_RIBS,
            *_LIMBS,
            "sacrum",
            "face",
            *_MUSCLES,
            "urinary_bladder",
        ],
        1,
    )
}
"""Class -> label of version 1."""

_RENAMED = dict.fromkeys(_HEART, "heart")


def label_of(name: str) -> int | None:
    """The label of version 2 for a class of either version, ``None`` for a name that is none of theirs."""
    folded = "_".join(name.casefold().replace("-", "_").split())
    return _BY_FOLDED.get(_RENAMED.get(folded, folded))


_BY_FOLDED = {name.casefold(): number for name, number in TOTAL.items()}
