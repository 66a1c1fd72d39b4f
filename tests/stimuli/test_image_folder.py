"""Pictures in folders and archives: found by name, and every damage named."""

import tarfile

import pytest
from PIL import Image

from utils.stimuli import image_folder


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "pictures"
    (place / "cats").mkdir(parents=True)
    for name, grey in (("cats/a.png", 10), ("b.png", 200)):
        Image.new("L", (8, 6), grey).save(place / name)
    (place / "notes.txt").write_text("not an image", encoding="utf-8")
    return place


def archived(folder):
    path = folder.with_suffix(".tar")
    with tarfile.open(path, "w") as archive:
        for file in folder.rglob("*.*"):
            archive.add(file, file.relative_to(folder).as_posix())
    return path


@pytest.mark.parametrize("place", [lambda folder: folder, archived], ids=["folder", "tar"])
def test_every_image_is_read_by_name_as_rgb(folder, place):
    pictures = dict(image_folder.read(place(folder)))
    assert list(pictures) == ["b.png", "cats/a.png"]
    assert {picture.mode for picture in pictures.values()} == {"RGB"}
    assert pictures["cats/a.png"].getpixel((0, 0)) == (10, 10, 10)


@pytest.mark.parametrize("place", [lambda folder: folder, archived], ids=["folder", "tar"])
def test_a_damaged_image_is_named_left_out_and_counted(folder, place):
    whole = (folder / "b.png").read_bytes()
    (folder / "broken.png").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match="damaged") as warned:
        names = [name for name, _ in image_folder.read(place(folder))]
    assert names == ["b.png", "cats/a.png"]
    assert str(warned[0].message).startswith("broken.png is damaged and left out")
    assert "1 of 3 images" in str(warned[-1].message)


def test_a_damaged_header_is_damage_too(folder):
    (folder / "broken.ppm").write_bytes(b"P6 wide 10 255 ")
    with pytest.warns(UserWarning, match=r"broken\.ppm"):
        assert len(list(image_folder.read(folder))) == 2


def test_a_place_without_images_is_answered_by_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"no images in .*: expected files such as \.jpg"):
        list(image_folder.read(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no folder or archive at .*nowhere"):
        list(image_folder.read(tmp_path / "nowhere"))
