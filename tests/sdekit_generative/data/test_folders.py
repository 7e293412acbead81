"""Folders of any mix of images: what is odd is said by name, and stopped at or left out as asked."""

import numpy as np
import pytest
import torch
from PIL import Image

from sdekit_generative.data import Folder
from sdekit_generative.data.decode import Fit, read_image
from sdekit_generative.errors import DataError, DataWarning


@pytest.fixture
def mixed(tmp_path):
    """Eight ordinary images of four sizes, and one of every odd kind."""
    generator = np.random.default_rng(0)
    for i, (width, height) in enumerate(((40, 30), (33, 48), (64, 64), (32, 100)) * 2):
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"ordinary{i}.png")
    content = tmp_path / "whole.jpg"
    Image.fromarray(generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(content)
    (tmp_path / "corrupt.jpg").write_bytes(content.read_bytes()[:700])
    content.unlink()
    (tmp_path / "notes.txt").write_text("no image")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    Image.new("L", (40, 40), 77).save(tmp_path / "grey.png")
    Image.new("RGBA", (40, 40), (1, 2, 3, 128)).save(tmp_path / "glass.png")
    return tmp_path


def test_a_mixed_folder_stops_at_the_first_file_that_cannot_be_used_and_counts_the_others(mixed):
    with pytest.raises(DataError, match=r"corrupt\.jpg: a damaged image .*and 2 more.*; .*data\.broken=skip"):
        Folder(str(mixed), size=16).load()


def test_a_mixed_folder_can_be_read_without_what_is_broken_and_every_name_is_said(mixed):
    with pytest.warns(DataWarning) as said:
        data = Folder(str(mixed), size=16, broken="skip").load()
    assert data.images.shape == (10, 3, 16, 16)
    broken, converted = (str(w.message) for w in said)
    assert broken.startswith("3 files left out: ")
    assert all(name in broken for name in ("corrupt.jpg: a damaged", "notes.txt: not an image", "dot.png: 1×1 pixels"))
    assert converted.startswith("2 images converted: ")
    assert all(name in converted for name in ("glass.png (transparent)", "grey.png (grey)"))


def test_images_of_another_kind_may_be_left_out_or_stopped_at(mixed):
    with pytest.warns(DataWarning, match="left out: ") as said:
        data = Folder(str(mixed), size=16, broken="skip", converted="skip").load()
    assert len(data) == 8
    assert str(said[1].message).startswith("2 images left out: ")
    for name in ("corrupt.jpg", "notes.txt", "dot.png"):
        (mixed / name).unlink()
    with pytest.raises(DataError, match=r"another kind than asked for: .*glass\.png"):
        Folder(str(mixed), size=16, converted="stop").load()


def test_many_odd_files_are_counted_and_only_a_few_named(tmp_path):
    for i in range(27):
        (tmp_path / f"{i:02d}.txt").write_text("no image")
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    with pytest.warns(DataWarning, match=r"27 files left out: .*and 7 more$"):
        assert len(Folder(str(tmp_path), broken="skip").load()) == 1
    (tmp_path / "one.png").unlink()
    with pytest.warns(DataWarning), pytest.raises(DataError, match="not one image"):
        Folder(str(tmp_path), broken="skip").load()


def test_without_a_size_the_size_that_most_have_is_taken(tmp_path):
    Image.new("RGB", (1, 1)).save(tmp_path / "a.png")
    for name in "bcd":
        Image.new("RGB", (9, 8)).save(tmp_path / f"{name}.png")
    with pytest.raises(DataError, match=r"a\.png: 1×1 pixels, but b\.png has 9×8"):
        Folder(str(tmp_path)).load()
    with pytest.warns(DataWarning, match=r"1 file left out: .*a\.png"):
        assert Folder(str(tmp_path), broken="skip").load().shape == (3, 8, 9)


def test_folders_are_classes_and_train_and_test_the_split(tmp_path):
    for top, count in (("train", 3), ("test", 1)):
        for shade, name in ((10, "cat"), (200, "ant")):
            (tmp_path / top / name).mkdir(parents=True)
            for i in range(count):
                Image.new("L", (4, 4), shade).save(tmp_path / top / name / f"{i}.png")
    (tmp_path / "metadata.jsonl").write_text("{}")
    data = Folder(str(tmp_path), channels=1, classes=True).load()
    training, held_out = data.split()
    assert (len(training), len(held_out)) == (6, 2)
    for part in (training, held_out):
        assert torch.equal(part.labels, (part.images[:, 0, 0, 0] < 100).long())  # ant is 0, cat is 1


def test_the_central_crop_comes_before_the_size(tmp_path):
    pixels = np.zeros((20, 20, 3), dtype=np.uint8)
    pixels[5:15, 5:15] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert int(Folder(str(tmp_path), size=5, crop=10).load().images.min()) == 200
    assert int(Folder(str(tmp_path), size=5).load().images.min()) == 0


def test_sixteen_bits_keep_their_upper_eight_and_rotated_photographs_stand_upright(tmp_path):
    wide = (np.arange(64, dtype=np.uint16).reshape(8, 8) * 1024).astype(np.uint16)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    pixels, was = read_image(tmp_path / "wide.png", "wide.png", Fit(channels=1))
    assert was == "16 bits"
    assert np.array_equal(pixels[0], (wide >> 8).astype(np.uint8))
    image = Image.new("RGB", (6, 3))
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by a quarter
    image.save(tmp_path / "turned.png", exif=exif)
    assert read_image(tmp_path / "turned.png", "turned", Fit())[0].shape == (3, 6, 3)


@pytest.mark.parametrize(
    "wrong", [{"broken": "ignore"}, {"converted": "x"}, {"channels": 4}, {"size": 0}, {"crop": 0}, {"levels": 1}]
)
def test_impossible_wishes_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        Folder("x", **wrong)


@pytest.mark.parametrize(("largest", "levels"), [(1, 2), (3, 4), (15, 16), (16, 17), (200, 256)])
def test_the_levels_of_an_array_are_detected_said_or_given(tmp_path, largest, levels):
    images = np.random.default_rng(0).integers(0, largest + 1, (30, 8, 8), dtype=np.uint8)
    images[0, 0, 0] = largest
    np.save(tmp_path / "a.npy", images)
    assert Folder(str(tmp_path / "a.npy")).load().levels == levels
    np.savez(tmp_path / "b.npz", images=images, levels=250, labels=np.arange(30))
    data = Folder(str(tmp_path / "b.npz")).load()
    assert (data.levels, int(data.labels[-1])) == (250, 29)
    assert Folder(str(tmp_path / "b.npz"), levels=255).load().levels == 255


def test_large_arrays_are_mapped_and_split_without_being_copied(tmp_path, monkeypatch):
    from sdekit_generative.data import arrays, dataset

    monkeypatch.setattr(arrays, "LARGE", 1000)
    monkeypatch.setattr(dataset, "LARGE", 1000)
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    np.save(tmp_path / "a.npy", images)
    data = Folder(str(tmp_path / "a.npy")).load()
    training, held_out = data.split()
    assert torch.equal(torch.cat([training.images, held_out.images]).permute(0, 2, 3, 1), torch.from_numpy(images))
    assert training.images.untyped_storage().data_ptr() == data.images.untyped_storage().data_ptr()
    assert len(held_out) == 10
    assert len(data.fingerprint()) == 64


def test_classes_are_told_apart_by_the_whole_of_their_folders_and_only_by_files_that_are_used(tmp_path):
    for shade, place in ((10, "cat/young"), (90, "dog/young"), (200, "dog")):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), shade).save(tmp_path / place / "a.png")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "notes.txt").write_text("no image")
    with pytest.warns(DataWarning, match=r"notes\.txt"):
        data = Folder(str(tmp_path), channels=1, classes=True, broken="skip").load()
    assert data.class_names == ("cat/young", "dog", "dog/young")
    assert dict(zip(data.images[:, 0, 0, 0].tolist(), data.labels.tolist(), strict=True)) == {10: 0, 200: 1, 90: 2}
    assert data.select(torch.tensor([0])).class_names == data.class_names


