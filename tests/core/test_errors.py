from trojai_moth.core.errors import MothError, one_line


def test_texts_are_one_line_that_steers_no_terminal():
    assert str(MothError("a\nb\x1b[2J\u202e.png: é")) == r"a\nb\x1b[2J\u202e.png: é"
    assert one_line(ValueError("a\x1b[2J\nb")) == r"ValueError: a\x1b[2J b"
    assert str(MothError()) == ""
