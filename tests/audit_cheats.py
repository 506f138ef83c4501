"""Small generators with the interface that an audit uses: an honest one, and four that cheat."""

from __future__ import annotations

import numpy as np

from reg2rg.audit.plan import INTERVENTIONS, MASKS, Case
from reg2rg.audit.subject import GEOMETRY, TEXTURE, Emptiness, StudyTokens
from reg2rg.core.regions import load_region_set

REGIONS = ("heart", "lung", "pleura", "mediastinum")
SAYS = {
    "heart": ("The heart is enlarged.", "The heart has normal size."),
    "lung": ("A nodule is seen in the right upper lobe.", "The lungs are clear."),
    "pleura": ("Pleural effusion on the left.", "The pleura is unremarkable."),
    "mediastinum": ("Enlarged lymph nodes are seen.", "No enlarged lymph nodes."),
}
"""Region -> what is written where its finding is there, and where it is not."""


def cases(studies=40, seed=0):
    """Studies of which each region has its finding with a chance of a third."""
    there = np.random.default_rng(seed).random((studies, len(REGIONS))) < 1 / 3
    return [
        Case(
            f"s{i:02}",
            f"p{i:02}",
            {name: SAYS[name][0 if found else 1] for name, found in zip(REGIONS, row, strict=True)},
        )
        for i, row in enumerate(there.tolist())
    ]


class Honest:
    """Texture tokens say which region it is and whether its finding is there; so does its paragraph."""

    region_set = load_region_set("radgenome")

    def __init__(self, studies):
        self.cases = studies
        self.studies = {case.study: case for case in studies}
        orders = {one: np.random.default_rng(int(one[1:])).permutation(REGIONS).tolist() for one in self.studies}
        self.orders = {study: tuple(names) for study, names in orders.items()}
        self.reads = []

    def facts(self):
        return {"model": type(self).__name__}

    def able(self):
        return tuple(name for name in INTERVENTIONS if name not in MASKS), "stand-ins have no masks"

    def order(self, study):
        return self.orders[study]

    def there(self, study, region):
        return self.studies[study].references[region] == SAYS[region][0]

    def read(self, study):
        self.reads.append(study)
        order = self.order(study)
        texture = [[[1.0 + REGIONS.index(name), 1.0 if self.there(study, name) else -1.0]] for name in order]
        image = [[1.0 if self.there(study, name) else -1.0 for name in REGIONS]]
        own = {TEXTURE: np.array(texture, np.float32), GEOMETRY: np.zeros((len(order), 1, 2), np.float32)}
        return StudyTokens(study, order, own, np.array(image, np.float32))

    def empty(self):
        nothing = np.zeros((1, 2), np.float32)
        return Emptiness({TEXTURE: nothing, GEOMETRY: nothing}, np.zeros((1, len(REGIONS)), np.float32))

    def noise(self, study, generator):
        return {
            name: {part: generator.standard_normal((1, 2)).astype(np.float32) for part in (TEXTURE, GEOMETRY)}
            for name in self.order(study)
        }

    def altered(self, study, how):
        raise AssertionError("no masks")

    def write(self, tokens, named=False):
        return [tuple(self.paragraph(one, slot) for slot in range(len(one.regions))) for one in tokens]

    def paragraph(self, tokens, slot):
        return SAYS[tokens.regions[slot]][0 if tokens.own[TEXTURE][slot, 0, 1] > 0 else 1]


class RemembersOrder(Honest):
    """Knows each study by the order of its regions, and writes what it has learned by heart."""

    def __init__(self, studies):
        super().__init__(studies)
        self.known = {order: study for study, order in self.orders.items()}

    def paragraph(self, tokens, slot):
        name = tokens.regions[slot]
        return SAYS[name][0 if self.there(self.known[tokens.regions], name) else 1]


class Commonest(Honest):
    """Writes the commonest paragraph of each region."""

    def paragraph(self, tokens, slot):
        return SAYS[tokens.regions[slot]][1]


class Leaks(Honest):
    """Says of each region what is in it or in the one beside it."""

    def paragraph(self, tokens, slot):
        beside = (slot + 1) % len(tokens.regions)
        found = max(tokens.own[TEXTURE][[slot, beside], 0, 1]) > 0
        return SAYS[tokens.regions[slot]][0 if found else 1]


class ReadsGlobal(Honest):
    """Takes everything from the tokens of the whole image."""

    def paragraph(self, tokens, slot):
        name = tokens.regions[slot]
        return SAYS[name][0 if tokens.image[0, REGIONS.index(name)] > 0 else 1]