def test_of_an_animation_the_first_picture_is_taken_and_that_is_said(tmp_path):
    shades = [Image.new("L", (4, 4), shade) for shade in (50, 100, 150)]
    shades[0].save(tmp_path / "film.gif", save_all=True, append_images=shades[1:])
    with pytest.warns(DataWarning, match=r"film\.gif \(an animation, of which the first picture\)"):
        assert int(Folder(str(tmp_path), channels=1).load().images.max()) == 50


@pytest.mark.parametrize("wish", [{"size": 4}, {"crop": 6}, {"channels": 1}])
def test_an_array_is_refused_where_its_images_were_to_be_others(tmp_path, wish):
    np.save(tmp_path / "a.npy", np.zeros((3, 8, 8, 3), dtype=np.uint8))
    assert Folder(str(tmp_path / "a.npy"), size=8).load().shape == (3, 8, 8)
    with pytest.raises(DataError, match="8×8 pixels and 3 channels; arrays are taken as they are"):
        Folder(str(tmp_path / "a.npy"), **wish).load()


def test_an_archive_of_arrays_may_hold_one_of_any_name_and_of_several_says_which_there_are(tmp_path):
    images = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4)
    np.savez(tmp_path / "one.npz", images)
    assert np.array_equal(Folder(str(tmp_path / "one.npz")).load().images[:, 0].numpy(), images)
    np.savez(tmp_path / "two.npz", x=images, y=np.arange(3))
    with pytest.raises(DataError, match=r'"images".*"labels".*there are x, y'):
        Folder(str(tmp_path / "two.npz")).load()


def test_images_of_another_type_are_refused_with_what_makes_levels_of_them(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 4, 4), dtype=np.float32))
    with pytest.raises(DataError, match=r"got float32.*255 \* images.*uint8"):
        Folder(str(tmp_path / "a.npy")).load()


@pytest.mark.parametrize("wrong", [np.arange(3), np.ones((3, 1), dtype=bool)])
def test_what_an_array_file_holds_out_is_true_or_false_for_each_image(tmp_path, wrong):
    images = np.zeros((3, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=images, held_out=np.array([True, False, False]))
    assert [len(part) for part in Folder(str(tmp_path / "a.npz")).load().split()] == [2, 1]
    np.savez(tmp_path / "b.npz", images=images, held_out=wrong)
    with pytest.raises(DataError, match='"held_out" is to be true or false'):
        Folder(str(tmp_path / "b.npz")).load()
