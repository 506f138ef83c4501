"""The keyword reader on hand-written sentences and on the phantoms' own reports."""

from __future__ import annotations

import pytest

from reg2rg.data.phantom.patient import draw_patient
from reg2rg.data.phantom.sentences import labels, write_report
from reg2rg.labels import FINDINGS
from reg2rg.metrics.findings import KEYWORDS, KeywordReader

READER = KeywordReader()

SENTENCES = [
    ("", "Heart contour and size are normal. Pericardial effusion-thickening was not observed."),
    ("", "No pleural or pericardial effusion was detected."),
    ("", "There is no mass, nodule or infiltration in both lungs."),
    ("", "The lungs are free of consolidation, and without bronchiectasis."),
    ("", "The previously described pleural effusion on the left has resolved."),
    ("", "Ground glass areas seen in the former examination have disappeared."),
    ("", "A hypodense nodule of 9 mm was observed in the left thyroid lobe."),
    ("", "There are nodular lesions with rim-like calcification in the left breast."),
    ("", "Trachea, both main bronchi are open. No occlusive pathology was detected in the lumen."),
    ("", "The portal vein is normal. Reported findings support this."),
    ("", "Thoracic aorta diameter is normal. No dilatation was detected in the thoracic aorta."),
    ("", "Millimetric lymph nodes are observed in the mediastinum."),
    ("", "No enlarged lymph nodes in prevascular, pre-paratracheal, subcarinal or hilar dimensions were detected."),
    ("", "Hiatal hernia was not detected and the esophagus is natural."),
    ("Lung nodule", "There was no significant change in the nodule in the right lower lobe."),
    ("Lung nodule", "No consolidation was detected, but a 6 mm nodule is observed in the lower lobe."),
    ("Lung nodule", "No infiltration was observed and a nodule of 5 mm is present in the left lung."),
    ("Lung nodule", "No pathology other than a 4 mm nodule in the middle lobe was found."),
    (
        "Lung nodule|Emphysema",
        "Emphysematous changes are seen in both lungs. There are millimetric nodules in the lungs.",
    ),
    (
        "Arterial wall calcification|Coronary artery wall calcification",
        "Calcific atheroma plaques are observed in the aorta and coronary arteries.",
    ),
    ("Coronary artery wall calcification", "Coronary artery wall calcifications were noted."),
    ("Cardiomegaly", "Heart size increased. Aortic diameter is normal."),
    (
        "Cardiomegaly|Pericardial effusion",
        "Cardiomegaly is present; a pericardial effusion measuring 8 mm was observed.",
    ),
    (
        "Pleural effusion|Atelectasis",
        "A pleural effusion reaching 3 cm is observed on the right, with adjacent atelectatic changes.",
    ),
    (
        "Pleural effusion",
        "Pericardial effusion was not observed. Minimal pleural effusion is observed in the left hemithorax.",
    ),
    ("Medical material", "The pacemaker lead extends to the right ventricle."),
    ("Medical material", "Metallic sutures compatible with bypass surgery are observed in the sternum."),
    ("Medical material", "A port catheter ends in the superior vena cava."),
    ("Hiatal hernia", "A sliding type hiatal hernia is observed at the lower end of the esophagus."),
    ("Lymphadenopathy", "Lymph nodes reaching 18 mm in short axis are observed in the paratracheal area."),
    ("Lymphadenopathy", "There are mediastinal lymphadenopathies, the largest of which is 22 mm."),
    ("Pulmonary fibrotic sequela", "Sequela changes are observed at the apical level of the left lung."),
    ("Mosaic attenuation pattern", "Both lungs have a mosaic attenuation pattern (small airway disease?)."),
    ("Peribronchial thickening", "There is an increase in bronchial wall thickness in the central parts."),
    (
        "Bronchiectasis|Peribronchial thickening",
        "Bronchiectasis and peribronchial thickening are observed in the lower lobes.",
    ),
    ("Interlobular septal thickening", "Smooth thickening of the interlobular septa is observed."),
    (
        "Consolidation|Lung opacity",
        "Consolidations accompanied by ground glass opacities are present in both lower lobes.",
    ),
    ("Lung opacity", "Ground-glass density increases are observed in the subpleural areas."),
    ("Atelectasis", "Linear atelectasis is seen in the lingula. No active infiltration was detected."),
]


@pytest.mark.parametrize(("expected", "text"), SENTENCES)
def test_reads_report_sentences(expected, text):
    read = READER.read(text)
    assert {label for label, present in read.items() if present} == set(filter(None, expected.split("|")))


def test_every_label_has_keywords():
    assert tuple(KEYWORDS) == FINDINGS
    assert len(FINDINGS) == 18
    assert not any(READER.read("").values())


def test_reproduces_the_truth_of_phantoms():
    hits = extra = missed = 0
    for number in range(60):
        patient = draw_patient(11, number)
        truth = labels(patient)
        text = " ".join(" ".join(sentences) for sentences in write_report(patient).values())
        read = {label for label, present in READER.read(text).items() if present}
        hits += len(read & truth)
        extra += len(read - truth)
        missed += len(truth - read)
    assert 2 * hits / (2 * hits + extra + missed) >= 0.97
