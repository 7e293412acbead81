import numpy as np
from sklearn.datasets import load_digits

from sdekit_generative.data import Digits


def test_bundled_digits_are_those_of_scikit_learn():
    theirs = load_digits()
    ours = Digits().load()
    assert np.array_equal(ours.images[:, 0].numpy(), theirs.images)
    assert np.array_equal(ours.labels.numpy(), theirs.target)
    assert ours.levels == 17
    assert ours.shape == (1, 8, 8)
