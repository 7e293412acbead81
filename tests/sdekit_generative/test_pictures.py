import numpy as np
import torch

from sdekit_generative.pictures import film, grid, loss_curve, trajectories


def test_a_grid_shows_every_pixel_enlarged_and_in_its_place():
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    sheet = np.asarray(grid(images, columns=3))
    assert sheet.shape == (2 * 68 + 4, 3 * 68 + 4)
    for i in range(5):
        top, left = 4 + (i // 3) * 68, 4 + (i % 3) * 68
        tile = sheet[top : top + 64, left : left + 64]
        expected = (images[i, 0] * 255).round().to(torch.uint8).numpy().repeat(8, 0).repeat(8, 1)
        assert np.array_equal(tile, expected)
    assert (sheet[72:, 140:] == 255).all()


def test_colour_images_stay_in_colour():
    images = torch.zeros(4, 3, 8, 8)
    images[:, 0] = 1.0
    sheet = np.asarray(grid(images))
    assert sheet[10, 10].tolist() == [255, 0, 0]


def test_a_film_shows_frames_of_any_range():
    states = (
        torch.randn(3, 2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        * torch.tensor([100.0, 1.0, 0.01])[:, None, None, None, None]
    )
    shown = film(states)
    assert shown.shape == (6, 1, 8, 8)
    spread = shown.flatten(1).std(1)
    assert float(spread.min()) > 0.15
    # row by row, one sample after another
    assert torch.equal(shown[1:2], film(states[:, :1])[1:2])


def test_trajectories_stand_one_above_the_other():
    states = torch.randn(4, 2, 1, 8, 8)
    assert trajectories(states, states.flip(0)).size == (4 * 68 + 4, 2 * (2 * 68 + 4) + 32)


def test_the_loss_curve_is_a_picture_even_of_few_steps(tmp_path):
    for n in (1, 2, 300):
        loss_curve([{"step": k + 1, "loss": 5.0 + 1.0 / (k + 1)} for k in range(n)], tmp_path / f"{n}.png")
        assert (tmp_path / f"{n}.png").stat().st_size > 5000
