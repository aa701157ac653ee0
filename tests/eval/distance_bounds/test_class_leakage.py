"""What leaks from class to class of a planted network."""

import numpy as np
import pytest
from toys import BRIGHT, PlantedNet, make_subject, planted_images

from trojai_moth.eval.distance_bounds.class_leakage import class_leakage


def test_leakage_of_the_planted_network_is_what_its_brightness_leaves():
    found = class_leakage(make_subject(PlantedNet()), planted_images())
    for victim in range(len(BRIGHT)):
        others = [label for label in range(len(BRIGHT)) if label != victim]
        assert found[victim].sum() == pytest.approx(1)
        # The other rows are dark, so all other classes are as likely.
        assert found[victim, others[0]] == pytest.approx(found[victim, others[1]])
        assert 0 < found[victim, others].max() < found[victim, victim]


def test_a_class_without_images_is_not_known():
    images = planted_images()
    found = class_leakage(make_subject(PlantedNet()), images.take(images.positions(1)))
    assert np.isnan(found[0]).all() and np.isfinite(found[1]).all()
