"""The harness's checks of an image's schema and metaparameters, each as a finding with its mend. Needs no torch.

One finding of its own checker rejects a submission, before anything is run; what is checked here is what its code does,
which is more than its documentation says.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import jsonschema
from jsonschema.exceptions import SchemaError, ValidationError

from ..core.errors import SettingsError
from ..core.records import read_json, record

METAPARAMETERS: Final = "metaparameters.json"
SCHEMA: Final = "metaparameters_schema.json"
LEARNED: Final = "learned_parameters"
TECHNIQUE_TYPES: Final = (
    "Weight Analysis", "Trigger Inversion", "Attribution Analysis", "Jacobian Inspection", "Other",
)  # fmt: skip
SPLITS: Final = ("train", "test", "sts", "dev", "holdout")
HEADER: Final = (
    "$schema", "technique", "technique_description", "technique_changes", "commit_id", "repo_name", "technique_type",
)  # fmt: skip
# The header of NIST's template, which a submission must not repeat.
TEMPLATE_HEADER: Final[Mapping[str, str]] = MappingProxyType(
    {
        "title": "Trojan Detection Container (trojai-example) - The template detector to be used within the TrojAI "
        "competition.",
        "technique_description": "Extracts model weights and trains a random forest regressor.",
        "technique_changes": "Output metaparameter.json file after reconfiguration",
        "commit_id": "",
        "repo_name": "https://github.com/usnistgov/trojai-example",
    }
)

RULES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "files": "the image holds /metaparameters.json, /metaparameters_schema.json and the folder /learned_parameters",
        "json": "both files are JSON objects",
        "header-missing": "the schema's root has $schema, technique, technique_description, technique_changes, "
        "commit_id, repo_name and technique_type; one that is missing rejects the submission",
        "header-template": "title, technique_description, technique_changes, commit_id and repo_name differ from the "
        "template's; an empty commit_id is the template's",
        "technique-type": "technique_type is a list with at least one of the known types; another one crashes the "
        "checker",
        "valid": "the metaparameters are valid under the schema, with additionalProperties forced to false at the root "
        "and in every $defs",
        "both-files": "every property of the schema is in metaparameters.json and the other way round",
        "number-bounds": "a number or integer has minimum and maximum, or suggested_minimum and suggested_maximum",
        "number-range": "what lies in the suggested range is valid, since the harness draws values from it",
        "string-enum": "a string has an enum; free texts such as paths are refused",
        "array-size": "an array's value is a list, and maxItems is not more than its length",
        "object": "no property is an object",
        "kind": "every property's kind is one that the checker knows",
        "file-name": "the image is called LEADERBOARD_SPLIT_NAME.simg, and the leaderboard's name has no underscore",
    }
)
"""Rule -> what the harness demands."""


@record
class Finding:
    """One rule that is broken: what is wrong, and how to mend it."""

    rule: str
    what: str
    mend: str


def check_folder(folder: Path, *, mitigation: bool = False) -> list[Finding]:
    """All that the harness would object to in a submission's files; it does not look at a mitigation's schema."""
    found = [
        Finding(rule="files", what=f"{name} is missing", mend="write the folder anew with trojai-moth container")
        for name, there in (
            (METAPARAMETERS, (folder / METAPARAMETERS).is_file()),
            (SCHEMA, (folder / SCHEMA).is_file()),
            (LEARNED, (folder / LEARNED).is_dir()),
        )
        if not there
    ]
    objects = []
    for name in (SCHEMA, METAPARAMETERS):
        if (folder / name).is_file():
            data = _read_object(folder / name)
            found += [data] if isinstance(data, Finding) else []
            objects += [data] if isinstance(data, dict) else []
    return found if len(objects) < 2 or mitigation else [*found, *check_schema(*objects)]


def check_schema(schema: Mapping[str, Any], values: Mapping[str, Any]) -> list[Finding]:
    """Header and properties of a schema, and the metaparameters under it."""
    return [*_header(schema), *_technique_type(schema), *_valid(schema, values), *_properties(schema, values)]


def check_name(name: str) -> list[Finding]:
    """The image's file name."""
    parts = name.removesuffix(".simg").split("_")
    mend = f"call it LEADERBOARD_SPLIT_NAME.simg with SPLIT one of {', '.join(SPLITS)}"
    if not name.endswith(".simg"):
        return [Finding(rule="file-name", what=f"{name} does not end in .simg", mend=mend)]
    if len(parts) < 3 or not all(parts[:3]):
        return [Finding(rule="file-name", what=f"{name} has fewer than three parts", mend=mend)]
    if parts[1] not in SPLITS:
        return [Finding(rule="file-name", what=f"{name}: {parts[1]} is no split", mend=mend)]
    return []


def _read_object(path: Path) -> dict[str, Any] | Finding:
    try:
        data = read_json(path, source=path.name)
    except (OSError, SettingsError) as error:
        return Finding(rule="json", what=f"{error}", mend="correct it, or write it anew")
    if not isinstance(data, dict):
        return Finding(rule="json", what=f"{path.name} is not a JSON object", mend="correct it, or write it anew")
    return data


