import tarfile

import numpy as np
import pytest
from PIL import Image
from skimage import color, data

from utils.stimuli import photographs


@pytest.mark.parametrize("name", photographs.NAMES)
def test_photographs_load_without_a_download_as_rgb(name):
    picture = photographs.load(name)
    assert picture.mode == "RGB"
    assert min(picture.size) >= 300


def test_luminance_is_that_of_scikit_image_and_cannot_be_overwritten():
    grey = photographs.luminance("coffee")
    assert np.array_equal(grey, color.rgb2gray(data.coffee()))
    with pytest.raises(ValueError, match="read-only"):
        grey[0, 0] = 1


def test_an_unknown_photograph_is_answered_by_one_sentence():
    with pytest.raises(ValueError, match="no photograph 'cofee'; the book uses chelsea, coffee"):
        photographs.load("cofee")


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "pictures"
    (place / "cats").mkdir(parents=True)
    for name, grey in (("cats/a.png", 10), ("b.png", 200)):
        Image.new("L", (8, 6), grey).save(place / name)
    (place / "notes.txt").write_text("not an image")
    return place


def archived(folder):
    path = folder.with_suffix(".tar")
    with tarfile.open(path, "w") as archive:
        for file in folder.rglob("*.*"):
            archive.add(file, file.relative_to(folder).as_posix())
    return path


@pytest.mark.parametrize("place", [lambda folder: folder, archived], ids=["folder", "tar"])
def test_every_image_is_read_by_name_as_rgb(folder, place):
    pictures = dict(photographs.read(place(folder)))
    assert list(pictures) == ["b.png", "cats/a.png"]
    assert {picture.mode for picture in pictures.values()} == {"RGB"}
    assert pictures["cats/a.png"].getpixel((0, 0)) == (10, 10, 10)


@pytest.mark.parametrize("place", [lambda folder: folder, archived], ids=["folder", "tar"])
def test_a_damaged_image_is_named_left_out_and_counted(folder, place):
    whole = (folder / "b.png").read_bytes()
    (folder / "broken.png").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match="damaged") as warned:
        names = [name for name, _ in photographs.read(place(folder))]
    assert names == ["b.png", "cats/a.png"]
    assert str(warned[0].message).startswith("broken.png is damaged and left out")
    assert "1 of 3 images" in str(warned[-1].message)


def test_a_damaged_header_is_damage_too(folder):
    (folder / "broken.ppm").write_bytes(b"P6 wide 10 255 ")
    with pytest.warns(UserWarning, match=r"broken\.ppm"):
        assert len(list(photographs.read(folder))) == 2


def test_a_place_without_images_is_answered_by_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"no images in .*: expected files such as \.jpg"):
        list(photographs.read(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no folder or archive at .*nowhere"):
        list(photographs.read(tmp_path / "nowhere"))
