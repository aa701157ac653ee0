"""Tables of image files and labels."""

from pathlib import Path

import pytest
from PIL import Image

from trojai_moth.core.errors import SettingsError
from trojai_moth.rounds.labelled_images import open_labelled


@pytest.fixture
def folder(tmp_path):
    for number in range(3):
        path = tmp_path / "pictures" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 6), (number, 0, 0)).save(path)
    return tmp_path


def table(folder, text, name="labels.csv"):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / name


def listed(path, classes=2, names=None):
    images = open_labelled(path, classes, names)
    found = [(Path(images.name(index)).name, images.labels[index]) for index in range(len(images))]
    reds = images.read(range(len(images)), (6, 8))[:, 0].amax((1, 2)).tolist()
    assert [name for name, _ in found] == [f"{red}.png" for red in reds]
    return found


def refused(path, classes=2, names=None):
    with pytest.raises(SettingsError) as caught:
        open_labelled(path, classes, names)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "file,label\npictures/2.png,0\npictures/0.png,1\n",
        "id;Class ID;Image_Name\r\n\r\n7;0;pictures/2.png\r\n8;1.0;pictures/0.png\r\n",
        "label\tfile_path\n0\tpictures/2.png\n1\tpictures/0.png",
        "\ufefflabel,path\n0,./pictures/2.png\nclass_1,pictures/0.png\n",
        "pictures/2.png,0\npictures/0.png,1\n",
        "path,target\npictures/2.png,0\npictures/0.png,1\n".encode("utf-16"),
    ],
)
def test_columns_are_found_whatever_they_are_called_and_separated_by(folder, text):
    assert listed(table(folder, text)) == [("2.png", 0), ("0.png", 1)]


def test_labels_may_be_names(folder, notes):
    path = table(folder, "file,class\npictures/2.png,stop sign\npictures/0.png,Yield\npictures/1.png,stop sign\n")
    assert listed(path, 2, ("Stop_Sign", "yield")) == [("1.png", 0), ("2.png", 0), ("0.png", 1)]
    assert not notes.messages
    assert listed(path) == [("0.png", 0), ("1.png", 1), ("2.png", 1)]
    assert "numbered by name, as torchvision's ImageFolder does: Yield 0, stop sign 1" in notes.messages[0]
    assert "but the model has 5; say which class is which" in refused(path, 5)


def test_labels_beyond_the_classes_name_file_and_class(folder):
    path = table(folder, "file,label\npictures/2.png,0\npictures/0.png,4\n")
    assert "pictures/0.png: class 4, but the model has 2 classes" in refused(path)
    assert listed(path, 5) == [("2.png", 0), ("0.png", 4)]


def test_kinds_that_are_not_read_are_counted(folder, notes):
    (folder / "pictures" / "a.gif").touch()
    text = "file,label\npictures/2.png,0\npictures/0.png,1\npictures/a.gif,1\n"
    assert listed(table(folder, text)) == [("2.png", 0), ("0.png", 1)]
    assert "left out: 1 .gif, since only PNG" in notes.messages[0]
    only = table(folder, "file,label\npictures/a.gif,1\n")
    assert "names no image that is read (left out: 1 .gif, since only PNG" in refused(only)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no image; it needs a line for each"),
        ("number,colour\n1,2\n", "its columns are number, colour; call that of the files file"),
        ("file,label\npictures/9.png,0\n", "line 2 names pictures/9.png, which is not in"),
        ("file,label\npictures/1.png\n", "line 2 has no label"),
        ("file,label\npictures/1.png,0\npictures/2.png, \n", "line 3 has no label"),
        ("file,label\n\0,0\n", "names no file"),
        (b"file,label\n\xff\xfe\xff,0\n", "not a table of images"),
        ("file,label\npictures/1.png,0\npictures/2.png,dog\n", "0 is the number of a class, and dog is none"),
        ("file,label\npictures/1.png,0\npictures/2.png,0\n", "images of one class alone"),
    ],
)
def test_what_is_no_table_of_images(folder, text, words):
    assert words in refused(table(folder, text))