def _header(schema: Mapping[str, Any]) -> Iterator[Finding]:
    for key in HEADER:
        if key not in schema:
            yield Finding(rule="header-missing", what=f"{key} is missing", mend=f"add {key} to the schema's root")
    for key, text in TEMPLATE_HEADER.items():
        if schema.get(key) == text:
            yield Finding(rule="header-template", what=f"{key} is the template's", mend=f"say in {key} what is yours")


def _technique_type(schema: Mapping[str, Any]) -> Iterator[Finding]:
    if "technique_type" not in schema:
        return
    given = schema["technique_type"]
    mend = f"make it a list of one or more of {', '.join(TECHNIQUE_TYPES)}"
    if not isinstance(given, list) or not given:
        yield Finding(rule="technique-type", what=f"technique_type is {given!r:.60}", mend=mend)
        return
    known = {name.upper() for name in TECHNIQUE_TYPES}
    for name in given:
        if not isinstance(name, str) or name.upper() not in known:
            yield Finding(rule="technique-type", what=f"technique_type holds {name!r:.60}", mend=mend)


def forced(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema as the harness validates with it."""
    made = copy.deepcopy(dict(schema))
    made["additionalProperties"] = False
    definitions = made.get("$defs")
    for part in definitions.values() if isinstance(definitions, dict) else ():
        if isinstance(part, dict):
            part["additionalProperties"] = False
    return made


def _valid(schema: Mapping[str, Any], values: Mapping[str, Any]) -> Iterator[Finding]:
    try:
        jsonschema.validate(instance=dict(values), schema=forced(schema))
    except SchemaError as error:
        yield Finding(rule="valid", what=f"the schema is none: {error.message:.200}", mend="correct the schema")
    except ValidationError as error:
        where = ".".join(str(part) for part in error.absolute_path) or METAPARAMETERS
        mend = "correct the value, or declare the property in the schema"
        yield Finding(rule="valid", what=f"{where}: {error.message:.200}", mend=mend)
    except Exception as error:  # a reference that leads nowhere, for one
        yield Finding(rule="valid", what=f"the schema cannot be used: {error!s:.200}", mend="correct the schema")


def _properties(schema: Mapping[str, Any], values: Mapping[str, Any]) -> Iterator[Finding]:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        yield Finding(rule="valid", what="the schema has no properties", mend="declare every metaparameter there")
        return
    for name in sorted(values.keys() - properties.keys()):
        mend = f"declare it in {SCHEMA}, or take it out"
        yield Finding(rule="both-files", what=f"{name} is in {METAPARAMETERS} only", mend=mend)
    for name, given in properties.items():
        if name not in values:
            mend = f"give it a value in {METAPARAMETERS}, or take it out"
            yield Finding(rule="both-files", what=f"{name} is in {SCHEMA} only", mend=mend)
        else:
            yield from _property(name, _resolved(given, schema), values[name])


def _resolved(given: Any, schema: Mapping[str, Any]) -> dict[str, Any]:
    """A property with its reference into $defs followed."""
    match = re.fullmatch(r"#/\$defs/(\w+)", str(given.get("$ref", ""))) if isinstance(given, dict) else None
    found = schema.get("$defs", {}).get(match[1]) if match else given
    return found if isinstance(found, dict) else {}


def _property(name: str, given: Mapping[str, Any], value: Any) -> Iterator[Finding]:
    kinds = given.get("type", ())
    kind = kinds if isinstance(kinds, str) else next(iter(kinds), "")
    if kind == "string" and "enum" not in given:
        yield Finding(rule="string-enum", what=f"{name} is a string without an enum", mend="list its values as enum")
    elif any(key in given for key in ("enum", "const", "oneOf")) or kind in ("boolean", "null", "string"):
        return
    elif kind in ("number", "integer"):
        yield from _number(name, given)
    elif kind == "array":
        yield from _array(name, given, value)
    elif kind == "object":
        yield Finding(rule="object", what=f"{name} is an object", mend="make its parts properties of their own")
    else:
        yield Finding(rule="kind", what=f"{name} has the kind {kind!r}", mend="give it a type the harness knows")


def _number(name: str, given: Mapping[str, Any]) -> Iterator[Finding]:
    ends = {}
    for end in ("minimum", "maximum"):
        keys = (f"suggested_{end}", end, f"exclusive{end.capitalize()}")
        ends[end] = next((given[key] for key in keys if key in given), None)
        if ends[end] is None:
            mend = f"add {end} or suggested_{end}"
            yield Finding(rule="number-bounds", what=f"{name} has no {end}", mend=mend)
    low, high = ends["minimum"], ends["maximum"]
    if low is None or high is None:
        return
    outside = [end for end in (low, high) if not jsonschema.Draft7Validator(dict(given)).is_valid(end)]
    if low > high or outside:
        mend = "keep suggested_minimum and suggested_maximum within minimum and maximum"
        yield Finding(rule="number-range", what=f"{name}: from {low} to {high} is not all valid", mend=mend)


def _array(name: str, given: Mapping[str, Any], value: Any) -> Iterator[Finding]:
    if not isinstance(value, list):
        yield Finding(rule="array-size", what=f"{name} is an array but its value is none", mend="make it a list")
    elif given.get("maxItems", len(value)) > len(value):
        mend = f"set maxItems to {len(value)}, the length of the list"
        yield Finding(rule="array-size", what=f"{name} may be longer than it is", mend=mend)
