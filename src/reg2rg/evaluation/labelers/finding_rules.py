"""What `reg2rg.evaluation.labelers.keywords` looks for: words of each finding, of denial, of doubt, and of headings.

Everything here is data. Expressions are matched without regard to case, those of rules at the beginning of a word.
Where the conventions of the RadBERT classifier are known and clinically defensible they are followed, with the reason
beside the rule: docs/concepts/labeler.md says how far the two agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_CALCIUM = r"calcif|calcific|atheroma|atheroscl"
_VESSEL = r"aort|arterial|supraaortic|carotid|subclavian|vascular"
_GROWN = r"enlarge|increase|larger|wider|dilat|above normal"
_LUNG = r"lung|lobe|lobes|parenchyma|pulmonary|segment|fissure|subpleural"
_NOT_LUNG = (
    r"thyroid|breast|adrenal|schmorl|gland|liver|hepatic|axill|skin|subcutaneous|bone|vertebra|kidney|renal|spleen"
    r"|splenic|pancrea|mammary|chest wall|brain|cerebr|cerebell|ganglia|tentori|sinus\b"
)
_SMALL_NODES = r"mill?imet|short lymph|(?:less|smaller) than|(?:below|under) \d|non-?patholog"
_HARMLESS_NODES = (
    _SMALL_NODES + r"|calcifi|fat|intrapulmonary|intraparenchymal|non-?specific|normal|reactive|breast"
    r"|lymph nodes? stations?|dissection"
)


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
        # "Tube" is also the wall of a bronchus or vessel in translated reports.
        Rule((r"wires?\b|(?<!bronchial )(?<!aortic )tube\b|cannula|drain\b",)),
    ),
    "Arterial wall calcification": (
        Rule((_CALCIUM, _VESSEL)),
        Rule((r"plaque", _VESSEL)),
        Rule((r"aort\w* (?:arteriosclero|sclero)|sclerosis of the aort",)),
    ),
    "Cardiomegaly": (
        Rule((r"cardiomegal",)),
        Rule((r"heart|cardiac|cardiothoracic", _GROWN), unless=r"pericardi|pulmonary|aort|rate"),
        Rule((r"heart (?:shadow )?(?:is|was) (?:\w+ )?enlarge",)),
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
            (
                r"lymph",
                r"nodes?\b",
                r"enlarge|large\b|swollen|patholog|conglomerat|increase|reach|measur|largest|larger",
            ),
            unless=_SMALL_NODES,
        ),
        # Nodes that are reported without being called harmless. RadBERT counts these, and small ones too.
        Rule(
            (r"lymph nodes?\b", r"observed|seen|noted|there (?:is|are)|in (?:the |both |bilateral )?\w+"),
            unless=_HARMLESS_NODES,
        ),
    ),
    "Emphysema": (Rule((r"emphysem|bulla|bullous|bleb",)),),
    "Atelectasis": (Rule((r"atelecta|subatelecta|collapsed lung",)),),
    "Lung nodule": (
        Rule((r"nodul|micronodul",), unless=_NOT_LUNG + r"|mediastin|pleural|nodular (?:infiltrat|pattern)"),
        # A clause on other places too is about the lung if it says so: "nodules in the lung and enlarged mediastinum".
        Rule((r"nodul|micronodul", _LUNG), unless=_NOT_LUNG + r"|nodular (?:infiltrat|pattern)"),
        Rule((r"mass\b|masses\b", r"lung|lobe|lobes|parenchyma|pulmonary"), unless=_NOT_LUNG),
    ),
    "Lung opacity": (
        # One ground-glass nodule is a nodule; several are ground-glass opacities too. RadBERT draws the same line.
        Rule(
            (r"ground(?![- ]?glass (?:like )?nodul(?:e|ar shadow)\b(?! shadows))|opaci|infiltrat|frosted",),
            r"ground of",
        ),
        Rule((r"densit", r"increase", r"lung|lobe|lobes|subpleural|parenchyma"), unless=_NOT_LUNG),
        # Patches of raised density. A dense dot or strip alone is rather a scar or calcium, which RadBERT leaves out.
        Rule((r"patch", r"high[- ]densit|dense\b|increased? densit|densities\b"), unless=_NOT_LUNG),
    ),
    "Pulmonary fibrotic sequela": (
        Rule((r"sequel|fibrotic|fibrosis|fibroatelect|honeycomb",), unless=r"rib\b|fractur"),
    ),
    "Pleural effusion": (
        Rule(
            (r"pleural|hemithorax|pleura\b", r"effusion|fluid"),
            # Generated texts mix up words: what is "slightly thick" is the pleura.
            unless=r"pericardial effusion (?:is|was) (?:observed|present)"
            r"|effusion [^,]*(?:is|was|are|were) (?:\w+ )?thick",
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
        # A bronchus that is slightly wide is no bronchiectasis yet; RadBERT does not count it either.
        Rule((r"dilat|ectatic", r"bronchi\b|bronchus\b|bronchial"), unless=r"slight|mild|minimal"),
    ),
    "Interlobular septal thickening": (
        Rule((r"sept(?:al|a|um)\b|interlobular", r"thick"), unless=r"nasal|sinus|ventric"),
    ),
}
"""Label -> the ways to say it. A clause that fits any of them mentions the finding."""

_SEEN = (
    r"(?:observed|detected|seen|found|identified|noted|present|evident|visible|visuali[sz]ed|encountered|distinguished"
    r"|monitored|determined|demonstrated|available|appreciated|recognised|recognized|evaluated|assessed|followed"
    r"|watched|reported|described|remarkable|significant)"
)

PSEUDO = (
    r"\b(?:no|without|not) (?:\w+ ){0,3}(?:change|changed|progression|difference)\w*|\bnot only\b"
    rf"|\bnot (?:been )?{_SEEN} (?:before|previously|earlier"
    r"|(?:in|on|at) (?:the |his |her )?(?:previous|prior|former|old|earlier|last))\b"
    r"|\bpreviously not (?:been )?\w+"
)
"""Looks like a denial and is none: nothing changed, or the finding is new."""

DENIES_NEXT = (
    r"\b(?:no|without|neither|nor|not|free of|absence of|negative for|lack of|instead of|(?:resolution|regression) of"
    r"|history of|status post resection of|no longer|devoid of|rather than)\b"
)
"""Denies what follows in the clause. A history tells of the past."""

DENIES_CLAUSE = (
    rf"\b(?:not (?:be |been )?(?:\w+ly )?{_SEEN}|no longer|resolved|disappeared|vanished|absent|ruled out|excluded"
    r"|(?:completely|totally) (?:regressed|cleared|disappeared)|regressed (?:completely|totally)|cleared|unremarkable"
    r"|(?:is|are|was|were) (?:negative|lost))\b|: ?(?:no|none|nil|negative|absent)\b\W*$"
)
"""Denies what stands before it in the clause."""

DOUBTS_NEXT = (
    r"\b(?:possibl[ey]|probabl[ey]|likely|suspicious (?:for|of|in terms of)|suspicion of|suspect(?:ed|s)?|questionable"
    r"|may (?:be|represent|indicate|suggest)|might (?:be|represent)|could (?:be|represent|indicate)|concern(?:ing)? for"
    r"|(?:to|in order to) (?:rule out|exclude)|differential diagnos[ie]s|versus|presumed|equivocal)\b"
)
"""Makes uncertain what follows in the clause."""

DOUBTS_CLAUSE = (
    r"\b(?:(?:can ?not|could not|can't|may not) (?:be )?(?:\w+ly )?(?:excluded|ruled out|distinguished|differentiated)"
    r"|not (?:be )?(?:excluded|ruled out)|(?:is|are|was|were) (?:suspected|possible|probable|likely|suspicious"
    r"|doubtful))\b(?! (?:for|of|in|due|secondary|to|an?)\b)"
    r"|\?"
)
"""Makes uncertain what stands before it; a question mark in parentheses, only what they hold."""

OTHER_SECTIONS = (
    r"clinical (?:information|history|indication|data|details|findings|question)s?|(?:patient |medical )?history"
    r"|indications?"
    r"|reason for (?:exam\w*|study)|techniques?|protocols?|procedures?|methods?|comparisons?|prior studies|contrast"
    r"|recommendations?|exam(?:ination)?(?: type)?"
)
"""Headings of sections that tell nothing of what this scan shows."""

FINDING_SECTIONS = r"findings?|impressions?|conclusions?|results?|opinions?|reports?|interpretations?|summary"
"""Headings of sections that do."""
