"""What a head learns from texts and validation, and that it finds what its tokens show."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from reg2rg.core.errors import ConfigError
from reg2rg.models.heads import FindingsHead, HeadInputs
from reg2rg.models.heads.omissions import OmissionControl
from reg2rg.models.heads.operating import OperatingPoint, OperatingPoints

REGIONS = ("heart", "lung")
INPUTS = HeadInputs(width=8, tokens=2, image=1, regions=REGIONS)
CARDIOMEGALY, NODULE = 2, 9


def test_targets_are_what_the_labeler_reads():
    told = FindingsHead(INPUTS).targets(["Cardiomegaly is observed.", "No nodule was observed in both lungs.", ""])
    assert [row.nonzero()[0].tolist() for row in told] == [[CARDIOMEGALY], [], []]


def test_labels_that_a_regions_texts_never_state_have_no_probability_and_no_loss():
    head = FindingsHead(INPUTS, rarest=0.1).eval()
    stated = np.zeros((2, 18), np.int64)
    stated[0, CARDIOMEGALY], stated[1, NODULE], stated[1, CARDIOMEGALY] = 20, 30, 9  # of 100; 9 is too rare
    head.learn(stated, np.array([100, 100]))
    assert head.possible.nonzero().tolist() == [[0, CARDIOMEGALY], [1, NODULE]]
    assert math.isclose(float(head.odds[0, CARDIOMEGALY]), math.log(20.5 / 80.5), rel_tol=1e-5)
    region, logits = torch.tensor([0, 1]), torch.full((2, 18), 1.5)
    shares = head.probabilities(logits, region)
    assert (shares > 0).nonzero().tolist() == [[0, CARDIOMEGALY], [1, NODULE]]
    targets = torch.ones(2, 18, dtype=torch.bool)
    targets[1, NODULE] = False
    wanted = -math.log(1 / (1 + math.exp(-1.5))) - math.log(1 - 1 / (1 + math.exp(-1.5)))
    assert math.isclose(float(head.loss(logits, region, targets)), wanted, rel_tol=1e-5)


def test_it_learns_which_token_shows_a_finding():
    torch.manual_seed(0)
    head = FindingsHead(INPUTS, dropout=0.0)
    tokens, image, region = torch.randn(200, 2, 8), torch.randn(200, 1, 8), torch.arange(200) % 2
    targets = torch.zeros(200, 18, dtype=torch.bool)
    targets[:, NODULE] = tokens[:, 1, 3] > 0.3
    targets[:, CARDIOMEGALY] = image[:, 0, 5] > 0.3
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    for _ in range(120):
        optimizer.zero_grad()
        head.loss(head(tokens, image, region), region, targets).backward()
        optimizer.step()
    right = (head(tokens, image, region) > 0) == targets
    assert float(right[:, [CARDIOMEGALY, NODULE]].float().mean()) > 0.97


def test_without_the_image_its_tokens_do_not_matter():
    head, given = FindingsHead(INPUTS, image=False).eval(), (torch.randn(4, 2, 8), torch.arange(4) % 2)
    one, other = (head(given[0], torch.randn(4, 1, 8), given[1]) for _ in range(2))
    assert torch.equal(one, other)


def test_a_model_without_visual_tokens_takes_no_head():
    with pytest.raises(ConfigError, match=r"no visual token.*Fix: give model.texture"):
        FindingsHead(HeadInputs(8, 0, 0, REGIONS))


@pytest.mark.parametrize("true", [0.4, 1.0, 3.0])
def test_the_temperature_is_the_one_that_labels_were_drawn_with(true):
    torch.manual_seed(1)
    head, logits, region = FindingsHead(INPUTS), torch.randn(4000, 18) * 2, torch.zeros(4000, dtype=torch.long)
    targets = torch.rand(4000, 18) < (logits / true).sigmoid()
    assert math.isclose(head.cool(logits, region, targets), true, rel_tol=0.05)
    costs = [F.binary_cross_entropy_with_logits(logits / t, targets.float()) for t in (float(head.temperature), true)]
    assert costs[0] <= costs[1] + 1e-6


class TestOperatingPoint:
    @pytest.mark.parametrize(
        ("text", "kind", "target"),
        [("f1", "f1", 0.0), ("precision=.9", "precision", 0.9), (" Recall=0.95 ", "recall", 0.95)],
    )
    def test_is_read(self, text, kind, target):
        point = OperatingPoint.of(text)
        assert (point.kind, point.target) == (kind, target)

    @pytest.mark.parametrize("text", ["", "f2", "precision", "precision=2", "recall=-.5", "accuracy=.9"])
    def test_anything_else_is_refused(self, text):
        with pytest.raises(ConfigError, match=r"expected f1, or precision= or recall="):
            OperatingPoint.of(text)

    def test_thresholds_reach_what_is_asked_on_the_counted_studies(self):
        torch.manual_seed(0)
        points = OperatingPoints(1, 1)
        shares = torch.rand(20000, 1)
        targets = torch.rand(20000, 1) < shares
        points.count(shares, torch.zeros(20000, dtype=torch.long), targets, torch.ones(1, 1).bool())
        found = {}
        for text in ("f1", "precision=.9", "precision=.7", "recall=.9", "recall=.5"):
            said = shares >= points.thresholds(OperatingPoint.of(text))[0, 0]
            hits = float((said & targets).sum())
            found[text] = (hits / float(said.sum()), hits / float(targets.sum()))
        assert 0.9 <= found["precision=.9"][0] < 0.93
        assert 0.7 <= found["precision=.7"][0] < 0.73
        assert 0.9 <= found["recall=.9"][1] < 0.93
        assert 0.5 <= found["recall=.5"][1] < 0.55
        # Probabilities that are right: F1 is highest where the threshold is half of it; 0.382 for uniform ones.
        assert math.isclose(float(points.thresholds(OperatingPoint.of("f1"))), 0.382, abs_tol=0.04)

    def test_a_precision_that_guessing_reaches_names_everything_and_recall_1_misses_nothing(self):
        points, targets = OperatingPoints(1, 1), torch.tensor([[True], [False], [False], [False]])
        shares = torch.tensor([[1e-4], [1e-6], [0.0], [1e-5]])  # a head as sharp as it is on phantoms
        points.count(shares, torch.zeros(4, dtype=torch.long), targets, torch.ones(1, 1).bool())
        for text in ("precision=.25", "precision=.1", "recall=1"):
            assert float(points.thresholds(OperatingPoint.of(text))) == 0, text
        assert float(points.thresholds(OperatingPoint.of("precision=.3"))) > 0.99  # none reaches it

    def test_what_a_region_cannot_have_is_not_claimed_at_a_threshold_of_0(self):
        """Of one label of twenty: 1 of 4 is right if all are named, however many labels others have."""
        points, possible = OperatingPoints(1, 20), torch.zeros(1, 20).bool()
        possible[0, 0] = True
        shares, targets = torch.zeros(4, 20), torch.zeros(4, 20).bool()
        shares[:, 0], targets[:, 0] = torch.tensor([1e-4, 1e-6, 0, 1e-5]), torch.tensor([True, False, False, False])
        points.count(shares, torch.zeros(4, dtype=torch.long), targets, possible)
        assert points.claimed[0, :, 0].tolist() == [4, *[0] * 19]
        assert float(points.thresholds(OperatingPoint.of("precision=.25"))[0, 0]) == 0

    def test_nothing_counted_is_a_half_and_a_label_without_positives_follows_the_others(self):
        points = OperatingPoints(2, 2)
        assert torch.equal(points.thresholds(OperatingPoint.of("f1")), torch.full((2, 2), 0.5))
        shares = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.2, 0.1]])
        targets = torch.tensor([[True, False], [True, False], [False, False]])
        points.count(shares, torch.zeros(3, dtype=torch.long), targets, torch.ones(2, 2).bool())
        chosen = points.thresholds(OperatingPoint.of("f1"))
        assert 0.2 < float(chosen[0, 0]) <= 0.8
        assert torch.equal(chosen[1], chosen[1, :1].expand(2))
        assert 0.2 < float(chosen[1, 0]) <= 0.8


class TestOmissionControl:
    def test_a_new_paragraphs_findings_lie_above_the_bound_at_the_stated_rate(self):
        """Over 400 calibrations of 60 paragraphs, each with a new one."""
        generator, below, alpha = torch.Generator().manual_seed(0), 0, 0.1
        for _ in range(400):
            shares = torch.rand(61, 3, generator=generator)
            present = torch.zeros(61, 3, dtype=torch.bool)
            present[:, 0] = True
            present[:, 1] = torch.rand(61, generator=generator) < 0.3
            control, region = OmissionControl(1), torch.zeros(61, dtype=torch.long)
            control.calibrate(shares[:60], region[:60], present[:60], alpha)
            new = shares[60][present[60]].min()
            below += bool(new < control.bound[0])
        assert abs(below / 400 - 6 / 61) < 3 * (0.098 * 0.902 / 400) ** 0.5  # exactly floor(0.1 * 61) / 61

    def test_a_paragraph_is_marked_that_leaves_out_what_it_may_not(self):
        control = OmissionControl(2)
        shares = torch.linspace(0.05, 0.95, 19)[:, None].repeat(1, 2)
        present = torch.tensor([[True, False]]).expand(19, 2)
        control.calibrate(shares, torch.zeros(19, dtype=torch.long), present, 0.1)
        assert math.isclose(float(control.bound[0]), 0.1, rel_tol=1e-5)  # the second of 20 ranks
        assert control.used.tolist() == [19.0, 0.0]
        probabilities, possible = torch.tensor([[0.5, 0.5], [0.05, 0.5], [0.5, 0.0]]), torch.tensor([[True, False]] * 2)
        said = torch.tensor([[False, False], [False, False], [True, False]])
        wanting = control.wanting(probabilities, torch.zeros(3, dtype=torch.long), said, possible)
        assert wanting.tolist() == [[True, False], [False, False], [False, False]]

    def test_too_few_paragraphs_promise_nothing_so_that_all_are_marked(self):
        control = OmissionControl(1)
        assert not control.calibrated
        control.calibrate(torch.rand(8, 1), torch.zeros(8, dtype=torch.long), torch.ones(8, 1, dtype=torch.bool), 0.1)
        assert control.calibrated
        assert float(control.bound[0]) == 0.0
