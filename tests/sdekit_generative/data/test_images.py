import numpy as np
import pytest
import torch
from PIL import Image

from sdekit_generative.data import Folder
from sdekit_generative.errors import DataError, DataWarning


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 12, 12, 3), dtype=np.uint8)


def test_lossless_formats_come_in_as_they_are_in_the_order_of_their_names(tmp_path, pixels):
    (tmp_path / "sub").mkdir()
    for name, image in zip(("b.png", "a.bmp", "sub/c.tiff", "d.webp"), pixels, strict=False):
        Image.fromarray(image).save(tmp_path / name, lossless=True)
    images = Folder(str(tmp_path)).load().images
    expected = [pixels[1], pixels[0], pixels[3], pixels[2]]
    assert torch.equal(images, torch.from_numpy(np.stack(expected)).permute(0, 3, 1, 2))


def test_palette_and_transparent_images_become_colour_and_colour_becomes_grey(tmp_path, pixels):
    Image.fromarray(pixels[0]).convert("P").save(tmp_path / "a.gif")
    Image.fromarray(pixels[1]).convert("RGBA").save(tmp_path / "b.png")
    with pytest.warns(DataWarning, match=r"2 images converted: .*a\.gif \(a palette\); .*b\.png \(transparent\)"):
        assert Folder(str(tmp_path)).load().shape == (3, 12, 12)
    with pytest.warns(DataWarning, match="2 images converted"):
        assert Folder(str(tmp_path), channels=1).load().shape == (1, 12, 12)


def test_resizing_takes_the_central_square(tmp_path):
    wide = np.zeros((10, 30, 3), dtype=np.uint8)
    wide[:, 10:20] = 200
    Image.fromarray(wide).save(tmp_path / "wide.png")
    images = Folder(str(tmp_path), size=5).load().images
    assert images.shape == (1, 3, 5, 5)
    assert int(images.min()) == 200


def test_hidden_files_are_not_looked_at(tmp_path, pixels):
    (tmp_path / ".DS_Store").write_text("not an image")
    Image.fromarray(pixels[0]).save(tmp_path / "a.png")
    assert len(Folder(str(tmp_path)).load()) == 1


@pytest.mark.parametrize("layout", ["NHW", "NHWC", "NCHW"])
@pytest.mark.parametrize("ending", [".npz", ".npy"])
def test_arrays_are_read_in_three_layouts(tmp_path, pixels, layout, ending):
    array = {"NHW": pixels[..., 0], "NHWC": pixels, "NCHW": pixels.transpose(0, 3, 1, 2)}[layout]
    file = tmp_path / f"images{ending}"
    np.save(file, array) if ending == ".npy" else np.savez(file, images=array, labels=np.arange(6))
    data = Folder(str(file)).load()
    expected = pixels.transpose(0, 3, 1, 2)[:, :1] if layout == "NHW" else pixels.transpose(0, 3, 1, 2)
    assert np.array_equal(data.images.numpy(), expected)
    assert (data.labels is None) == (ending == ".npy")


def _text(folder, pixels):
    (folder / "notes.txt").write_text("hello")
    return "notes.txt: not an image"


def _renamed_text(folder, pixels):
    (folder / "z.png").write_text("hello")
    return "z.png: not an image"


def _empty_file(folder, pixels):
    (folder / "z.jpg").touch()
    return "z.jpg: not an image"


def _truncated(folder, pixels):
    Image.fromarray(pixels[0]).resize((64, 64)).save(folder / "z.jpg")
    (folder / "z.jpg").write_bytes((folder / "z.jpg").read_bytes()[:900])
    return "z.jpg: a damaged image"


def _other_size(folder, pixels):
    Image.fromarray(pixels[0, :5, :7]).save(folder / "z.png")
    return "z.png: 7×5 pixels, but a.png has 12×12"


@pytest.mark.parametrize("spoil", [_text, _renamed_text, _empty_file, _truncated, _other_size])
def test_a_file_that_cannot_be_used_is_named_in_one_line(tmp_path, pixels, spoil):
    Image.fromarray(pixels[0]).save(tmp_path / "a.png")
    said = spoil(tmp_path, pixels)
    with pytest.raises(DataError) as caught:
        Folder(str(tmp_path)).load()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_image_bomb_is_refused(tmp_path, pixels, monkeypatch):
    Image.fromarray(pixels[0]).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(DataError, match=r"a\.png: too large"):
        Folder(str(tmp_path)).load()


def test_places_without_images_are_refused(tmp_path):
    with pytest.raises(DataError, match="no files"):
        Folder(str(tmp_path)).load()
    with pytest.raises(DataError, match="no such folder"):
        Folder(str(tmp_path / "absent")).load()
    with pytest.raises(DataError, match=r"data\.path is not set"):
        Folder().load()


@pytest.mark.parametrize("ending", [".npz", ".npy"])
def test_arrays_that_are_not_images_are_refused_and_run_no_code(tmp_path, ending):
    file = tmp_path / f"a{ending}"
    file.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(DataError, match="not a readable"):
        Folder(str(file)).load()
    hostile = np.array([print], dtype=object)
    np.save(file, hostile, allow_pickle=True) if ending == ".npy" else np.savez(file, images=hostile)
    with pytest.raises(DataError, match="not a readable"):
        Folder(str(file)).load()
    floats = np.zeros((2, 4, 4))
    np.save(file, floats) if ending == ".npy" else np.savez(file, images=floats)
    with pytest.raises(DataError, match="expected uint8"):
        Folder(str(file)).load()
