"""Text behind the visual tokens of a region is what the prompt would have had there from the start."""

import numpy as np
import pytest
import torch

from reg2rg.data.batch import Sample, collate
from reg2rg.data.prompt import IGNORED, REGION_PREFIX, PromptEncoder, TokenCounts
from reg2rg.evaluation.labelers import RuleLabeler
from reg2rg.models.cues import CueWriter, cue_text, order_in_text

COUNTS = TokenCounts(texture=2, geometry=1, global_=2)


@pytest.fixture(scope="module")
def encoder(toy) -> PromptEncoder:
    from transformers import AutoTokenizer

    return PromptEncoder(AutoTokenizer.from_pretrained(toy.lm), COUNTS)


def sample(encoder: PromptEncoder, study: str, regions: tuple[str, ...]) -> Sample:
    texts = tuple(f"The {name} is normal." for name in regions)
    return Sample(study, regions, texts, encoder.encode_sample(regions, texts))


@pytest.fixture
def batch(encoder):
    samples = [sample(encoder, "a", ("lung", "heart", "bone")), sample(encoder, "b", ("heart", "lung"))]
    return collate(samples, COUNTS, encoder.pad_id)


CUES = [[11, 12], [], [13], [14, 15, 16], [17]]


def tokens(batch, row: int) -> list[int]:
    """The row as a list: slots as negative rows of the table, the rest as ids, no padding."""
    ids = batch.input_ids[row].clone()
    own = batch.visual_rows == row
    ids[batch.visual_cols[own]] = -1 - batch.visual_source[own]
    return ids[batch.attention_mask[row]].tolist()


def test_cues_stand_behind_the_tokens_of_their_region(encoder, batch) -> None:
    cued = batch.cued(CUES, encoder.pad_id)
    for row, cues in enumerate((CUES[:3], CUES[3:])):
        before, closes = tokens(batch, row), -1 - 3  # the tag that closes a region
        wanted, count = [], 0
        for token in before:
            wanted.append(token)
            if token == closes:
                wanted += cues[count]
                count += 1
        assert tokens(cued, row) == wanted
    assert torch.equal(cued.labels[cued.labels != IGNORED], batch.labels[batch.labels != IGNORED])
    assert torch.equal(cued.label_region, batch.label_region)
    assert cued.attention_mask.sum() == batch.attention_mask.sum() + sum(map(len, CUES))


def test_they_stand_there_in_prompts_for_generation_too(encoder, batch) -> None:
    cued, plain = batch.cued(CUES, encoder.pad_id).prompts(encoder.pad_id), batch.prompts(encoder.pad_id)
    for row in range(2):
        ids = tokens(cued, row)
        assert [token for token in ids if token not in range(11, 18)] == [
            token for token in tokens(plain, row) if token not in range(11, 18)
        ]
        assert not (cued.labels != IGNORED).any()


def test_what_the_prompt_encoder_would_write(encoder, batch) -> None:
    """A cue that is tokenised by itself is the piece that a prompt of such pieces has."""
    words = CueWriter(encoder.tokenizer).ids(0, ("Cardiomegaly",))
    assert words == encoder._tokens(". The region 0 is with cardiomegaly")
    cued = batch.cued([words, [], [], [], []], encoder.pad_id)
    end = tokens(cued, 0).index(-1 - 3) + 1
    after = encoder._tokens(". " + REGION_PREFIX.format(slot=1))
    assert tokens(cued, 0)[end : end + len(words) + len(after)] == [*words, *after]


def test_the_words_of_a_cue() -> None:
    both = ". The region 3 is with hiatal hernia. The region 3 is with lung nodule"
    assert cue_text(3, ("Hiatal hernia", "Lung nodule")) == both
    assert cue_text(0, ()) == ". The region 0 is with no finding"


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("Nodule of 20 mm in the right upper lobe. Emphysema is present.", ["Lung nodule", "Emphysema"]),
        ("Emphysema is present. Nodule of 2.5 mm in the right upper lobe.", ["Emphysema", "Lung nodule"]),
        ("A nodule beside emphysema. A nodule.", ["Emphysema", "Lung nodule"]),
        ("No nodule is seen.", []),
        ("", []),
    ],
)
def test_labels_in_the_order_of_a_text(text, order) -> None:
    labeler = RuleLabeler()
    assert [labeler.labels[place] for place in order_in_text(text, labeler.label)] == order


def test_no_cues_change_nothing(encoder, batch) -> None:
    cued = batch.cued([[]] * 5, encoder.pad_id)
    for name in ("input_ids", "attention_mask", "labels", "visual_cols"):
        assert torch.equal(getattr(cued, name), getattr(batch, name))


def test_attributes_are_packed_as_encoders_take_them(encoder) -> None:
    counts = TokenCounts(0, 0, 0, attributes=1)
    writer = PromptEncoder(encoder.tokenizer, counts)
    measured = [np.arange(6, dtype=np.float32).reshape(2, 3), np.full((1, 3), 9, np.float32)]
    samples = [
        Sample(study, regions, ("",) * len(regions), writer.encode_sample(regions, with_target=False), attributes=own)
        for study, regions, own in zip("ab", (("lung", "heart"), ("bone",)), measured, strict=True)
    ]
    packed = collate(samples, counts, writer.pad_id)
    assert packed.attributes is not None
    assert packed.attributes.shape == (3, 1, 3, 1, 1)
    assert packed.attributes[2].flatten().tolist() == [9.0, 9.0, 9.0]
    assert packed.visual_source.tolist() == [2, 4, 3, 2, 5, 3, 2, 6, 3]
