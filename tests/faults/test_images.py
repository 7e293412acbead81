"""Folders with images that are broken, odd, or no images: each is said by name, and skipped or stopped at; nothing else."""

from __future__ import annotations

import io
import os
import random
import struct
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdekit_generative.cli import main
from sdekit_generative.data import Folder
from sdekit_generative.errors import DataError, DataWarning

from .mutations import mutated

FORMATS = ("png", "jpg", "gif", "bmp", "tif", "webp")
ENDINGS = {"jpg": "jpeg", "tif": "tiff"}  # what Pillow calls them


def _picture(number: int, size: tuple[int, int] = (24, 20), mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def _encoded(ending: str, picture: Image.Image | None = None, **more: object) -> bytes:
    stream = io.BytesIO()
    (picture or _picture(1)).save(stream, ENDINGS.get(ending, ending), **more)
    return stream.getvalue()


def _png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of these chunks, their checksums right."""
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _header(width: int, height: int, depth: int = 8, colour: int = 2) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)


_SCAN = (b"IDAT", zlib.compress(b"\0" + bytes(72)))
_END = (b"IEND", b"")


def _broken() -> dict[str, bytes]:
    """Sixty files that are no images, or no longer, or none that one wants; by name."""
    found: dict[str, bytes] = {}
    for ending in FORMATS:
        whole = _encoded(ending)
        found[f"empty.{ending}"] = b""
        found[f"half.{ending}"] = whole[: len(whole) // 2]
        found[f"head.{ending}"] = whole[:20]
        found[f"text.{ending}"] = b"Dear diary, this is no image.\n" * 20
        found[f"zeros.{ending}"] = bytes(len(whole))
        found[f"spoiled.{ending}"] = whole[:4] + b"\xff" * 60 + whole[64:]
        found[f"behind.{ending}"] = b"\0" * 7 + whole
    found |= {
        "bomb.png": _png(_header(40_000, 40_000), _SCAN, _END),
        "huge.png": _png(_header(2**31 - 1, 2**31 - 1), _SCAN, _END),
        "without size.png": _png(_header(0, 0), _SCAN, _END),
        "odd depth.png": _png(_header(24, 24, depth=3), _SCAN, _END),
        "odd colour.png": _png(_header(24, 24, colour=9), _SCAN, _END),
        "without data.png": _png(_header(24, 24), _END),
        "without palette.png": _png(_header(24, 24, colour=3), _SCAN, _END),
        "text bomb.png": _png(_header(24, 24), (b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 26))), _SCAN, _END),
        "tiny.png": _encoded("png", _picture(1, (1, 1))),
        "narrow.png": _encoded("png", _picture(1, (300, 2))),
        "32 bits.tif": _encoded("tif", Image.fromarray(np.ones((24, 24), dtype=np.float32))),
        "script.svg": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        "page.html": b"<html><img src='a.png'></html>",
        "notes.txt": b"notes",
        "archive.zip": b"PK\x03\x04" + bytes(60),
        "pickle.png": b"\x80\x04\x95" + bytes(30),
        "sheet.csv": b"a,b\n1,2\n",
        "postscript.png": _encoded("eps"),  # which Pillow would start another program for
    }
    return found


def _odd() -> dict[str, bytes]:
    """Images of another kind than most, which can be used."""
    deep = Image.fromarray((np.arange(480, dtype=np.uint16) * 130).reshape(20, 24))
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "palette.png": _encoded("png", _picture(2, mode="P")),
        "grey.png": _encoded("png", _picture(2, mode="L")),
        "transparent.png": _encoded("png", _picture(2, mode="RGBA")),
        "grey and transparent.png": _encoded("png", _picture(2, mode="LA")),
        "two-tone.png": _encoded("png", _picture(2, mode="1")),
        "for print.jpg": _encoded("jpg", _picture(2, mode="CMYK")),
        "sixteen bits.png": _encoded("png", deep),
        "turned.jpg": _encoded("jpg", exif=turned),
        "moving.gif": _encoded("gif", save_all=True, append_images=[_picture(3), _picture(4)]),
        "by another name.png": _encoded("jpg"),
        "WITHOUT AN ENDING": _encoded("png"),
        "progressive.jpg": _encoded("jpg", progressive=True),
        "naïve café 数.png": _encoded("png"),
    }


def _good(folder: Path, count: int = 6) -> None:
    folder.mkdir()
    for i in range(count):
        _picture(i).save(folder / f"good-{i}.png")


def _check(capsys: pytest.CaptureFixture[str], folder: Path, *more: str) -> tuple[int, str, str]:
    status = main(["data", "check", str(folder), "--size=16", *more])
    out, err = capsys.readouterr()
    return status, out, err


def test_sixty_broken_images_are_named_one_by_one(tmp_path, capsys):
    _good(tmp_path / "images")
    broken, late = _broken(), []
    assert len(broken) == 60
    for name, content in broken.items():
        file = tmp_path / "images" / name
        file.write_bytes(content)
        start = time.process_time()
        status, _, err = _check(capsys, tmp_path / "images")
        late += [name] if time.process_time() - start > 1.0 else []
        assert status == 2, name
        assert err.count("\n") == 1
        assert str(file) in err
        status, out, err = _check(capsys, tmp_path / "images", "--broken=skip")
        assert status == 0, (name, err)
        assert out.startswith("6 images of 16×16 pixels")
        assert err.startswith(f"note: 1 file left out: {file}: ")
        file.unlink()
    assert late == []


def test_all_of_them_together_are_counted(tmp_path, capsys):
    _good(tmp_path / "images")
    for name, content in _broken().items():
        (tmp_path / "images" / name).write_bytes(content)
    os.mkfifo(tmp_path / "images" / "pipe.png")  # neither it nor what follows is a file
    (tmp_path / "images" / "gone.png").symlink_to("nowhere")
    (tmp_path / "images" / "folder.png").mkdir()
    status, out, err = _check(capsys, tmp_path / "images", "--broken=skip")
    assert status == 0, err
    assert out.startswith("6 images of 16×16 pixels")
    assert "note: 60 files left out: " in err
    assert "and 40 more" in err
    status, _, err = _check(capsys, tmp_path / "images")
    assert status == 2
    assert "(and 59 more); mend or remove them, or leave such files out: data check --broken skip" in err


@pytest.mark.parametrize("name", _odd())
def test_odd_images_are_used(name, tmp_path, capsys):
    _good(tmp_path / "images")
    (tmp_path / "images" / name).write_bytes(_odd()[name])
    status, out, err = _check(capsys, tmp_path / "images")
    assert status == 0, err
    assert out.startswith("7 images of 16×16 pixels, 3 channels")
    assert "Traceback" not in err


def _outcomes(folder: Path, count: int) -> tuple[dict[str, int], list[str]]:
    rng, counted, wrong = random.Random(0), {"used": 0, "named": 0}, []
    wholes = [_encoded(ending) for ending in FORMATS] + list(_odd().values())
    for i in range(count):
        file = folder / f"spoiled-{i}.{FORMATS[i % len(FORMATS)]}"
        file.write_bytes(mutated(wholes[i % len(wholes)], rng, i))
        start = time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DataWarning)
                found = Folder(str(folder), size=16).load()
            counted["used"] += 1
            assert tuple(found.images.shape) == (3, 3, 16, 16)
        except DataError as problem:
            counted["named"] += str(file) in str(problem)
        except Exception as problem:  # is what must not be
            wrong.append(f"{file.name}: {problem!r}")
        if time.process_time() - start > 1.0:
            wrong.append(f"{file.name}: late")
        file.unlink()
    return counted, wrong


def test_mutated_images_are_used_or_named(tmp_path):
    _good(tmp_path / "images", 2)
    counted, wrong = _outcomes(tmp_path / "images", 100)
    assert wrong == []
    assert sum(counted.values()) == 100


@pytest.mark.slow
def test_three_thousand_mutated_images_are_used_or_named(tmp_path):
    _good(tmp_path / "images", 2)
    counted, wrong = _outcomes(tmp_path / "images", 3000)
    print(counted)  # noqa: T201
    assert wrong == []
    assert sum(counted.values()) == 3000


EMPTY: dict[str, Callable[[Path], None]] = {
    "an empty folder": lambda folder: None,
    "hidden files": lambda folder: (folder / ".hidden.png").write_bytes(b"x") and None,
    "empty folders": lambda folder: (folder / "a" / "b").mkdir(parents=True),
    "nothing that can be used": lambda folder: (folder / "notes.txt").write_bytes(b"x") and None,
    "a single image": lambda folder: _picture(1).save(folder / "a.png"),
}


@pytest.mark.parametrize("what", EMPTY)
def test_too_few_images_to_train_on_are_one_line_and_leave_no_folder(what, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    EMPTY[what](tmp_path / "images")
    train = ["train", "folder", "--set=data.size=16", "--set=data.broken=skip", f"--out={tmp_path}/run"]
    assert main([*train, f"--set=data.path={tmp_path}/images"]) == 2
    err = capsys.readouterr().err.splitlines()
    assert err[-1].startswith("sdekit-generative: error: ")
    assert str(tmp_path / "images") in err[-1] or "1 are too few" in err[-1]
    assert not (tmp_path / "run").exists()


def test_a_batch_larger_than_the_data_takes_every_image_equally_often(tmp_path, capsys):
    _good(tmp_path / "images")
    small = ["network.channels=8", "network.multipliers=1", "network.attention=[]", "data.size=16"]
    train = ["train", "folder", "--steps=2", "--batch=25", f"--set=data.path={tmp_path}/images", "--threads=1"]
    assert main([*train, *(f"--set={s}" for s in small), f"--out={tmp_path}/run"]) == 0, capsys.readouterr().err
