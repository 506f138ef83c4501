"""An audit tells honest models from cheats, goes on where it stopped, and never mixes two."""

import json

import pytest

from audit_cheats import REGIONS, SAYS, Commonest, Honest, Leaks, ReadsGlobal, RemembersOrder, cases
from reg2rg.audit.measures import Outcomes, audit_statistics, compare_audits, measure_audit
from reg2rg.audit.plan import INTERVENTIONS, Case, donors_of
from reg2rg.audit.records import AuditFolder, StudyRecord
from reg2rg.audit.run import audit
from reg2rg.core.errors import ConfigError
from reg2rg.evaluation.labelers import RuleLabeler

LABELER = RuleLabeler()


def audited(kind, folder, **options):
    studies = options.pop("studies", None) or cases()
    return audit(kind(studies), LABELER, AuditFolder(folder), batch=7, **options)


def numbers(records, scope="report"):
    found = [number for kind in measure_audit(Outcomes(records, LABELER), resamples=400) for number in kind]
    return {number.name: number for number in found if number.scope == scope}


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    return audited(Honest, tmp_path_factory.mktemp("honest"))


def test_the_honest_one_is_inside(honest):
    found = numbers(honest)
    assert found["follow rate"].value == found["follow rate"].low == 1.0
    assert found["follow rate, words"].value == found["told apart"].value == 1.0
    assert found["leak rate"].value == found["leak rate"].high == 0.0
    assert found["F1"].value == 1.0
    assert found["prior share"].value == found["F1, no image"].value == 0.0
    assert numbers(honest, "same")["changed"].value == 0.0
    assert numbers(honest, "no_global")["changed"].value == 0.0


@pytest.mark.parametrize("cheat", [RemembersOrder, Commonest, Leaks, ReadsGlobal])
def test_every_cheat_is_outside(cheat, honest, tmp_path):
    found, fair = numbers(audited(cheat, tmp_path)), numbers(honest)
    follow, leak = found["follow rate"], found["leak rate"]
    assert follow.value < 0.7 or leak.value > 0.1
    assert follow.high < fair["follow rate"].low or leak.low > fair["leak rate"].high
    inside = follow.high >= 0.7 and leak.low <= 0.1
    assert not inside


def test_what_gives_each_cheat_away(tmp_path):
    order, global_, leaks = (audited(kind, tmp_path / kind.__name__) for kind in (RemembersOrder, ReadsGlobal, Leaks))
    assert numbers(order)["prior share"].value == 1.0
    assert numbers(global_)["follow rate"].value == 0.0
    assert numbers(global_, "no_global")["F1 after"].value == 0.0
    assert numbers(leaks)["leak rate"].value > 0.1
    assert numbers(audited(Commonest, tmp_path / "c"))["told apart"].value == 0.0


def test_a_mixed_region_keeps_its_texture(honest):
    assert numbers(honest, "mixed")["follow rate"].value == 0.0
    assert numbers(honest, "mixed")["changed"].value == 0.0


def test_numbers_by_region_and_finding(honest):
    _, regions, findings = measure_audit(Outcomes(honest, LABELER), resamples=50)
    by_key = {(number.scope, number.name): number for number in (*regions, *findings)}
    assert {scope for scope, name in by_key if name == "leak rate"} == set(REGIONS)
    assert by_key["heart", "follow rate"].value == 1.0
    assert by_key["Cardiomegaly", "follow rate"].n == by_key["heart", "follow rate"].n
    assert by_key["Lung nodule", "F1, no image"].value == 0.0
    assert ("Emphysema", "follow rate") not in by_key  # nothing to follow


def test_counts_by_hand():
    """Two patients who differ in the heart alone; the second of them does not follow."""
    normal, large, clear = SAYS["heart"][1], SAYS["heart"][0], SAYS["lung"][1]

    def record(study, own, after, leaked):
        trials = [
            {"intervention": "swap", "region": "heart", "changed": after},
            {"intervention": "swap", "region": "lung", "changed": leaked},
        ]
        return StudyRecord.of({
            "study": study, "patient": study, "regions": ["heart", "lung"], "references": {"heart": own, "lung": clear},
            "donors": dict.fromkeys(("heart", "lung"), "b" if study == "a" else "a"),
            "paragraphs": [own, clear], "trials": trials,
        })  # fmt: skip

    outcomes = Outcomes([record("a", large, {"0": normal}, {}), record("b", normal, {}, {"0": large})], LABELER)
    found = {(one.scope, one.name): one.number() for one in audit_statistics(outcomes)}
    assert (found["report", "follow rate"].value, found["report", "follow rate"].n) == (0.5, 2)
    assert (found["report", "leak rate"].value, found["report", "leak rate"].n) == (0.25, 4)
    assert found["heart", "leak rate"].value == 0.0
    assert found["lung", "leak rate"].value == 0.5
    leak = found["Cardiomegaly", "leak rate, findings"]
    assert (leak.value, leak.n) == (0.25, 4)  # each swap looks at one other paragraph
    [first, second, *_] = [swap for swap in outcomes.swaps() if swap.region == "heart"]
    assert first.followed == first.findings == ("Cardiomegaly",)
    assert (second.followed, second.findings) == ((), ("Cardiomegaly",))


