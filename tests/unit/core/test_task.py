"""The one record of what a model sees and writes: held to its bounds, compared and brought over field by field."""

import dataclasses
import json

import pytest

from reg2rg.core.errors import ConfigError
from reg2rg.core.regions import Region, RegionSet
from reg2rg.core.task import INSTRUCTION, TAIL_INSTRUCTION, WHOLE_INSTRUCTION, ReportTask, Views, with_task

OTHER = ReportTask(
    "lobes",
    Views((8, 8, 4), (-500, 900), True, "LPS", (1.0, 1.0, 3.0), clip="last"),
    "joined",
    False,
    "listed",
    "Report.",
    99,
    True,
)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"regions": "lung"}, "Unknown region set 'lung'"),
        ({"target": "song"}, "target is 'song' .*regions, joined, whole"),
        ({"order": "sorted"}, "order is 'sorted' .*shuffled, listed, listed_in_evaluation"),
        ({"identity": 1}, "identity is 1 .*true or false"),
        ({"instruction": None}, "instruction is None .*text"),
        ({"tail": "on"}, "tail is 'on' .*true or false"),
        ({"independent_paragraphs": 1}, "independent_paragraphs is 1 .*true or false"),
        ({"max_length": 0}, "max_length is 0"),
        ({"max_length": True}, "max_length is True .*whole number"),
        ({"size": [16, 16]}, r"views\.size is \(16, 16\)"),
        ({"size": [16, 16.5, 16]}, r"views\.size"),
        ({"views": {"window": [200, -1000]}}, r"views\.window is \(200, -1000\)"),
        ({"views": {"coupled": "no"}}, r"views\.coupled is 'no'"),
        ({"views": {"clip": "never"}}, r"views\.clip is 'never' \(expected first or last\)"),
        ({"orientation": "RLS"}, "one letter each"),
        ({"spacing": [1, 0, 1]}, "three lengths in mm"),
        ({"instrution": "Say."}, "unknown key 'instrution'. Did you mean 'instruction'"),
    ],
)
def test_what_cannot_be_is_refused(values, said):
    with pytest.raises(ConfigError, match=said):
        ReportTask.of(values)


@pytest.mark.parametrize("task", [ReportTask(), OTHER, ReportTask(RegionSet("mine", (Region("spleen"),)))])
def test_plain_values_make_the_same_task(task):
    values = json.loads(json.dumps(task.values()))
    assert not task.differences(values)
    again = ReportTask.of(values | {"regions": task.regions})
    assert not again.differences(task)
    assert again.views == task.views
    flat = {**values.pop("views"), **values, "regions": task.regions}
    assert ReportTask.of(flat) == again


def test_every_field_counts_in_a_comparison():
    """Fields are told one by one, so that a new one needs no other place that knows it."""
    features = ReportTask(views=Views(features="colipri", channels=768))
    picture = ReportTask(views=Views(intensity="picture", intensity_range=(0, 255)))
    apart = ReportTask(independent_paragraphs=True)
    told = {
        name: pair
        for task in (features, picture, apart, OTHER)
        for name, pair in task.differences(ReportTask()).items()
    }
    names = {field.name for field in dataclasses.fields(ReportTask)} - {"views"}
    assert told.keys() == names | {f"views.{field.name}" for field in dataclasses.fields(Views)}
    assert told["max_length"] == (99, 2048)


def test_what_older_values_lack_is_the_default():
    older = ReportTask().values()
    del older["order"], older["independent_paragraphs"], older["views"]["spacing"]
    assert not ReportTask().differences(older)
    assert OTHER.differences(older)["order"] == ("listed", "shuffled")


def test_the_instruction_follows_the_target_unless_it_is_given():
    assert ReportTask().instruction_text == INSTRUCTION
    assert dataclasses.replace(ReportTask(), target="whole").instruction_text == WHOLE_INSTRUCTION
    assert dataclasses.replace(ReportTask(instruction="Say."), target="whole").instruction_text == "Say."


def test_a_model_takes_regions_order_and_length_from_the_data_and_nothing_else():
    three = RegionSet("three", (Region("heart"), Region("lung"), Region("spleen")))
    model = dataclasses.replace(OTHER, regions=three)
    data = ReportTask(RegionSet("two", (Region("spleen"), Region("heart"))), order="shuffled", max_length=512)
    adopted = model.adopted(data)
    assert adopted.region_set.names == ("heart", "spleen")  # in the model's order
    assert (adopted.order, adopted.max_length) == ("shuffled", 512)
    assert dataclasses.replace(adopted, regions=three, order="listed", max_length=99) == model
    assert not model.adopted(adopted).differences(adopted)


def test_regions_that_a_model_does_not_know_are_refused():
    with pytest.raises(ConfigError, match="'lobes' of the data has left upper lobe"):
        ReportTask().adopted(OTHER)


@pytest.mark.parametrize("config", [{"trainer": {}}, {"model": {"llm": {}}}, {"task": {"order": "listed"}, "data": {}}])
def test_a_config_without_fields_to_move_stays_as_it_is(config):
    assert with_task(config) == config


def test_a_tail_asks_for_itself_and_tasks_of_before_have_none():
    assert ReportTask(tail=True).instruction_text == INSTRUCTION + TAIL_INSTRUCTION
    assert ReportTask(tail=True).instruction_text.endswith(
        "generating each region report. For those reports that have no specific region associated with them, "
        "generate an 'other report' at the end."
    )
    assert ReportTask(tail=True, instruction="Report.").instruction_text == "Report."
    assert ReportTask(tail=True, target="whole").instruction_text == WHOLE_INSTRUCTION
    before = {name: value for name, value in ReportTask().values().items() if name != "tail"}
    assert not ReportTask.of(before | {"regions": "radgenome"}).tail
    assert not ReportTask().differences(before)
