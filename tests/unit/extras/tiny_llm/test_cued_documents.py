"""Documents name findings as a prompt with cues does."""

import random

import torch

from reg2rg.evaluation.labelers import RuleLabeler
from reg2rg.extras.tiny_llm.build import train_tokenizer
from reg2rg.extras.tiny_llm.documents import DocumentWriter
from reg2rg.models.cues import CueWriter, order_in_text
from summed_gradients import unordered_sums

REPORTS = [
    {"heart": "Cardiomegaly is observed.", "bone": "No lytic lesion."},
    {"heart": "The heart is of normal size.", "bone": "Bones are natural."},
]
TEXTS = [text for report in REPORTS for text in report.values()]


LISTS = [
    {"lung": "Nodule in the right lobe. Emphysema in both lungs.", "bone": "Bones are natural."},
    {"lung": "Consolidation in the left lobe. No effusion.", "bone": "Bones are natural."},
    {"lung": "Lungs are clear.", "bone": "Bones are natural."},
]


def written(labeler: RuleLabeler | None) -> tuple[list[tuple[str, str, list[int]]], CueWriter]:
    """Region, its text, and the ids of the prompt behind its slots, of many documents."""
    tokenizer = train_tokenizer([*TEXTS, "The region 0 is with no finding."], 400)
    writer, rng, found = DocumentWriter(tokenizer, REPORTS, labeler=labeler), random.Random(0), []
    for _ in range(60):
        document = writer.write(rng, 2)
        report = tokenizer.decode(document.ids[document.start :])
        last = max(slot for slot in document.slots)
        end = document.ids[last + 2 : document.start - len(writer._tokens("."))]  # behind the slots and their tag
        name = "heart" if report.index("heart:") > report.find("bone:") else "bone"
        study = next(one for one in REPORTS if one[name].rstrip(".") in report)
        found.append((name, study[name], end))
    return found, CueWriter(tokenizer)


def test_most_regions_that_may_have_findings_say_which() -> None:
    found, cues = written(RuleLabeler())
    hearts = [(text, ids) for name, text, ids in found if name == "heart"]
    said = [ids for _, ids in hearts if ids]
    assert 0.75 < len(said) / len(hearts) < 1.0
    wanted = {REPORTS[0]["heart"]: ("Cardiomegaly",), REPORTS[1]["heart"]: ()}
    assert all(not ids or ids == cues.ids(1, wanted[text]) for text, ids in hearts)
    assert not any(ids for name, _, ids in found if name == "bone")


def test_threads_do_not_decide_in_which_order_gradients_are_summed() -> None:
    tokenizer = train_tokenizer(TEXTS, 400)
    table = torch.rand(len(tokenizer), 8, requires_grad=True)
    batch = DocumentWriter(tokenizer, REPORTS).batch(random.Random(0), 2, 200)
    assert unordered_sums(lambda: table[batch.ids].sum())  # words repeat
    assert unordered_sums(lambda: batch.embed(table).sum()) == []


def test_without_a_labeler_none_does() -> None:
    assert not any(ids for _, _, ids in written(None)[0])


def test_most_of_the_texts_that_may_state_findings_are_of_sentences_of_several_studies() -> None:
    labeler = RuleLabeler()
    tokenizer = train_tokenizer([text for report in LISTS for text in report.values()], 400)
    writer, rng = DocumentWriter(tokenizer, LISTS, labeler=labeler), random.Random(0)
    known = {sentence for report in LISTS for sentence in report["lung"].split(". ")}
    texts = [writer._text("lung", LISTS[place % 3]["lung"], rng) for place in range(300)]
    composed = [text for text, _ in texts if text not in {report["lung"] for report in LISTS}]
    assert 0.4 < len(composed) / len(texts) < 0.7  # some come out as they were
    assert any(len(labels or ()) == 3 for _, labels in texts)
    for text, labels in texts:
        assert {one.rstrip(".") for one in text.split(". ")} <= {one.rstrip(".") for one in known}
        assert labels == tuple(labeler.labels[place] for place in order_in_text(text, labeler.label))
    assert writer._text("bone", "Bones are natural.", rng) == ("Bones are natural.", None)


def test_without_a_labeler_texts_are_those_of_studies() -> None:
    tokenizer = train_tokenizer([text for report in LISTS for text in report.values()], 400)
    writer, rng = DocumentWriter(tokenizer, LISTS), random.Random(0)
    state = rng.getstate()
    assert all(writer._text("lung", report["lung"], rng) == (report["lung"], None) for report in LISTS)
    assert rng.getstate() == state
