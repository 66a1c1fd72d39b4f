"""The figure of the visual pathway names its stages and says how sure each likeness is."""

import matplotlib.pyplot as plt

from utils.book import pathway


def test_the_figure_has_every_stage_and_a_line_for_every_likeness():
    figure = pathway.draw()
    (ax,) = figure.axes
    said = [text.get_text() for text in ax.texts]
    for head, _, boxes in pathway.COLUMNS:
        assert head in said
        assert {title for title, _ in boxes.values()} <= set(said)
    widths = [line.get_linewidth() for line in ax.lines if len(line.get_xdata())]
    assert widths == [pathway.STYLES[strength][1] for *_, strength in pathway.LINKS]
    plt.close(figure)


def test_a_likeness_joins_boxes_that_exist():
    macaque = pathway.COLUMNS[1][2]
    for side, row, *_ in pathway.LINKS:
        assert row in macaque
        assert row in pathway.COLUMNS[side][2]
