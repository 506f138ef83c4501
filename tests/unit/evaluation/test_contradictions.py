import pytest

from reg2rg.evaluation.contradictions import compare


def kinds(predicted, reference):
    said, known = compare(predicted, reference)
    return [one.kind for one in said], [one.kind for one in known]


@pytest.mark.parametrize(
    ("predicted", "reference", "why"),
    [
        ("Nodule of 8 mm in the right upper lobe.", "Calcified nodule of 8 mm in the left upper lobe.", "another side"),
        ("A nodule is seen in the upper lobe.", "A nodule is seen in the lower lobe.", "another place"),
        ("Pericardial effusion of 5 mm.", "Pericardial effusion of 1.5 cm.", "another size"),
        ("Mild pleural thickening.", "Severe pleural thickening.", "another extent"),
        ("No pleural effusion.", "Pleural effusion is observed.", "affirmed"),
        ("Renal stone on the left.", "No renal stone is seen.", "denied"),
        ("The spleen is unremarkable.", "The spleen is lacerated.", "affirmed"),
    ],
)
def test_sentences_that_contradict_each_other(predicted, reference, why):
    [said], [known] = compare(predicted, reference)
    assert (said.kind, known.kind) == ("against", "against")
    assert said.why == f"{why}; the reference says: {reference}"
    assert known.why.endswith(f"the prediction says: {predicted}")


@pytest.mark.parametrize(
    ("predicted", "reference"),
    [
        ("Nodule of 8 mm in the right lung.", "A nodule measuring 9 mm is present in the right upper lobe."),
        ("Nodule of 9 x 5 mm in the right lung.", "Nodule of 9 mm in the right lung."),  # the largest counts
        ("Enlarged heart, larger than normal.", "Cardiomegaly is observed."),  # one finding of the labeler
        ("Calcifications of the aorta.", "The aorta is calcified."),
        ("No pleural effusion.", "Pleura is normal."),
        ("No change of the renal stone.", "Renal stone."),
        ("Effusion on both sides.", "Bilateral effusion."),
    ],
)
def test_sentences_that_agree(predicted, reference):
    assert kinds(predicted, reference) == ([""], [""])


def test_what_one_text_alone_says():
    said, known = compare("Liver cyst of 20 mm. No effusion.", "Gallbladder stone is seen. Spleen is normal.")
    assert [one.kind for one in said] == ["extra", ""]
    assert [one.kind for one in known] == ["missed", ""]
    assert (said[0].why, known[0].why) == ("the reference does not say it", "the prediction does not say it")


def test_a_region_called_normal_contradicts_a_finding_that_shares_no_word():
    said, known = compare("Osteophytes at the corners.", "Bones are normal.")
    assert said[0].why == "the reference calls it normal: Bones are normal."
    assert known[0].kind == ""


def test_another_sentence_that_agrees_settles_it():
    assert kinds("Nodule in the left lung.", "Nodule in the right lung. Nodule in the left lung.")[0] == [""]


def test_without_a_reference_nothing_is_marked():
    assert compare("Nodule. Mass.", " ") == (compare("Nodule. Mass.", "")[0], ())
    assert kinds("Nodule. Mass.", "") == (["", ""], [])
    assert kinds("", "A mass.") == ([], ["missed"])


def test_two_findings_of_one_organ_do_not_contradict_each_other():
    mosaic, nodule = "Mosaic attenuation pattern is observed in both lungs.", "No nodule was observed in both lungs."
    assert kinds(mosaic, nodule) == (["extra"], [""])
    assert kinds(f"{mosaic} No consolidation or ground glass area was observed.", f"{mosaic} {nodule}") == (
        ["", ""],
        ["", ""],
    )


@pytest.mark.parametrize("text", ["The lung is large.", "Both lungs. The right lobe.", "Large. Small.", "No change."])
def test_a_text_agrees_with_itself(text):
    said, missed = compare(text, text)
    assert [marked.kind for marked in (*said, *missed)] == [""] * len(said) * 2
