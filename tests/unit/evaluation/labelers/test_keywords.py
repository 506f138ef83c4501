"""The keyword reader on hand-written sentences and on the phantoms' own reports."""

from __future__ import annotations

import pickle
import time

import pytest

from reg2rg.core.labels import FINDINGS
from reg2rg.evaluation.labelers.keywords import KEYWORDS, KeywordReader, Rule
from reg2rg.extras.phantom.patient import draw_patient
from reg2rg.extras.phantom.sentences import labels, write_report

READER = KeywordReader()
STRICT = KeywordReader(uncertain="absent")

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


RUN_ON = "Lung field transparency is good, no obvious consolidation shadow, "

REACH = [
    ("Lung nodule", RUN_ON + "multiple nodules can be seen in both lungs, and bilateral pulmonary hili are not large."),
    ("", RUN_ON + "and bilateral pulmonary hili are not large."),
    ("Lung nodule", "Multiple nodules in both lungs, pleural effusion was not detected."),
    ("", "A mass, nodule or infiltration was not observed."),
    ("", "Pleural effusion: none."),
    ("Emphysema", "Pleural effusion: none. Emphysema: present."),
    ("", "No pleural\neffusion is seen."),
    ("Lung nodule", "Nodules in the lung without calcification in the coronary arteries."),
    ("", "No enlarged lymph nodes in the mediastinum, bilateral hilar or axillary regions were detected."),
    ("", "Heart size is not increased. Lymph nodes are not enlarged. Bronchial walls are not thickened."),
    ("Pleural effusion|Lung nodule", "There is a pleural effusion.No emphysema is seen.A nodule is seen in the lung."),
]

TIME = [
    ("", "Effusion is no longer seen in the pleural space."),
    ("", "The pleural effusion seen in the prior examination is not observed now."),
    ("", "Bronchiectasis has completely regressed."),
    ("", "History of emphysema."),
    ("Pleural effusion", "The pleural effusion has decreased."),
    ("Pleural effusion", "Pleural effusion, without significant change."),
    ("Lung nodule", "A nodule that was not present in the previous examination is observed in the lower lobe."),
    ("Lung nodule", "A previously not described nodule is observed in the lower lobe."),
]

BY_LABEL = [
    ("", "The bronchial tube is open. The wall of the aortic tube is smooth."),
    ("Medical material", "A drainage tube is observed in the left hemithorax."),
    ("Arterial wall calcification", "Normal shape of the heart shadow, and aortic sclerosis."),
    ("Cardiomegaly|Pericardial effusion", "The heart is enlarged with a small amount of pericardial effusion."),
    ("Lymphadenopathy", "Multiple slightly large lymph nodes can be seen in the mediastinum."),
    ("Lymphadenopathy", "Multiple small lymph nodes can be seen in the mediastinum."),
    ("", "Lymph nodes smaller than 1 cm are observed in the mediastinum."),
    ("", "Lymph nodes with a fatty hilum are observed in both axillae."),
    ("Emphysema", "A bulla is observed in the right apex."),
    ("Lung nodule", "A single ground glass nodule is seen in the left upper lobe."),
    ("Lung nodule|Lung opacity", "Multiple ground glass nodules are seen in both lungs."),
    ("", "A nodule of 3 cm is seen in the anterior mediastinum."),
    ("", "Multiple nodules are seen in the left kidney."),
    ("Lung opacity", "Patchy high-density shadows are seen in both lungs."),
    ("", "Patchy high-density shadows are seen in the left cerebellum."),
    ("Bronchiectasis", "Dilatation of the bronchi is observed in the lower lobes."),
    ("", "Slightly dilated bronchi are seen in both lower lungs."),
    ("", "The nasal septum is thickened."),
]


@pytest.mark.parametrize(("expected", "text"), [*SENTENCES, *REACH, *TIME, *BY_LABEL])
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
    assert hits > 100
    assert (extra, missed) == (0, 0)


DOUBT = [
    ("Pleural effusion", "possible", "Pulmonary edema with possible pleural effusion."),
    ("Lymphadenopathy", "cannot be excluded", "Lymphadenopathy cannot be excluded."),
    ("Pleural effusion", "cannot be ruled out", "A pleural effusion cannot be ruled out."),
    ("Consolidation", "suspicious for", "Findings are suspicious for consolidation."),
    ("Pleural effusion", "to rule out", "Ultrasound is advised to rule out pleural effusion."),
    ("Emphysema", "?", "Emphysema?"),
    ("Lung nodule", "?", "A lesion of 5 mm (nodule?) is seen in the lung."),
]


