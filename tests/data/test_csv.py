"""Images listed in a CSV file."""

import pytest

from tfdistill.config import DataConfig
from tfdistill.data import load
from tfdistill.utils.checks import UsageError


@pytest.fixture
def listed(tmp_path, write_image):
    """A function that writes a list, and images 0.png .. 11.png beside it; it returns the list."""
    (tmp_path / "images").mkdir()
    for number in range(12):
        write_image(tmp_path / "images" / f"{number}.png", 20 * number)

    def write(text, encoding="utf-8"):
        (tmp_path / "list.csv").write_bytes(text.encode(encoding))
        return tmp_path / "list.csv"

    return write


def read(file, **settings):
    """Return the data set and what is told."""
    told: list[str] = []
    data = load(DataConfig(source=f"csv:{file}", **{"validation": 2, **settings}), told.append)
    return data, told


def rows(labels="ab", places=range(12)):
    return "".join(f"images/{n}.png,{labels[n % len(labels)]}\n" for n in places)


def levels(examples):
    return [int(level) // 20 for level in examples.images[:, 4, 4, 0]]


def test_paths_are_from_the_lists_folder_and_names_sorted(listed, tmp_path):
    absolute = rows(places=[10, 11]).replace("images/", f"{tmp_path}/images/")
    data, told = read(listed("path,label\n" + rows(places=range(10)) + absolute))
    assert data.class_names == ("a", "b") and not told
    assert [len(data.train), len(data.validation), len(data.test)] == [8, 2, 2]
    for part in (data.train, data.validation, data.test):
        assert [level % 2 for level in levels(part)] == part.labels.tolist()
    every = levels(data.train) + levels(data.validation) + levels(data.test)
    assert sorted(every) == list(range(12))


def test_numbers_are_sorted_as_numbers(listed):
    labels = ["10", "9", "2", "-1"]
    data, _ = read(
        listed("label,path\n" + "".join(f"{labels[n % 4]},images/{n}.png\n" for n in range(12)))
    )
    assert data.class_names == ("-1", "2", "9", "10")
    for part in (data.train, data.validation, data.test):
        names = [data.class_names[label] for label in part.labels]
        assert names == [labels[level % 4] for level in levels(part)]


def test_numbers_beside_names_are_names(listed):
    labels = ["10", "9", "nan", "NA"]
    data, _ = read(listed("path,label\n" + rows(labels)), validation=4)
    assert data.class_names == ("10", "9", "NA", "nan")


def test_a_column_of_parts_is_obeyed(listed):
    of = ["train", "Training", "VAL", "dev", "test", "testing"]
    text = "".join(f"images/{n}.png,{'ab'[n % 2]},{of[n % 6]}\n" for n in range(12))
    data, told = read(listed("path,label,split\n" + text), validation=0.1)
    assert levels(data.train) == [0, 1, 6, 7] and not told
    assert levels(data.validation) == [2, 3, 8, 9] and levels(data.test) == [4, 5, 10, 11]
    assert data.validation.ids.tolist() == [4, 5, 6, 7]
    assert data.train.labels.tolist() == [0, 1, 0, 1]


def test_train_and_val_leave_a_fifth_of_train_for_the_test(listed):
    text = "".join(
        f"images/{n}.png,{'ab'[n % 2]},{'val' if n < 2 else 'train'}\n" for n in range(12)
    )
    data, told = read(listed("path,label,split\n" + text), validation=0.1)
    assert [len(data.train), len(data.validation), len(data.test)] == [8, 2, 2]
    assert told == [
        "the split validation holds the validation images; there are no test images, so a fifth of "
        "the split train is held out for them"
    ]


@pytest.mark.parametrize("form", ["bom", "quotes", "windows", "blank", "spaces"])
def test_what_other_programs_write_is_read(listed, form):
    text = "path,label\n" + rows()
    text = {
        "bom": "\ufeff" + text,
        "quotes": 'path,"label"\n'
        + "".join(f'"images/{n}.png","{"ab"[n % 2]}"\n' for n in range(12)),
        "windows": text.replace("\n", "\r\n"),
        "blank": text.replace("images/3", "\n\nimages/3") + "\n,\n",
        "spaces": text.replace(",", " , ").replace("path", "Path"),
    }[form]
    data, _ = read(listed(text))
    assert data.class_names == ("a", "b")
    assert len(data.train) + len(data.validation) + len(data.test) == 12


GOOD = "path,label\n" + rows(places=range(4))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "images/1.png,a\n", r"Row 6 .* names 'images/1.png' as row 3 does\. Remove"),
        (GOOD + "images/../images/1.png,a\n", "Row 6 .* as row 3 does"),
        (
            GOOD + "images/99.png,a\n",
            r"Row 6 .* names 'images/99.png', which is no file\. Paths are",
        ),
        (GOOD + "images,a\n", "Row 6 .* which is no file"),
        (GOOD + ",a\n", "Row 6 of the CSV file names no file"),
        (GOOD + "images/5.png,\n", r"Row 6 of the CSV file has no label\. Give one"),
        (GOOD + "\nimages/5.png,  \n", r"Row 7 of the CSV file has no label"),
        (GOOD + "images/5.png\n", "Row 6 of the CSV file has no label"),
        (GOOD + "images/5.png,a;b\n", "Row 6 .* has several labels"),
        (
            GOOD + "images/5.png,a,b\n",
            "Cannot read the CSV file .*Expected 2 fields in line 6, saw 3",
        ),
        (rows(), r"first line of .* must name the columns .* Received: 'images/0.png,a'"),
        ("path,label,label\nimages/0.png,a,b\n", "must name the columns .*'path,label,label'"),
        ("path,label,cat\nimages/0.png,a,1\n", "must name the columns .*'path,label,cat'"),
        ("path,split\nimages/0.png,train\n", "must name the columns .*'path,split'"),
        ("path,cat,cat\nimages/0.png,1,0\n", "must name the columns .*'path,cat,cat'"),
        ("path,cat,\nimages/0.png,1,0\n", "Every column of .* must have a name"),
        ("path,cat\nimages/0.png,yes\n", "Row 2 .* has 'yes' in the column cat. Give 1 where"),
        ("path,cat,dog\nimages/0.png,1,\n", "Row 2 .* has '' in the column dog"),
        ("path,cat,dog\nimages/0.png,1\n", "Row 2 .* has '' in the column dog"),
        (GOOD + "images/5.png,a|\n", r"Row 6 .* has the labels 'a\|'. Give each once"),
        (GOOD + "images/5.png,a|b|a\n", r"Row 6 .* has the labels 'a\|b\|a'"),
        (GOOD + "images/5.png,a|b;c\n", "Row 6 .* has several labels .'b;c'"),
        ("path;label\nimages/0.png;a\n", "must name the columns .*'path;label'"),
        ("file,label\nimages/0.png,a\n", "must name the columns .*'file,label'"),
        ("path,label\n", "lists no image"),
        ("", "Cannot read the CSV file"),
        ('path,label\n"images/0.png,a\n', "Cannot read the CSV file|no label"),
        ("path,label\n" + rows("a"), "at least two classes"),
        ("path,label,split\nimages/0.png,a,train\nimages/1.png,b,\n", r"Row 3 .* has the split ''"),
        (
            "path,label,split\nimages/0.png,a,train\nimages/1.png,b,x\n",
            "Row 3 .* has the split 'x'",
        ),
        ("path,label,split\nimages/0.png,a,val\nimages/1.png,b,val\n", "needs rows to train on"),
        (
            "path,label,split\nimages/0.png,a,train\nimages/1.png,b,train\nimages/2.png,a,test\n",
            "must have the same classes. Received: test without b",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(listed, text, message):
    with pytest.raises(UsageError, match=message) as caught:
        read(listed(text))
    assert "\n" not in str(caught.value)


def test_other_encodings_missing_files_and_damaged_images_are_refused(listed, tmp_path):
    with pytest.raises(UsageError, match="Give one in UTF-8"):
        read(listed(GOOD.replace(",a", ",ä"), "latin-1"))
    with pytest.raises(UsageError, match="needs a CSV file.*which is no file"):
        read(tmp_path / "nowhere.csv")
    with pytest.raises(UsageError, match="must be csv:FILE"):
        load(DataConfig(source="csv"))
    (tmp_path / "images" / "3.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"Cannot read the image .*images/3.png: It is no JPEG"):
        read(listed("path,label\n" + rows()))


def test_a_list_that_is_changed_is_read_again(listed):
    read(listed("path,label\n" + rows()))
    data, _ = read(listed("path,label\n" + rows("ba")))
    assert [1 - level % 2 for level in levels(data.train)] == data.train.labels.tolist()
