"""What is done to whom: the interventions, the studies, and who gives the tokens that are swapped in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reg2rg.core.errors import ConfigError
from reg2rg.core.registry import did_you_mean
from reg2rg.evaluation.labelers.base import Labeler

SAME, SWAP, MIXED, BLANK, NOISE = "same", "swap", "mixed", "blank", "noise"
DILATED, ERODED, SHIFTED, MIRRORED = "dilated", "eroded", "shifted", "mirrored"
NO_GLOBAL, NO_IMAGE = "no_global", "no_image"

INTERVENTIONS: Mapping[str, str] = {
    SAME: "nothing is changed: the report is written again, in another batch (the noise floor of every other row)",
    SWAP: "one region's tokens are those of another patient's region of the same name",
    MIXED: "one region keeps its own texture and has the geometry of another patient",
    BLANK: "one region's tokens are those of an empty view: air, and an empty mask (a full one where tokens are "
    "pooled under it)",
    NOISE: "one region's tokens are those of a view of white noise",
    DILATED: "one region's mask is grown",
    ERODED: "one region's mask is shrunk",
    SHIFTED: "one region's mask is moved towards the patient's left",
    MIRRORED: "one region's mask is mirrored left to right, at the middle of the cropped scan",
    NO_GLOBAL: "the tokens of the whole image are those of an empty image",
    NO_IMAGE: "all tokens are those of an empty image; the names of the regions are given",
}
"""Name -> what it does. Each but the last two, and the first, is done to one region at a time."""

MASKS = (DILATED, ERODED, SHIFTED, MIRRORED)
DONATED = (SWAP, MIXED)


@dataclass(frozen=True, slots=True)
class Case:
    """One study of an audit.

    Attributes:
        study: its id.
        patient: whose it is.
        references: region -> text, for the regions that are prompted; ``""`` for one without a text.
    """

    study: str
    patient: str
    references: Mapping[str, str]


def chosen_interventions(names: Sequence[str] | None, able: Sequence[str], why: str) -> tuple[str, ...]:
    """The interventions that are made, in the order of `INTERVENTIONS`.

    Args:
        names: those asked for; all that can be made if ``None``.
        able: those that can be made of this model and these data.
        why: the others cannot.

    Raises:
        ConfigError: an unknown name, or one that cannot be made.
    """
    asked = tuple(able) if names is None else tuple(names)
    for name in asked:
        if name not in INTERVENTIONS:
            raise ConfigError(
                f"intervention '{name}': there is no such one.{did_you_mean(name, list(INTERVENTIONS))} Known: "
                f"{', '.join(INTERVENTIONS)}."
            )
        if name not in able:
            raise ConfigError(f"intervention '{name}' cannot be made here: {why}. Fix: leave it out")
    return tuple(name for name in INTERVENTIONS if name in asked)


def donors_of(cases: Sequence[Case], labeler: Labeler, seed: int) -> dict[str, dict[str, str]]:
    """Who gives each region of each study its tokens in a swap.

    A donor is another patient with the same region, drawn by (seed, study, region) among those whose reference states
    other findings there; where there is none, among all. So swaps can tell something, and the choice depends on
    references alone, not on what the model writes.

    Args:
        cases: all studies of the audit.
        labeler: reads the references.
        seed: of the draws.

    Returns:
        study -> region -> donor's study; a region that no other patient has is left out.
    """
    labels = labels_of(labeler, (text for case in cases for text in case.references.values()))
    stated = {text: row.tobytes() for text, row in labels.items()}
    found: dict[str, dict[str, str]] = {}
    for case in cases:
        own = found[case.study] = {}
        for region, text in case.references.items():
            others = [one for one in cases if one.patient != case.patient and region in one.references]
            telling = [one for one in others if stated[one.references[region]] != stated[text]]
            if pool := telling or others:
                names = sorted(one.study for one in pool)
                own[region] = names[int(drawn(seed, case.study, region).integers(len(names)))]
    return found


def labels_of(labeler: Labeler, texts: Iterable[str]) -> dict[str, NDArray[np.bool_]]:
    """Text -> its (L,) labels, all read at once; the empty text is there and has none."""
    written = [text for text in dict.fromkeys(texts) if text]
    return {"": np.zeros(len(labeler.labels), bool)} | dict(zip(written, labeler.label(written), strict=True))


def drawn(seed: int, *names: str) -> np.random.Generator:
    """A generator that depends on the seed and on names alone."""
    key = hashlib.sha256("\0".join(names).encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(key[:8], "big")])
