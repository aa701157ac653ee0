"""Cards and side files that somebody else has written, as far as reading them goes."""

import pytest

from trojai_moth.core.errors import SettingsError
from trojai_moth.eval.cards.check import read_card
from trojai_moth.eval.cards.file import read_key, write_card

BOMB = "a: &a [x, x]\nb: &b [*a, *a]\n"


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("[" * 20_000, "cannot be read"),
        ("a: " + "9" * 5000, "cannot be read"),
        ("a: 2001-99-99", "cannot be read"),
        (BOMB, r"repeats a value by \*name"),
        ("a: &a [*a]", r"repeats a value by \*name"),
        ("- a", "not a list of keys"),
        ("a: x\n" + "# " + "x" * (1 << 20), "larger than 1 MiB"),
    ],
    ids=lambda value: value[:12],
)
def test_yaml_that_no_card_holds_is_one_line_and_left_as_it_is(tmp_path, head, words):
    path = tmp_path / "README.md"
    path.write_text(f"---\n{head}\n---\ntext\n")
    before = path.read_bytes()
    for read in (read_key, read_card, lambda path: write_card(path, "text", {}, [], "id-00000000")):
        with pytest.raises(SettingsError, match=rf"README\.md: .*{words}") as refused:
            read(path)
        assert str(refused.value).isprintable() and len(str(refused.value)) < 400
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["[" * 200_000, "{", "{}", "9" * 5000])
def test_a_side_file_that_is_none_is_one_line(tmp_path, text):
    (tmp_path / "class_distances.json").write_text(text)
    with pytest.raises(SettingsError, match=r"class_distances\.json: "):
        read_card(tmp_path / "class_distances.json")
