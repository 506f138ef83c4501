"""Small made-up cohorts of reports by region, and a labeler that is plain to see, for tests of evaluation."""

import numpy as np

from reg2rg.core.regions import load_region_set
from reg2rg.core.report import write_report
from reg2rg.evaluation.engine import Settings, evaluate
from reg2rg.evaluation.labelers import Labeler
from reg2rg.evaluation.protocols import PROTOCOLS
from reg2rg.evaluation.reading import Reports, pair_texts

SET = load_region_set("radgenome")
WORDS = ("nodule", "effusion", "calcification")
REGIONS = ("heart", "lung", "pleura")
SENTENCES = (
    "A nodule of 8 mm is seen.",
    "Effusion on both sides.",
    "Calcification of the wall.",
    "Everything is normal here.",
    "A nodule beside an effusion.",
)


class Words(Labeler):
    """Labels by substring: enough to test counting."""

    name, definition, labels = "words", "a label is present if its word is", WORDS

    def label(self, texts):
        return np.asarray([[word in text.lower() for word in WORDS] for text in texts], dtype=bool).reshape(
            -1, len(WORDS)
        )


def study(name, order, references, predictions, named=None):
    reference = write_report(order, references)
    keep = [(named or order)[i] for i, text in enumerate(predictions) if text is not None]
    slots = [i for i, text in enumerate(predictions) if text is not None]
    told = " ".join(
        f"The region {slot} is {region}: {predictions[slot]}" for slot, region in zip(slots, keep, strict=True)
    )
    return pair_texts(name, name.rpartition("_")[0], reference, told, SET)


def cohort(seed=0, studies=12, quality=0.6):
    generator = np.random.default_rng(seed)
    pairs = []
    for i in range(studies):
        order = tuple(generator.permutation(REGIONS))
        references = [str(text) for text in generator.choice(SENTENCES, 3)]
        predictions = [
            text if generator.random() < quality else str(generator.choice(SENTENCES)) for text in references
        ]
        pairs.append(study(f"p{i // 2}_{i}", order, references, predictions))
    return Reports(pairs, REGIONS, ())


def scores(reports, protocol="strict", **options):
    chosen = {"labeler": Words(), "resamples": 0, "floors": False} | options
    return evaluate("x", reports, Settings(protocol=PROTOCOLS[protocol], **chosen))