@pytest.mark.parametrize(("label", "cue", "text"), DOUBT)
def test_doubt_counts_by_policy(label, cue, text):
    mention = READER.explain(text)[label]
    assert (mention.status, mention.cue) == ("uncertain", cue)
    assert READER.read(text)[label]
    assert not STRICT.read(text)[label]


@pytest.mark.parametrize(
    "text",
    [
        "A nodule is observed in the right lower lobe (metastasis?).",
        "A nodule is observed in the lung (metastasis? granuloma?).",
        "Possible atelectasis. A nodule is observed in the right lower lobe.",
        "A nodule is observed in the lung. Other nodules cannot be excluded.",
        "A nodule is observed in the lung, and is suspicious for metastasis.",
        "The nodule in the right upper lobe is likely a metastasis.",
    ],
)
def test_doubt_about_something_else_leaves_the_finding(text):
    assert READER.explain(text)["Lung nodule"].status == "present"
    assert STRICT.read(text)["Lung nodule"]


def test_denial_goes_before_doubt():
    assert READER.explain("No suspicious nodule in the lung.")["Lung nodule"].status == "absent"


SECTIONS = [
    (
        "Lung nodule|Atelectasis",
        "CLINICAL HISTORY: Emphysema, pleural effusion.\n\nTECHNIQUE: CT with contrast, by a catheter.\n"
        "COMPARISON: Consolidation in the prior CT.\n\n"
        "FINDINGS:\nThere is a lung nodule.\n\nIMPRESSION:\n1. Atelectasis.",
    ),
    ("Consolidation", "Indication: Emphysema. Findings: Consolidation in the left lung. Impression: Pneumonia."),
    ("Consolidation", "Indication: Emphysema.\n\nConsolidation in the left lung."),
    ("Consolidation", "History: Emphysema\nLungs: Consolidation in the left lung.\nPleura: No pleural effusion."),
    ("", "Reason for exam: pleural effusion"),
    ("Emphysema", "The history of the patient is not known. Emphysema is observed."),
]


@pytest.mark.parametrize(("expected", "text"), SECTIONS)
def test_sections_that_tell_of_something_else_do_not_count(expected, text):
    read = READER.read(text)
    assert {label for label, present in read.items() if present} == set(filter(None, expected.split("|")))


def test_explains_what_decided():
    text = "No nodule was seen in the right lung. A nodule of 6 mm is observed in the left lung. No emphysema."
    explained = READER.explain(text)
    assert tuple(explained) == FINDINGS
    nodule, emphysema = explained["Lung nodule"], explained["Emphysema"]
    assert nodule.clause == "A nodule of 6 mm is observed in the left lung."
    assert nodule.rule in KEYWORDS["Lung nodule"]
    assert (nodule.status, nodule.cue) == ("present", "")
    assert (emphysema.status, emphysema.cue) == ("absent", "No")
    assert explained["Cardiomegaly"] is None


def test_explanation_and_reading_agree():
    for _, text in [*SENTENCES, *REACH, *TIME, *BY_LABEL, *SECTIONS]:
        present = {label for label, m in READER.explain(text).items() if m and m.status != "absent"}
        assert present == {label for label, there in READER.read(text).items() if there}


def test_takes_own_rules_and_survives_pickling():
    reader = KeywordReader({"Fracture": (Rule((r"fractur", r"rib"), unless="old"),)})
    reader = pickle.loads(pickle.dumps(reader))
    assert reader.read("A fracture of the fifth rib is observed.") == {"Fracture": True}
    assert reader.read("An old fracture of the fifth rib is observed.") == {"Fracture": False}


def test_reads_many_reports_quickly():
    sentences = [text for _, text in [*SENTENCES, *REACH, *TIME]]
    # Every text differs, so that the cache of sentences does not do all the work.
    texts = [
        " ".join(f"{s[:-1]} {i}." for s in (sentences[(i + k) % len(sentences)] for k in range(18))) for i in range(300)
    ]
    assert sum(len(text.split()) for text in texts) / len(texts) > 150
    start = time.process_time()
    for text in texts:
        READER.read(text)
    assert time.process_time() - start < 10  # about 1 s on one core; the margin is for loaded machines
