import pytest
from corner_backdoor import corner_subject
from toys import make_samples, square_images


@pytest.fixture(scope="session")
def samples():
    """Squares to learn from and others held back, never changed."""
    return make_samples(square_images(80, seed=11), square_images(20, seed=12))


@pytest.fixture(scope="session")
def poisoned(samples):
    """A network with a planted backdoor, trained once and never changed."""
    return corner_subject(samples)
