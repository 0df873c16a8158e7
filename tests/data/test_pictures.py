"""Pictures become bytes of one size; what cannot be read says so."""

import pytest
import torch
from PIL import Image

from priorscope.data.pictures import photographs, read_pictures
from priorscope.errors import DataError


def save(path, colour, size=(64, 40), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)
    return path


def test_folders_are_groups_and_files_have_none(tmp_path):
    for name, colour in (("cats/a.png", "red"), ("cats/b.jpg", "red"), ("dogs/c.png", "blue")):
        save(tmp_path / name, colour)
    (tmp_path / "cats" / "notes.txt").write_text("no picture")
    found = read_pictures([tmp_path], size=32)
    assert found.items.shape == (3, 3, 32, 32)
    assert found.groups == ("cats", "cats", "dogs")
    assert found.items[2, :, 0, 0].tolist() == [0, 0, 255]
    assert read_pictures([tmp_path / "cats" / "a.png", tmp_path / "cats" / "b.jpg"], size=32).groups is None


def test_a_picture_is_cut_to_its_centre(tmp_path):
    picture = Image.new("RGB", (200, 100), "black")
    picture.paste("white", (96, 46, 104, 54))
    for name in ("a.png", "b.png"):
        picture.save(tmp_path / name)
    pixels = read_pictures([tmp_path], size=70).items[0].sum(0)
    rows, columns = (pixels > 300).nonzero().T
    assert abs(float(rows.double().mean()) - 34.5) < 1
    assert abs(float(columns.double().mean()) - 34.5) < 1


def test_grey_is_rgb_and_transparent_is_white(tmp_path):
    save(tmp_path / "grey.png", 7, mode="L")
    save(tmp_path / "clear.png", (0, 0, 0, 0), mode="RGBA")
    clear, grey = read_pictures([tmp_path], size=8).items
    assert grey.unique().tolist() == [7]
    assert clear.unique().tolist() == [255]


def test_what_is_no_picture_says_so(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    good = save(tmp_path / "good.png", "red")
    cut = tmp_path / "cut.png"
    cut.write_bytes(save(tmp_path / "whole.png", "red", (300, 300)).read_bytes()[:120])
    deep = tmp_path / "deep.png"
    Image.new("I;16", (9, 9), 3000).save(deep)
    (tmp_path / "empty").mkdir()
    for paths, message in [
        ([tmp_path / "broken.png", good], r"broken.png: is not a readable picture"),
        ([cut, good], r"cut.png: is not a readable picture"),
        ([deep, good], "more than 8 bits"),
        ([tmp_path / "empty"], "holds no pictures"),
        ([tmp_path / "nowhere.png"], "does not exist"),
        ([good], "has 1 of the pictures"),
        ([], "has 0 of the pictures"),
    ]:
        with pytest.raises(DataError, match=message):
            read_pictures(paths)


def test_built_in_photographs_are_quarters_that_share_no_pixel():
    pytest.importorskip("skimage")
    found = photographs()
    assert found.items.shape == (64, 3, 224, 224)
    assert found.items.dtype == torch.uint8
    assert len(set(found.groups)) == 16
    assert len({tuple(item.flatten()[:5000].tolist()) for item in found.items}) == 64
