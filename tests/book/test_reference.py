"""Docstrings as pages: what becomes of their mark-up."""

from utils.book.reference import _restructure, restructured


def test_code_stays_code_and_what_would_be_markup_is_plain():
    assert restructured("`x` and 2*y, |z| or w_") == "``x`` and 2\\*y, \\|z\\| or w\\_"


def test_sources_become_citations_and_chapters_links():
    text = restructured("Source: tang2018large, antolik2016model. Explained in chapter 4.")
    assert ":cite:t:`tang2018large,antolik2016model`. " in text
    assert text.endswith("chapter :doc:`4 </chapters/4_neuron_sparsity>`.")
    assert restructured("Chapters 2.2 and 3.").count(":doc:") == 2


def test_a_source_may_be_followed_by_words():
    text = restructured("Source: hu2023comparative, reconstructed.")
    assert text == "Source: :cite:t:`hu2023comparative`, reconstructed."


def test_a_chapter_that_is_not_written_is_no_link():
    assert restructured("Chapter 9.") == "Chapter 9."


def test_parameters_become_a_list_that_ends_where_the_indent_does():
    lines = ["One sentence.", "", "x, y : sizes", "    above 0", "k : count", "Raises nothing."]
    _restructure(None, "function", "f", None, None, lines)
    text = "\n".join(lines)
    assert "* **x, y**: sizes above 0\n* **k**: count\n" in text
    assert text.rstrip().endswith("\nRaises nothing.")
