import numpy as np
import pytest
from PIL import Image

from trojai_moth.triggers import heatmap
from trojai_moth.triggers.distance_records import DistanceMatrix, DistanceSettings, PairDistance, plot_change


def matrix(classes, size, pairs=None):
    every = pairs or [(v, t) for v in range(classes) for t in range(classes) if v != t]
    found = {pair: size(*pair) for pair in every}
    return DistanceMatrix(
        model_id="id-00000007",
        architecture="resnet50",
        classes=classes,
        source_sha256="a",
        weights_sha256="b",
        version="1",
        torch="2",
        device="cpu",
        data="toys",
        settings=DistanceSettings(),
        images=(9,) * classes,
        image_sha256=((),) * classes,
        distances=tuple(tuple(found.get((v, t)) for t in range(classes)) for v in range(classes)),
        pairs=tuple(
            PairDistance(victim=v, target=t, images=9, sizes=(d,), distance=d, l1=None, spread=None)
            for (v, t), d in found.items()
        ),
        censored=sum(d is None for d in found.values()),
        mean=12.0,
        mean_l1=36.0,
        geometric_mean=None,
        minimum=None,
        spread=None,
        warnings=(),
        seconds=1.0,
    )


def plain(v, t):
    return 10.0 + 7 * v + t


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, to look into."""
    drawn, make = [], heatmap.draw
    monkeypatch.setattr(heatmap, "draw", lambda *given: drawn.append(make(*given)) or drawn[-1])
    return drawn


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def test_one_matrix_in_words_and_numbers(figures, tmp_path):
    gone = [(0, 1), (2, 1)]
    matrix(4, lambda v, t: None if (v, t) in gone else plain(v, t)).plot(tmp_path / "new" / "a.png")
    (figure,) = figures
    title = figure.get_suptitle()
    assert "id-00000007" in title and "pixels" in title and "mean 12.0" in title and "success >= 0.9" in title
    axis = figure.axes[0]
    kept = {f"{plain(v, t):.0f}" for v in range(4) for t in range(4) if v != t and (v, t) not in gone}
    assert {text.get_text() for text in axis.texts} == kept
    hatched = [patch for patch in axis.patches if patch.get_hatch()]
    assert sorted((round(p.get_y() + 0.5), round(p.get_x() + 0.5)) for p in hatched) == gone
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["censored: no trigger found"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("target class", "victim class")
    assert pixels(tmp_path / "new" / "a.png").std() > 0


def test_large_matrices_have_no_numbers_but_ticks(figures, tmp_path):
    matrix(45, plain).plot(tmp_path / "a.png")
    axis = figures[0].axes[0]
    assert not axis.texts and not figures[0].legends
    labels = [text.get_text() for text in axis.get_xticklabels()]
    assert labels == [str(label) for label in range(0, 45, 2)]


def test_subsets_show_what_was_not_measured(figures, tmp_path):
    matrix(4, plain, [(0, 1), (3, 2)]).plot(tmp_path / "a.png")
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["not measured"]
    assert len(figures[0].axes[0].texts) == 2


def test_change_shares_one_scale_and_centres_the_ratio_on_one(figures, tmp_path):
    before = matrix(3, plain)
    after = matrix(3, lambda v, t: None if (v, t) == (1, 0) else 4 * plain(v, t) if v else plain(v, t) / 2)
    plot_change(before, after, tmp_path / "a.png")
    old, new, ratio = figures[0].axes[:3]
    norms = [axis.images[0].norm for axis in (old, new, ratio)]
    assert (norms[0].vmin, norms[0].vmax) == (norms[1].vmin, norms[1].vmax)
    assert norms[2].vmin * norms[2].vmax == pytest.approx(1) and norms[2].vmax == pytest.approx(4)
    assert float(norms[2](1.0)) == pytest.approx(0.5)
    assert sorted(text.get_text() for text in ratio.texts) == ["0.50", "0.50", "4.0", "4.0", "4.0"]
    assert [sum(bool(patch.get_hatch()) for patch in axis.patches) for axis in (old, new, ratio)] == [0, 1, 1]


@pytest.mark.parametrize("size", [lambda v, t: None, lambda v, t: 0.0, lambda v, t: 5.0])
def test_matrices_without_a_scale_are_drawn_too(tmp_path, size):
    matrix(3, size).plot(tmp_path / "a.png")
    plot_change(matrix(3, size), matrix(3, plain), tmp_path / "b.png")
    assert pixels(tmp_path / "a.png").size and pixels(tmp_path / "b.png").size


def test_another_size_is_another_picture(tmp_path):
    for name, most in (("a", 40.0), ("b", 20.0)):
        matrix(20, lambda v, t, most=most: most if (v, t) == (2, 3) else 10.0 + t).plot(tmp_path / f"{name}.png")
    assert (pixels(tmp_path / "a.png") != pixels(tmp_path / "b.png")).any()
