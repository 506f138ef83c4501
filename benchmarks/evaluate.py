"""BLEU, METEOR, ROUGE and CIDEr of reports: one library call a report beside ours, in one run. Then the bootstrap.

    python benchmarks/evaluate.py                        1,000 pairs of reports
    python benchmarks/evaluate.py --quick                200 pairs
    python benchmarks/evaluate.py --reports FOLDER       with the *_reports.csv of RadGenome elsewhere

The reports are published predictions where they are at hand (../shared/data/reports/radgenome, or $REG2RG_SHARED): the
texts of all regions of a study joined, about 180 words. Else they are put together from a few thousand sentences.

The library side is the published way at its best. One call a report and order of sacrebleu (quicker than the metric
script that the published program loads from a hub), NLTK's Punkt, word tokenizer and METEOR, rouge_score without the
bootstrap that comes with every single call of the published one, and CIDEr with dictionaries as in pycocoevalcap (which
is not for commercial use, so its arithmetic is written out here). Its second pass over all reports, for the overall
figures, is not timed; on our side they are. METEOR gets our synonym reader on both sides; loading it and the libraries
is not counted on either. One process, one thread.

The bootstrap is timed behind that: 1,000 resamples of patients for every number of the protocol ``paper`` on 1,564
studies with their regions, once the scores of the texts are there.

Exit status 1 if a printed digit or anything above rounding differs, if all metrics together are less than ten times as
fast, or if the bootstrap takes 10 s.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

FOLDER = (
    Path(os.environ.get("REG2RG_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data/reports/radgenome"
)
BAR, BOOTSTRAP_BAR = 10.0, 10.0
STUDIES = 1564
TOLERANCE = 1e-9
PARTS = (  # of synthetic sentences
    "Small|Large|Millimetric|Nonspecific|Calcific|Linear|Diffuse|No significant|A solitary",
    "nodule|mass|effusion|consolidation|thickening|calcification|opacity|cyst|lesion|atelectasis",
    "right upper lobe|left lower lobe|mediastinum|pleura|aortic arch|thyroid|liver|spine|pericardium",
    "is observed|was detected|is seen|measuring 4.5 mm is noted|appears stable|was not found on CT",
)


def published_pairs(folder: Path, pairs: int) -> tuple[list[str], list[str]]:
    """Texts of all regions of a study, joined."""
    import pandas as pd

    texts = defaultdict(lambda: ([], []))
    for path in sorted(folder.glob("*_reports.csv")):
        for row in pd.read_csv(path, dtype=str, keep_default_na=False).itertuples(index=False):
            texts[row[0]][0].append(row[1])
            texts[row[0]][1].append(row[2])
    chosen = list(texts.values())[:pairs]
    return [" ".join(given) for given, _ in chosen], [" ".join(said) for _, said in chosen]


def synthetic_pairs(pairs: int) -> tuple[list[str], list[str]]:
    """Reports of about 200 words; a prediction has about half of its sentences from its reference."""
    random = np.random.default_rng(0)
    words = [part.split("|") for part in PARTS]

    def sentence() -> str:
        kind, finding, place, end = (random.choice(part) for part in words)
        return f"{kind} {finding} in the {place} {end}."

    references = [[sentence() for _ in range(22)] for _ in range(pairs)]
    predictions = [[one if random.random() < 0.5 else sentence() for one in report[:17]] for report in references]
    return [" ".join(report) for report in references], [" ".join(report) for report in predictions]


def corpus_bleu(references, predictions, order) -> float:
    """BLEU of a set of reports, with one added to the matches and totals of every order."""
    from sacrebleu.metrics import BLEU

    got = BLEU(max_ngram_order=order, smooth_method="none", force=True).corpus_score(predictions, [references])
    if not got.sys_len:
        return 0.0
    brevity = 1.0 if got.sys_len > got.ref_len else math.exp(1 - got.ref_len / got.sys_len)
    precisions = [(hits + 1) / (of + 1) for hits, of in zip(got.counts, got.totals, strict=True)]
    return brevity * math.exp(sum(map(math.log, precisions)) / len(precisions))


def library_bleu(references, predictions):
    pairs = list(zip(references, predictions, strict=True))
    return np.array([[corpus_bleu([one], [other], order) for one, other in pairs] for order in (1, 2, 3, 4)]).T


def library_meteor(references, predictions):
    from nltk.tokenize import NLTKWordTokenizer
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer
    from nltk.translate.meteor_score import single_meteor_score

    parameters = PunktParameters()
    parameters.abbrev_types, parameters.sent_starters = {"ct"}, {"both", "in", "it", "the", "there"}
    sentences, words, reader = PunktSentenceTokenizer(parameters), NLTKWordTokenizer(), synonym_reader()

    def tokens(text):
        return [token for sentence in sentences.tokenize(text) for token in words.tokenize(sentence)]

    return np.array(
        [
            single_meteor_score(tokens(reference), tokens(prediction), wordnet=reader, alpha=0.9, beta=3.0, gamma=0.5)
            for reference, prediction in zip(references, predictions, strict=True)
        ]
    )


_READER = []


def synonym_reader():
    from reg2rg.evaluation.metrics.synonyms import SynonymReader

    if not _READER:
        _READER.append(SynonymReader.from_table())
    return _READER[0]


def library_rouge(references, predictions):
    from rouge_score.rouge_scorer import RougeScorer

    keys = ["rouge1", "rouge2", "rougeL"]
    scorer = RougeScorer(keys)
    scores = [scorer.score(*pair) for pair in zip(references, predictions, strict=True)]
    return np.array([[score[key].fmeasure for key in keys] for score in scores])


def library_cider(references, predictions):
    def grams(text):
        words = text.split()
        return Counter(tuple(words[i : i + n]) for n in (1, 2, 3, 4) for i in range(len(words) - n + 1))

    given, said = [grams(text) for text in references], [grams(text) for text in predictions]
    holders = Counter(gram for one in given for gram in one)

    def vectors(counts):
        parts, norms, length = [{}, {}, {}, {}], [0.0] * 4, 0
        for gram, count in counts.items():
            order = len(gram) - 1
            weight = count * (np.log(float(len(references))) - np.log(max(1.0, holders[gram])))
            parts[order][gram] = weight
            norms[order] += weight**2
            length += count if order == 1 else 0
        return parts, [math.sqrt(norm) for norm in norms], length

    scores = []
    for reference, prediction in zip(given, said, strict=True):
        (r, norm_r, length_r), (p, norm_p, length_p) = vectors(reference), vectors(prediction)
        total = 0.0
        for order in range(4):
            dot = sum(min(w, r[order].get(gram, 0.0)) * r[order].get(gram, 0.0) for gram, w in p[order].items())
            total += dot / (norm_r[order] * norm_p[order]) if norm_r[order] and norm_p[order] else 0.0
        scores.append(10 * math.exp(-((length_p - length_r) ** 2) / 72) * total / 4)
    return np.array(scores)


def our_bleu(references, predictions):
    from reg2rg.evaluation.metrics.bleu import bleu_counts, bleu_from_counts

    counts = bleu_counts(references, predictions)
    bleu_from_counts(counts.sum(axis=0))
    return bleu_from_counts(counts)


def our_meteor(references, predictions):
    from reg2rg.evaluation.metrics.meteor import meteor

    return meteor(references, predictions)


def our_rouge(references, predictions):
    from reg2rg.evaluation.metrics.rouge import hf_overall, rouge

    scores = rouge(references, predictions)
    hf_overall(scores)
    return scores


def our_cider(references, predictions):
    from reg2rg.evaluation.metrics.cider import cider

    return cider(references, predictions)


METRICS = {
    "BLEU-1 to 4": (library_bleu, our_bleu),
    "METEOR": (library_meteor, our_meteor),
    "ROUGE-1, 2, L": (library_rouge, our_rouge),
    "CIDEr-D": (library_cider, our_cider),
}


def timed(function, *texts) -> tuple[np.ndarray, float]:
    function(["A lung."], ["The lung."])  # imports and tables
    start = time.process_time()
    scores = function(*texts)
    return scores, time.process_time() - start


def printed(scores: np.ndarray) -> str:
    """Mean and deviation of each column, as published tables have them."""
    columns = scores.reshape(len(scores), -1).T
    return " ".join(f"{column.mean():.4f}±{column.std():.4f}" for column in columns)


def compare(references, predictions) -> tuple[dict[str, dict[str, object]], bool]:
    """Times and figures of both sides, and whether the bar is met."""
    words = [sum(len(text.split()) for text in side) / len(side) for side in (references, predictions)]
    print(f"{len(references):,} pairs, {words[0]:.0f} and {words[1]:.0f} words; CPU seconds, one thread")
    print(f"{'':20}{'library':>10}{'ours':>10}{'ratio':>10}{'largest difference':>22}")
    result, met = {}, True
    for name, (theirs, ours) in METRICS.items():
        mine, fast = timed(ours, references, predictions)  # first: its caches are empty, as in an evaluation
        expected, slow = timed(theirs, references, predictions)
        difference = float(np.abs(mine - expected).max())
        met &= difference <= TOLERANCE and printed(mine) == printed(expected)
        result[name] = {"library": slow, "ours": fast, "difference": difference, "figures": printed(mine)}
        print(f"{name:20}{slow:10.2f}{fast:10.2f}{slow / fast:9.1f}x{difference:22.1e}")
        print(f"    library {printed(expected)}\n    ours    {printed(mine)}", flush=True)
    slow, fast = (sum(one[side] for one in result.values()) for side in ("library", "ours"))
    result["together"] = {"library": slow, "ours": fast}
    print(f"{'together':20}{slow:10.2f}{fast:10.2f}{slow / fast:9.1f}x")
    return result, met and slow >= BAR * fast


def bootstrap(path: Path, regions) -> tuple[dict[str, float], bool]:
    """Intervals of every number of an evaluation by region: time of the resamples alone, and whether the bar is met."""
    from reg2rg.evaluation.bootstrap import Resamples, interval
    from reg2rg.evaluation.cohort import Cohort, Settings
    from reg2rg.evaluation.labelers import RuleLabeler
    from reg2rg.evaluation.metrics.base import metric_classes
    from reg2rg.evaluation.protocols import PROTOCOLS
    from reg2rg.evaluation.reading import read_reports
    from reg2rg.evaluation.results import REPORT
    from reg2rg.evaluation.scoring import score_cohort

    reports = read_reports(path, None, regions)
    pairs = reports.pairs
    metrics = tuple(metric() for metric in metric_classes() if metric.group in ("language", "findings"))
    settings = Settings(PROTOCOLS["paper"], RuleLabeler(), metrics=metrics)
    found = score_cohort(Cohort(pairs, reports.regions, settings)).statistics
    statistics = [one for one in found if one.group == "language" or one.scope == REPORT]
    start = time.perf_counter()
    resamples = Resamples([pair.patient for pair in pairs], 1000)
    for statistic in statistics:
        interval(resamples.draws(statistic), 0.95)
    taken = time.perf_counter() - start
    print(
        f"bootstrap of {len(pairs):,} studies of {resamples.patients:,} patients, 1,000 resamples, "
        f"{len(statistics)} numbers: {taken:.2f} s"
    )
    return {"studies": len(pairs), "numbers": len(statistics), "seconds": taken}, taken < BOOTSTRAP_BAR


def synthetic_table(path: Path, studies: int, regions) -> Path:
    """A CSV with a row a region of each study."""
    import csv

    references, predictions = synthetic_pairs(studies)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("study", "region", "reference", "prediction"))
        for row in range(studies):
            sides = [text.split(". ") for text in (references[row], predictions[row])]
            for i, region in enumerate(regions.names):
                writer.writerow((f"s{row}", region, *(". ".join(side[i :: len(regions.names)]) for side in sides)))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="200 pairs")
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--reports", type=Path, default=FOLDER, help="folder with *_reports.csv")
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args()
    from reg2rg.core.regions import load_region_set

    regions = load_region_set("radgenome")
    pairs = 200 if options.quick else options.pairs
    published = any(options.reports.glob("*_reports.csv"))
    print("published reports" if published else "synthetic reports")
    result, fast_enough = compare(*(published_pairs(options.reports, pairs) if published else synthetic_pairs(pairs)))
    with tempfile.TemporaryDirectory() as folder:
        studies = 200 if options.quick else STUDIES
        whole = published and not options.quick
        path = options.reports if whole else synthetic_table(Path(folder) / "reports.csv", studies, regions)
        times, soon_enough = bootstrap(path, regions)
    if options.json:
        options.json.write_text(json.dumps({"published": published, "metrics": result, "bootstrap": times}, indent=2))
    if not fast_enough or not soon_enough:
        sys.exit(f"missed: expected the same digits, a ratio of {BAR:.0f}, and a bootstrap under {BOOTSTRAP_BAR:.0f} s")


if __name__ == "__main__":
    main()
