"""A schema and metaparameters that the harness takes, and a submission folder with them."""

import json

from trojai_moth.submission.rules import LEARNED, METAPARAMETERS, SCHEMA

GOOD = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "title": "ours",
    "technique": "ours",
    "technique_description": "ours",
    "technique_changes": "new",
    "technique_type": ["Trigger Inversion"],
    "commit_id": "abc",
    "repo_name": "ours",
    "type": "object",
    "properties": {
        "steps": {"type": "integer", "minimum": 1, "maximum": 9, "suggested_minimum": 2, "suggested_maximum": 8},
        "share": {"type": "number", "suggested_minimum": 0.1, "suggested_maximum": 0.9},
        "rule": {"type": "string", "enum": ["a", "b"]},
        "on": {"type": "boolean"},
        "none": {"type": "null"},
        "fixed": {"const": 3},
        "one": {"oneOf": [{"name": "x", "const": {"name": "x"}}]},
        "list": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 5}, "maxItems": 2},
    },
}
VALUES = {
    "steps": 3, "share": 0.5, "rule": "a", "on": True, "none": None, "fixed": 3, "one": {"name": "x"}, "list": [1, 2],
}  # fmt: skip


def folder(tmp_path, schema=GOOD, values=VALUES):
    (tmp_path / SCHEMA).write_text(json.dumps(schema))
    (tmp_path / METAPARAMETERS).write_text(json.dumps(values))
    (tmp_path / LEARNED).mkdir()
    return tmp_path
