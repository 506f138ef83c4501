"""Named protocols: which text, which unit, which averaging, which implementation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from reg2rg.core.errors import ConfigError
from reg2rg.core.registry import did_you_mean

Smoothing = Literal["hf", "lin-och", "none"]


@dataclass(frozen=True, slots=True)
class Protocol:
    """How numbers are made of texts.

    Attributes:
        name: as given to ``--protocol``.
        text: what it is, for people.
        smoothing: of BLEU (see `reg2rg.evaluation.metrics.bleu`).
        bleu: ``"each"``: mean over units; ``"corpus"``: counts summed over units; ``"both"``.
        unit: ``"paragraph"``: a report's number is the mean over the paragraphs of its references where regions are
            known; ``"report"``: over whole reports.
        missing: a region that the reference describes and the prediction does not: an ``"empty"`` prediction, or
            ``"drop"`` the pair.
        silence_is_wrong: findings of a study with an unanswered region, or without a report, count as wrong unless they
            are affirmed rightly; otherwise silence denies every finding.
        reading: of region prefixes. ``"strict"``: full names in every spelling, repeated, unknown and further names are
            wrong; ``"published"``: as the published scripts read them, with their quirks.
        cider: what the number is called that pycocoevalcap calls CIDEr and that is CIDEr-D.
        coco: BLEU and ROUGE-L of pycocoevalcap on white-space words, texts cleaned as the VLM3D challenge does.
        cut: texts are cut into these tokens first, and put together again with blanks between them.
        words: what the words of `coco` are, for definitions.
        rouge_overall: print the published bootstrap median of ROUGE as well.
        accuracy: print the share of labels that are right, which a silent model mostly gets too.
        left_out: regions that the published averages of recognition leave out; a further figure merges them.
    """

    name: str
    text: str
    smoothing: Smoothing
    bleu: Literal["each", "corpus", "both"]
    unit: Literal["paragraph", "report"]
    missing: Literal["empty", "drop"]
    silence_is_wrong: bool
    reading: Literal["strict", "published"]
    cider: Literal["CIDEr", "CIDEr-D"] = "CIDEr"
    coco: bool = False
    rouge_overall: bool = False
    cut: Literal["", "ptb", "characters"] = ""
    words: str = "white-space words"
    accuracy: bool = False
    left_out: tuple[str, ...] = ()


_STRICT = Protocol(
    "strict",
    "Nothing is gained by silence. Text metrics are means over the paragraphs of the references (over whole reports "
    "where no regions are known); a missing paragraph scores 0. BLEU: 13a tokens, Lin-Och smoothing. A study that "
    "leaves a described region unanswered has every finding wrong that it does not rightly affirm. Recognition "
    "compares full region names; repeated, unknown and missing names are wrong.",
    smoothing="lin-och",
    bleu="each",
    unit="paragraph",
    missing="empty",
    silence_is_wrong=True,
    reading="strict",
    cider="CIDEr-D",
)
"""The library's own protocol.

What it guarantees, for every number that is called a score here (`reg2rg.evaluation.results.Number.score`):

* **Emptying predictions** never raises one.
* **Dropping paragraphs** of regions that the reference describes never raises one, where reports name each slot and
  region once and the labeler finds in a text what it finds in its paragraphs. Taking out one of two paragraphs that
  contradict each other, or one of a region that was not asked for, is a repair and may raise scores. Precision and F1
  of recognition gain by naming less, the recall of findings by saying more: they are printed and not called scores.
* **Shuffling reports between studies** never raises one where every report equals its own reference. For scores that
  are means over reports or paragraphs (text metrics, samples averages, recognition accuracy) it is enough that no study
  has a better report than its own. It cannot hold for every file: reports that fit other studies better than their own
  do score higher there. So the score of a shuffle stands beside every number.
"""

_CORPUS = Protocol(
    "corpus",
    "What most papers mean: corpus BLEU without smoothing on 13a tokens (sacreBLEU's figure), other text metrics as "
    "means over reports; a missing report or region is an empty text; silence denies every finding.",
    smoothing="none",
    bleu="corpus",
    unit="report",
    missing="empty",
    silence_is_wrong=False,
    reading="strict",
)

_PAPER = Protocol(
    "paper",
    "As the published Reg2RG files were made: BLEU one sample at a time with one added to every order, then mean and "
    "standard deviation, and the corpus figure ('Overall'); METEOR of NLTK; ROUGE without stemmer, its overall figure "
    "the median of 1,000 resamples; CIDEr-D on raw words with frequencies from the references. By region, pairs with "
    "an empty side are dropped. Recognition compares first words.",
    smoothing="hf",
    bleu="both",
    unit="report",
    missing="drop",
    silence_is_wrong=False,
    reading="published",
    rouge_overall=True,
    left_out=("lung", "pleura"),
)

_VLM3D = Protocol(
    "vlm3d",
    "As the VLM3D challenge scores generated reports: its cleaning of texts, BLEU, ROUGE-L and CIDEr of pycocoevalcap "
    "on white-space words, macro averages and CRG over the 18 labels. The challenge takes labels of the predictions "
    "from RadBERT and those of the references from its table: give --labeler and --reference-labels. Its METEOR is a "
    "Java program's, lower by about 0.2; the one printed here is NLTK's and is named so.",
    smoothing="none",
    bleu="corpus",
    unit="report",
    missing="empty",
    silence_is_wrong=False,
    reading="strict",
    coco=True,
    accuracy=True,
)

_PTB = replace(
    _VLM3D,
    name="ptb",
    text="As most papers on captions and reports score: pycocoevalcap's BLEU, ROUGE-L and CIDEr on the tokens of its "
    "Penn Treebank tokenizer (small letters, punctuation out), made here without Java. Brackets stay as -lrb- and "
    "-rrb-, and 'CT.' is another word than 'CT', as there. Its METEOR is a Java program's, lower by about 0.2; the one "
    "printed here is NLTK's and is named so.",
    accuracy=False,
    cut="ptb",
    words="Penn Treebank tokens",
)

_CHARACTERS = replace(
    _VLM3D,
    name="characters",
    text="For scripts without blanks between words, such as Chinese: pycocoevalcap's BLEU, ROUGE-L and CIDEr on "
    "characters (Latin words and numbers stay whole). METEOR's synonyms and the rules that read findings know English "
    "alone.",
    accuracy=False,
    cut="characters",
    words="characters",
)

PROTOCOLS: Mapping[str, Protocol] = {one.name: one for one in (_STRICT, _PAPER, _CORPUS, _VLM3D, _PTB, _CHARACTERS)}


def find_protocol(name: str) -> Protocol:
    """The protocol of this name.

    Raises:
        ConfigError: none has it; the message lists them.
    """
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    raise ConfigError(
        f"there is no protocol '{name}'.{did_you_mean(name, list(PROTOCOLS))} Known: {', '.join(PROTOCOLS)}"
    )
