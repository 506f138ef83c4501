"""Clinical findings read from report text by keywords: small, transparent, aware of negation.

It is no replacement for a trained classifier of reports. Its use is that everybody can see why it says what it says,
and that it costs nothing: every number made with it is named after it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from reg2rg.labels import FINDINGS

__all__ = ["FINDINGS", "KEYWORDS", "KeywordReader", "Rule"]

_CALCIUM = r"calcif|calcific|atheroma|atheroscl"
_GROWN = r"enlarge|increase|larger|wider|dilat|above normal"
_NOT_LUNG = r"thyroid|breast|adrenal|schmorl|gland|liver|hepatic|axill|skin|subcutaneous|bone|vertebra"


@dataclass(frozen=True, slots=True)
class Rule:
    """One way to say a finding.

    Attributes:
        words: regular expressions that must all match at the beginning of words of one clause.
        unless: a clause with a match of this is about something else.
    """

    words: tuple[str, ...]
    unless: str = ""


KEYWORDS: Mapping[str, tuple[Rule, ...]] = {
    "Medical material": (
        Rule(
            (
                r"pacemaker|catheter|stent\b|stents\b|sternotom|suture|prosthe|implant|electrode|port\b|icd\b|tracheostomy",
            )
        ),
        Rule((r"metal|surgical|medical", r"material|clip|wire|plate|screw|device|valve")),
        Rule((r"wires?\b|tube\b|cannula|drain\b",)),
    ),
    "Arterial wall calcification": (
        Rule((_CALCIUM, r"aort|arterial|supraaortic|carotid|subclavian|vascular")),
        Rule((r"plaque", r"aort|arterial|supraaortic|carotid|subclavian|vascular")),
    ),
    "Cardiomegaly": (
        Rule((r"cardiomegal",)),
        Rule((r"heart|cardiac|cardiothoracic", _GROWN), unless=r"pericardi|pulmonary|aort|rate"),
    ),
    "Pericardial effusion": (Rule((r"pericardial|pericardium", r"effusion|fluid")),),
    "Coronary artery wall calcification": (
        Rule((r"coronar", _CALCIUM)),
        Rule((r"coronar", r"plaque")),
    ),
    "Hiatal hernia": (Rule((r"hiatal|hiatus|paraesophageal|diaphragmatic", r"herni")),),
    "Lymphadenopathy": (
        Rule((r"lymphadenopath|adenopath",)),
        Rule(
            (r"lymph", r"nodes?\b", r"enlarge|patholog|conglomerat|increase|reach|measur|largest"),
            unless=r"millimetric",
        ),
    ),
    "Emphysema": (Rule((r"emphysem|bulla|bullous|bleb",)),),
    "Atelectasis": (Rule((r"atelecta|subatelecta|collapsed lung",)),),
    "Lung nodule": (
        Rule((r"nodul|micronodul",), unless=_NOT_LUNG + r"|nodular (?:infiltrat|pattern)"),
        Rule((r"mass\b|masses\b", r"lung|lobe|lobes|parenchyma|pulmonary"), unless=_NOT_LUNG),
    ),
    "Lung opacity": (
        Rule((r"ground|opaci|infiltrat|frosted",), unless=r"ground of"),
        Rule((r"densit", r"increase", r"lung|lobe|lobes|subpleural|parenchyma"), unless=_NOT_LUNG),
    ),
    "Pulmonary fibrotic sequela": (
        Rule((r"sequel|fibrotic|fibrosis|fibroatelect|honeycomb",), unless=r"rib\b|fractur"),
    ),
    "Pleural effusion": (
        Rule(
            (r"pleural|hemithorax|pleura\b", r"effusion|fluid"),
            unless=r"pericardial effusion (?:is|was) (?:observed|present)",
        ),
        Rule((r"hydrothorax|hemothorax|hydropneumothorax",)),
    ),
    "Mosaic attenuation pattern": (Rule((r"mosaic",)),),
    "Peribronchial thickening": (
        Rule((r"peribronchial|peribronchovascular|bronchovascular", r"thick|cuff|increase")),
        Rule((r"bronch", r"wall", r"thick"), unless=r"(?:of )?normal (?:wall )?thick|thickness (?:is|are|was|were) n"),
    ),
    "Consolidation": (Rule((r"consolidat",)),),
    "Bronchiectasis": (
        Rule((r"bronchiecta|bronchiolectas",)),
        Rule((r"dilat|ectatic", r"bronchi\b|bronchus\b|bronchial")),
    ),
    "Interlobular septal thickening": (Rule((r"sept(?:al|a|um)\b|interlobular", r"thick")),),
}
"""Label -> the ways to say it. A clause that fits any of them mentions the finding."""

_PSEUDO = r"\b(?:no|without|not) (?:\w+ ){0,3}(?:change|changed|progression|difference)\w*|\bnot only\b"
"""Words that look like a negation of the finding and are none."""

_BEFORE = r"\b(?:no|without|neither|nor|free of|absence of|negative for|lack of|instead of|resolution of)\b"
"""Negates what follows in the clause."""

_AFTER = (
    r"\b(?:not|resolved|disappeared|vanished|absent|ruled out|excluded|completely regressed|totally regressed"
    r"|regressed completely|cleared)\b"
)
"""Negates the clause, wherever it stands."""

_SENTENCES = re.compile(r"(?<=[.!?])\s+|\n+|;")
_BREAK = re.compile(
    r"\b(?:but|however|although|though|whereas|while|except(?: for)?|other than|apart from|otherwise)\b", re.IGNORECASE
)
_JOINT = re.compile(r",? and |, ", re.IGNORECASE)
_VERB = re.compile(r"\b(?:is|are|was|were|has|have|had|shows?|contains?|reach(?:es|ed)?)\b", re.IGNORECASE)


def _split_joints(text: str) -> list[str]:
    """Cut at 'and' or a comma where both sides are statements of their own: each has a verb."""
    for joint in _JOINT.finditer(text):
        left, right = text[: joint.start()], text[joint.end() :]
        if _VERB.search(left) and _VERB.search(right):
            return [left, *_split_joints(right)]
    return [text]


class KeywordReader:
    """Reads findings from report text: a label is present if a clause mentions it and does not deny it.

    Args:
        keywords: label -> rules; the packaged ones cover the 18 labels of CT-RATE.
    """

    def __init__(self, keywords: Mapping[str, tuple[Rule, ...]] = KEYWORDS) -> None:
        self._rules = {
            label: tuple(
                (
                    tuple(re.compile(rf"\b(?:{word})", re.IGNORECASE) for word in rule.words),
                    re.compile(rf"\b(?:{rule.unless})", re.IGNORECASE) if rule.unless else None,
                )
                for rule in rules
            )
            for label, rules in keywords.items()
        }
        self._pseudo = re.compile(_PSEUDO, re.IGNORECASE)
        self._before = re.compile(_BEFORE, re.IGNORECASE)
        self._after = re.compile(_AFTER, re.IGNORECASE)

    def read(self, text: str) -> dict[str, bool]:
        """Label -> whether the text says that it is present. Silence counts as absent."""
        found = dict.fromkeys(self._rules, False)
        for clause in self.clauses(text):
            for label in found:
                found[label] = found[label] or self._affirms(label, clause)
        return found

    def clauses(self, text: str) -> list[str]:
        """The text cut where a negation ends: at sentences, at 'but' and the like, and after a finished statement."""
        pieces = (
            clause
            for sentence in _SENTENCES.split(text)
            for part in _BREAK.split(self._pseudo.sub("", sentence))
            for clause in _split_joints(part)
        )
        return [piece.strip() for piece in pieces if piece.strip()]

    def _affirms(self, label: str, clause: str) -> bool:
        for words, unless in self._rules[label]:
            if unless is not None and unless.search(clause):
                continue
            hits = [word.search(clause) for word in words]
            if all(hits):
                last = max(hit.start() for hit in hits if hit)
                if not self._after.search(clause) and not self._before.search(clause, 0, last + 1):
                    return True
        return False