def test_donors_differ_where_they_can():
    studies = cases()
    donors = donors_of(studies, LABELER, seed=0)
    by_study = {case.study: case for case in studies}
    for case in studies:
        for region, donor in donors[case.study].items():
            assert by_study[donor].patient != case.patient
            assert by_study[donor].references[region] != case.references[region]
    assert donors_of(studies[::-1], LABELER, seed=0) == donors
    assert donors_of(studies, LABELER, seed=1) != donors


def test_it_goes_on_where_it_was_interrupted(tmp_path):
    studies = cases(8)
    whole = audit(Honest(studies), LABELER, AuditFolder(tmp_path / "whole"))

    class Interrupted(Honest):
        def facts(self):
            return {"model": "Honest"}

        def write(self, tokens, named=False):
            if tokens[0].study == "s03":
                raise KeyboardInterrupt
            return super().write(tokens, named)

    folder = AuditFolder(tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        audit(Interrupted(studies), LABELER, folder)
    assert folder.done() == {"s00", "s01", "s02"}
    rest = Honest(studies)
    assert audit(rest, LABELER, folder) == whole
    assert len(rest.reads) == len(set(rest.reads))  # each study is encoded once


def test_damage_is_made_anew(tmp_path):
    studies = cases(4)
    whole = audit(Honest(studies), LABELER, AuditFolder(tmp_path))
    path = tmp_path / "studies" / "s02.json"
    path.write_text(path.read_text().replace("s02", "s99"))
    assert AuditFolder(tmp_path).done() == {"s00", "s01", "s03"}
    assert audit(Honest(studies), LABELER, AuditFolder(tmp_path)) == whole


def test_two_audits_are_not_mixed(tmp_path):
    audited(Honest, tmp_path, studies=cases(4))
    with pytest.raises(ConfigError, match="another model"):
        audited(Leaks, tmp_path, studies=cases(4))
    with pytest.raises(ConfigError, match="another interventions"):
        audited(Honest, tmp_path, studies=cases(4), interventions=["swap"])
    with pytest.raises(ConfigError, match="another references and donors, studies"):
        audited(Honest, tmp_path, studies=cases(5))


def test_what_cannot_be_audited(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean"):
        audited(Honest, tmp_path, studies=cases(4), interventions=["swop"])
    with pytest.raises(ConfigError, match="'dilated' cannot be made here: stand-ins have no masks"):
        audited(Honest, tmp_path, studies=cases(4), interventions=["dilated"])
    one = cases(1)
    with pytest.raises(ConfigError, match="two patients"):
        audited(Honest, tmp_path, studies=[*one, Case("s99", one[0].patient, one[0].references)])


def test_a_comparison_is_paired(honest, tmp_path):
    leaks, ours = audited(Leaks, tmp_path), Outcomes(honest, LABELER)
    found = {one.number.name: one for one in compare_audits(ours, leaks, resamples=200)
             if one.number.scope == "report"}  # fmt: skip
    assert found["leak rate"].high < 0
    assert found["leak rate"].p < 0.05
    assert found["leak rate"].other > 0.1
    same = compare_audits(ours, honest, resamples=50)
    assert {(one.low, one.high) for one in same} == {(0.0, 0.0)}
    with pytest.raises(ValueError, match="no study in common"):
        compare_audits(ours.also(honest[:3]), leaks[5:])


def test_records_are_small_and_plain(tmp_path):
    [record, *_] = audited(Honest, tmp_path, studies=cases(4))
    assert StudyRecord.of(json.loads(json.dumps(record.plain()))) == record
    same = next(trial for trial in record.trials if trial.intervention == "same")
    assert same.changed == {}
    assert record.after(same) == record.paragraphs
    assert set(INTERVENTIONS) > {trial.intervention for trial in record.trials}
