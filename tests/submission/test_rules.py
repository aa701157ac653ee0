"""Each of the harness's checks objects to what it should, and to nothing else."""

import copy

import pytest

from trojai_moth.submission.rules import HEADER, RULES, SCHEMA, TEMPLATE_HEADER, check_folder, check_name, check_schema

from .harness_schema import GOOD, VALUES, folder


def rules(schema=GOOD, values=VALUES):
    return [finding.rule for finding in check_schema(schema, values)]


def changed(path, value=None):
    """The good schema with one key set, or taken out."""
    made = copy.deepcopy(GOOD)
    *way, last = path.split("/")
    part = made
    for key in way:
        part = part[key]
    if value is None:
        del part[last]
    else:
        part[last] = value
    return made


def test_a_good_schema_has_no_finding():
    assert rules() == []


@pytest.mark.parametrize("key", HEADER)
def test_every_key_of_the_header_is_needed(key):
    assert rules(changed(key)) == ["header-missing"]


@pytest.mark.parametrize("key", TEMPLATE_HEADER)
def test_the_templates_header_is_refused(key):
    assert rules({**GOOD, key: TEMPLATE_HEADER[key]}) == ["header-template"]


@pytest.mark.parametrize("given", ["Other", [], ["Trigger Inversion", "Magic"], [3]])
def test_technique_type_is_a_list_of_known_types(given):
    assert rules({**GOOD, "technique_type": given}) == ["technique-type"]


def test_technique_type_may_be_in_any_case():
    assert rules({**GOOD, "technique_type": ["trigger inversion"]}) == []


def test_values_must_be_valid():
    assert rules(values={**VALUES, "steps": 10}) == ["valid"]


def test_more_properties_are_refused_whatever_the_schema_says():
    schema = {**GOOD, "additionalProperties": True}
    assert rules(schema, {**VALUES, "more": 1}) == ["valid", "both-files"]


def test_more_properties_are_refused_in_definitions_too():
    schema = {**GOOD, "$defs": {"part": {"type": "object", "properties": {}}}}
    schema["properties"] = {**GOOD["properties"], "deep": {"$ref": "#/$defs/part"}}
    assert rules(schema, {**VALUES, "deep": {"x": 1}}) == ["valid", "object"]


@pytest.mark.parametrize("schema", [{**GOOD, "type": 7}, {**GOOD, "properties": {"steps": {"$ref": "#/nowhere"}}}])
def test_a_schema_that_is_none_is_a_finding(schema):
    assert "valid" in rules(schema)


def test_a_schema_without_properties_is_a_finding():
    assert "valid" in rules(changed("properties"))


def test_every_property_is_in_both_files():
    assert rules(values={key: value for key, value in VALUES.items() if key != "rule"}) == ["both-files"]


@pytest.mark.parametrize("end", ["minimum", "maximum"])
def test_numbers_need_bounds_of_one_kind_or_the_other(end):
    assert rules(changed(f"properties/share/suggested_{end}")) == ["number-bounds"]
    assert rules(changed(f"properties/steps/suggested_{end}")) == []


def test_the_suggested_range_lies_within_the_bounds():
    assert rules(changed("properties/steps/suggested_maximum", 20)) == ["number-range"]
    assert rules(changed("properties/share/suggested_minimum", 0.95)) == ["number-range"]


def test_free_strings_are_refused():
    assert rules(changed("properties/rule/enum")) == ["string-enum"]


def test_arrays_are_as_long_as_their_value():
    assert rules(changed("properties/list/maxItems", 3)) == ["array-size"]
    assert rules(changed("properties/list/maxItems")) == []
    assert rules(values={**VALUES, "list": 3}) == ["valid", "array-size"]


def test_objects_are_refused():
    schema = changed("properties/on", {"type": "object"})
    assert rules(schema, {**VALUES, "on": {}}) == ["object"]


def test_unknown_kinds_are_refused():
    assert rules(changed("properties/on", {"description": "of no type"})) == ["kind"]


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("round4_sts_first.simg", True),
        ("image-classification-feb2021_test_a_b.simg", True),
        ("round4_sts.simg", False),
        ("round4_weekly_first.simg", False),
        ("round4_sts_first.sif", False),
        ("round4__first.simg", False),
    ],
)
def test_the_image_has_the_harness_name(name, right):
    assert [finding.rule for finding in check_name(name)] == ([] if right else ["file-name"])


def test_the_files_must_be_there(tmp_path):
    found = check_folder(tmp_path)
    assert [finding.rule for finding in found] == ["files"] * 3 and all(finding.mend for finding in found)
    assert check_folder(folder(tmp_path)) == []


@pytest.mark.parametrize("text", ["{", "[]"])
def test_the_files_must_be_json_objects(tmp_path, text):
    (folder(tmp_path) / SCHEMA).write_text(text)
    assert [finding.rule for finding in check_folder(tmp_path)] == ["json"]


def test_a_mitigations_schema_is_not_looked_at(tmp_path):
    made = folder(tmp_path, schema={})
    assert check_folder(made) != [] and check_folder(made, mitigation=True) == []


def test_every_rule_is_described():
    assert all(text and not text.endswith(".") for text in RULES.values())
