"""BLEU, METEOR, ROUGE and CIDEr of reports: one library call a report beside ours, in one run.

    python benchmarks/evaluate.py                        1,000 pairs of reports
    python benchmarks/evaluate.py --quick                200 pairs
    python benchmarks/evaluate.py --reports FOLDER       with the *_reports.csv of RadGenome elsewhere

The reports are published predictions where they are at hand (../shared/data/reports/radgenome, or $REG2RG_SHARED): the
texts of all regions of a study joined, about 200 words. Else they are put together from a few thousand sentences.

The library side is what the reference program does: sacrebleu once for each of the four orders, NLTK's Punkt, word
tokenizer and METEOR, rouge_score, and CIDEr with dictionaries as in pycocoevalcap (which is not for commercial use, so
its arithmetic is written out here). METEOR gets our synonym reader on both sides; loading it and the libraries is not
counted on either. One process, one thread. Exit status 1 if a figure differs or all together are less than ten times
as fast.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

FOLDER = (
    Path(os.environ.get("REG2RG_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data/reports/radgenome"
)
BAR = 10.0
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


def library_bleu(references, predictions):
    from sacrebleu.metrics import BLEU

    scorers = [BLEU(max_ngram_order=order, smooth_method="none", force=True) for order in (1, 2, 3, 4)]

    def one(scorer, reference, prediction) -> float:
        got = scorer.corpus_score([prediction], [[reference]])
        if not got.sys_len:
            return 0.0
        brevity = 1.0 if got.sys_len > got.ref_len else math.exp(1 - got.ref_len / got.sys_len)
        precisions = [(hits + 1) / (of + 1) for hits, of in zip(got.counts, got.totals, strict=True)]
        return brevity * math.exp(sum(map(math.log, precisions)) / len(precisions))

    pairs = list(zip(references, predictions, strict=True))
    return np.array([[one(scorer, *pair) for pair in pairs] for scorer in scorers]).T


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
    from reg2rg.metrics.synonyms import SynonymReader

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
    from reg2rg.metrics.bleu import bleu_counts, bleu_from_counts

    return bleu_from_counts(bleu_counts(references, predictions))


def our_meteor(references, predictions):
    from reg2rg.metrics.meteor import meteor

    return meteor(references, predictions)


def our_rouge(references, predictions):
    from reg2rg.metrics.rouge import rouge

    return rouge(references, predictions)


def our_cider(references, predictions):
    from reg2rg.metrics.cider import cider

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="200 pairs")
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--reports", type=Path, default=FOLDER, help="folder with *_reports.csv")
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args()
    pairs = 200 if options.quick else options.pairs

    published = any(options.reports.glob("*_reports.csv"))
    references, predictions = published_pairs(options.reports, pairs) if published else synthetic_pairs(pairs)
    words = [sum(len(text.split()) for text in side) / len(side) for side in (references, predictions)]
    source = "published reports" if published else "synthetic reports"
    print(f"{len(references):,} pairs of {source}, {words[0]:.0f} and {words[1]:.0f} words; CPU seconds, one thread")
    print(f"{'':20}{'library':>10}{'ours':>10}{'ratio':>10}{'largest difference':>22}")

    result, worst = {}, 0.0
    for name, (theirs, ours) in METRICS.items():
        mine, fast = timed(ours, references, predictions)  # first: its caches are empty, as in an evaluation
        expected, slow = timed(theirs, references, predictions)
        difference = float(np.abs(mine - expected).max())
        worst = max(worst, difference)
        result[name] = {"library": slow, "ours": fast, "difference": difference}
        print(f"{name:20}{slow:10.2f}{fast:10.2f}{slow / fast:9.1f}x{difference:22.1e}", flush=True)
    slow, fast = (sum(one[side] for one in result.values()) for side in ("library", "ours"))
    print(f"{'together':20}{slow:10.2f}{fast:10.2f}{slow / fast:9.1f}x{worst:22.1e}")
    if options.json:
        options.json.write_text(json.dumps({"pairs": len(references), "source": source, "metrics": result}, indent=2))
    if worst > TOLERANCE or slow < BAR * fast:
        sys.exit(f"missed: expected differences up to {TOLERANCE} and a ratio of at least {BAR:.0f}")


if __name__ == "__main__":
    main()
