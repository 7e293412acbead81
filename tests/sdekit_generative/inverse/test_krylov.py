import torch

from sdekit_generative.inverse.krylov import conjugate_gradients, gmres


def _noise(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _product(matrix, other):
    return lambda p: ((matrix @ p.unsqueeze(-1)).squeeze(-1), (other @ p.unsqueeze(-1)).squeeze(-1))


def test_both_solve_systems_sample_by_sample_and_carry_the_other_product():
    root, other, rhs = _noise(3, 6, 6), _noise(3, 4, 6, seed=1), _noise(3, 6, seed=2)
    matrix = root @ root.mT + 0.1 * torch.eye(6, dtype=torch.float64)
    for method in (conjugate_gradients, gmres):
        u, carried = method(_product(matrix, other), rhs, 12, 1e-12)
        torch.testing.assert_close(u, torch.linalg.solve(matrix, rhs), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(carried, (other @ u.unsqueeze(-1)).squeeze(-1))


def test_gmres_solves_what_is_neither_symmetric_nor_positive():
    matrix, rhs = _noise(4, 5, 5), _noise(4, 5, seed=2)
    u, _ = gmres(_product(matrix, matrix), rhs, 5, 0.0)
    torch.testing.assert_close(u, torch.linalg.solve(matrix, rhs), rtol=1e-7, atol=1e-7)


def test_after_any_number_of_steps_gmres_has_the_least_residual_there_is():
    matrix, rhs = _noise(2, 7, 7), _noise(2, 7, seed=2)
    powers = [rhs]
    for steps in (1, 2, 3, 4):
        space = torch.stack(powers, -1)
        image = matrix @ space
        best = (rhs - (image @ torch.linalg.pinv(image) @ rhs.unsqueeze(-1)).squeeze(-1)).norm(dim=1)
        u, _ = gmres(_product(matrix, matrix), rhs, steps, 0.0)
        torch.testing.assert_close((rhs - (matrix @ u.unsqueeze(-1)).squeeze(-1)).norm(dim=1), best)
        powers.append((matrix @ powers[-1].unsqueeze(-1)).squeeze(-1))


def test_samples_that_are_done_early_do_not_change_while_others_go_on():
    matrix = torch.stack((torch.eye(4, dtype=torch.float64) * 2.0, _noise(4, 4)))
    rhs = _noise(2, 4, seed=3)
    rhs = torch.cat((rhs, torch.zeros(1, 4, dtype=torch.float64)))
    matrix = torch.cat((matrix, _noise(1, 4, 4, seed=5)))
    u, _ = gmres(_product(matrix, matrix), rhs, 4, 1e-13)
    torch.testing.assert_close(u[0], rhs[0] / 2.0)
    torch.testing.assert_close(u[1], torch.linalg.solve(matrix[1], rhs[1]))
    assert bool((u[2] == 0).all())
