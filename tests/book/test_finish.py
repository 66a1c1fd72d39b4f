"""The last hand on the pages: what is mended, on pages of a few lines."""

import json

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from PIL import Image
from skimage import data

from utils.book import (
    accessible,
    finish,
    head,
    landing,
    lighter,
    links,
    policy,
    scripts,
    sections,
    typography,
)

ADDRESS = "https://example.org/book/"


@pytest.fixture
def page(tmp_path):
    """Writes a page with some HTML in its article, and gives it as the site has it."""
    pages = tmp_path / "pages"
    (pages / "chapters").mkdir(parents=True)
    (pages / "_static").mkdir()
    (pages / "_images").mkdir()

    def write(article, name="chapters/1_one"):
        html = f"<html><head><title>One</title></head><body><article class='bd-article'>{article}"
        (pages / f"{name}.html").write_text(f"{html}</article></body></html>", encoding="utf-8")
        return finish.Site(tmp_path, pages, ADDRESS).pages[name]

    return write


CHART = Image.fromarray(np.repeat(np.arange(4, dtype=np.uint8)[:, None] * 60, 90).reshape(60, 6))


@pytest.mark.parametrize("picture", [CHART, Image.fromarray(data.astronaut())])
def test_a_picture_becomes_a_smaller_one_with_its_size(page, picture):
    made = page("<img src='../_images/a.png'><img src='../_images/a.png'>")
    file = made.site.folder / "_images/a.png"
    picture.save(file)
    before = file.stat().st_size
    lighter.mend(made)
    first, second = made.html.find_all("img")
    kept = made.path(first["src"])
    assert kept.stat().st_size < before
    assert (first["width"], first["height"]) == picture.size
    assert "loading" not in first.attrs
    assert second["loading"] == "lazy"
    assert list(made.site.folder.glob("_images/*")) == [kept]
    if picture is CHART:
        assert Image.open(kept).convert("L").tobytes() == picture.tobytes()


def test_the_name_of_an_index_moves_into_the_only_row_of_heads(page):
    made = page(
        "<table class='dataframe'><thead><tr><th></th><th>a</th></tr>"
        "<tr><th>layer</th><th></th></tr></thead>"
        "<tbody><tr><th>1</th><td>.5</td></tr></tbody></table>"
    )
    accessible.mend(made)
    heads = [[c.get_text() for c in row.find_all(["th", "td"])] for row in made.html.select("tr")]
    assert heads == [["layer", "a"], ["1", ".5"]]


def test_columns_of_words_are_told_from_columns_of_numbers(page):
    made = page(
        "<table class='dataframe'><thead><tr><th></th><th>model</th><th>a</th><th>b</th></tr>"
        "</thead><tbody><tr><th>1</th><td>ViT</td><td>.5</td><td>−0.1</td></tr>"
        "<tr><th>2</th><td>CNN</td><td>nan</td><td>&lt; 0.1</td></tr></tbody></table>"
    )
    accessible.mend(made)
    assert [c.get_text() for c in made.html.select(".words")] == ["model", "ViT", "CNN"]


def test_the_name_of_the_columns_stands_with_that_of_the_index(page):
    table = pd.DataFrame({"a": [0.5]}, index=pd.Index([1], name="layer")).rename_axis(columns="x")
    made = page(table.to_html())
    accessible.mend(made)
    heads = [[c.get_text() for c in row.find_all(["th", "td"])] for row in made.html.select("tr")]
    assert heads == [["layer, by x", "a"], ["1", "0.5"]]


def test_no_two_elements_share_an_id(page):
    made = page("<p id='a'></p><p id='a'></p><p id='b'></p>")
    accessible.mend(made)
    assert [element["id"] for element in made.html.select("[id]")] == ["a", "b"]


@pytest.mark.parametrize(
    ("article", "said"),
    [
        ("<h1>One</h1><p><strong>Is it <em>so</em>?</strong></p><p>Yes.</p>", "Is it so?"),
        ("<h1>One</h1>", head.BOOK),
        (f"<p>{'word ' * 100}</p>", f"{'word ' * 40}…".replace("  ", " ")),
    ],
)
def test_a_page_is_described_by_its_question(page, article, said):
    assert head.described(page(article).html) == said


def test_the_day_of_a_build_can_be_given(page, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert head.made(page("").site) == "Last built on 2 January 1970."


def glossary(page):
    page("<dl class='py'><dt class='sig' id='utils.gini'>gini</dt></dl>", links.REFERENCE)
    return page(
        "<dl class='glossary'><dt id='term-Head'>Head</dt><dd><p>One of several attentions. "
        "<a href='x.html'>Chapter 3</a>.</p></dd></dl>",
        links.GLOSSARY,
    )


def test_the_first_italics_of_a_term_are_linked_and_no_other(page):
    glossary(page)
    made = page("<h1>A <em>head</em></h1><p><em>Heads</em> and <em>heads</em>, <em>hats</em></p>")
    links.mend(made)
    (link,) = made.html.select("a")
    assert link["href"] == "appendix_glossary.html#term-Head"
    assert link["title"] == "One of several attentions."
    assert link.get_text() == "Heads"


@pytest.mark.parametrize(
    ("code", "linked"),
    [("utils.gini", True), ("gini(", True), ("gini(x)", True), ("gini", False), ("mean(", False)],
)
def test_the_name_of_a_function_leads_to_the_reference(page, code, linked):
    glossary(page)
    made = page(f"<p><code>{code}</code></p>")
    links.mend(made)
    found = [link["href"] for link in made.html.select("a")]
    assert found == ["appendix_reference.html#utils.gini"] * linked


@pytest.mark.parametrize(
    ("word", "linked"),
    [("IT", True), ("it", False), ("ITs", True), ("Head", True), ("Head.", False)],
)
def test_capitals_and_labels_are_no_other_words(page, word, linked):
    terms = (("IT", "Inferotemporal."), ("Head", "One of several."))
    entries = "".join(f"<dt id='term-{t}'>{t}</dt><dd><p>{said}</p></dd>" for t, said in terms)
    page(f"<dl class='glossary'>{entries}</dl>", links.GLOSSARY)
    made = page(f"<p><em>{word}</em></p>")
    links.mend(made)
    assert bool(made.html.select("a")) == linked


def test_what_a_page_asks_for_is_not_linked_to_the_answer(page):
    glossary(page)
    stub = "<div class='cell_input'><pre><span class='nf'>gini</span></pre></div>"
    made = page(f"<p><code>gini(x)</code></p>{stub}")
    links.mend(made)
    assert not made.html.select("a")


def test_numbers_keep_their_signs_and_formulas_their_punctuation(page):
    made = page(
        "<p>5 % of 14 × 14 (<span class='math'>T</span>), <code>5 %</code> "
        "<span class='math'>x</span>.</p>"
    )
    typography.mend(made)
    assert str(made.html.p) == (
        '<p>5\xa0% of 14\xa0×\xa014 <span class="whole">(<span class="math">T</span>),</span> '
        '<code>5 %</code> <span class="whole"><span class="math">x</span>.</span></p>'
    )


def test_links_of_outputs_lead_to_pages_and_their_sections(page):
    made = page(
        "<div class='cell_output'><a href='3_a.ipynb#Do-heads-agree?'>a</a>"
        "<a href='6_claims.ipynb#hu4'>b</a><a href='2_b.ipynb'>c</a></div>"
    )
    links.mend(made)
    found = [link["href"] for link in made.html.select("a")]
    assert found == ["3_a.html#do-heads-agree", "6_claims.html#hu4", "2_b.html"]


def test_the_source_of_a_function_is_its_lines_at_the_commit(monkeypatch):
    monkeypatch.setattr(links.launch, "repository", lambda root: "https://example.org/repo")
    monkeypatch.setattr(links.launch, "revision", lambda root: "abc")
    root = finish.Path(links.__file__).resolve().parents[2]
    where = links.source(root, "utils.book.links.source")
    assert where.startswith("https://example.org/repo/blob/abc/utils/book/links.py#L")
    first = int(where.partition("#L")[2].partition("-")[0])
    lines = finish.Path(links.__file__).read_text(encoding="utf-8").splitlines()
    assert lines[first - 1].startswith("def source(")
    assert links.source(root, "utils.book.links.GLOSSARY") is None


def test_sections_hold_their_own_prose_without_code(page):
    made = page(
        "<section id='a'><h1>A<a class='headerlink'>#</a></h1><p>Outer.</p>"
        "<div class='cell'><div class='cell_input'><pre>import x</pre></div>"
        "<div class='cell_output'><pre>1.0</pre><figcaption>Seen.</figcaption></div></div>"
        "<section id='b'><h2>B</h2><p>Inner.</p></section></section>"
    )
    found = {each["title"]: each for each in sections.sections(made.html, made.name)}
    assert found["A"]["text"] == "Outer. Seen."
    assert found["B"] == {
        "url": "chapters/1_one.html#b",
        "title": "B",
        "page": "A",
        "text": "Inner.",
    }


def test_a_section_reads_as_on_the_page(page):
    made = page(
        "<section id='a'><h1>A</h1><p>Gini [<a>Hurley <em>et al.</em>, 2009</a>], (<b>b</b>).</p>"
        f"<div class='citation' id='c'>{'word ' * 40}</div></section>"
    )
    cited, section = sections.sections(made.html, made.name)
    assert section["text"] == "Gini [Hurley et al., 2009], (b)."
    assert cited["title"].endswith("word …")
    assert len(cited["title"]) <= sections.TITLE


def test_the_index_is_a_script_that_no_text_can_end(page):
    made = page("<section id='a'><h1>A</h1><p>&lt;/script&gt;</p></section>")
    sections.write(made.site)
    text = (made.site.folder / "_static/sections.js").read_text(encoding="utf-8")
    assert "</script" not in text
    found = json.loads(text.removeprefix("SECTIONS = ").rstrip(";\n"))
    assert found[0]["text"] == "</script>"


def test_a_page_gets_a_script_only_for_what_it_holds(page):
    made = page("<section class='claim-card'></section>")
    scripts.mend(made)
    assert [script["src"] for script in made.html.select("script")] == ["../_static/claims.js"]


def test_a_page_runs_the_scripts_that_it_was_built_with_and_no_other(page):
    made = page("<script>alert('Hello, world.');</script><script src='a.js'></script>")
    policy.mend(made)
    (rules,) = [meta["content"] for meta in made.html.select("head > meta:first-child")]
    scripts_of = dict(rule.split(" ", 1) for rule in rules.split("; "))["script-src"]
    # the hash that the W3C's recommendation gives for this script
    assert scripts_of == "'self' 'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='"


def test_the_buttons_of_the_theme_are_allowed_by_what_they_do(page):
    made = page("<button onclick='window.print()'>Print</button>")
    policy.mend(made)
    assert "'self' 'unsafe-hashes' 'sha256-" in made.html.select_one("meta")["content"]


def test_the_first_call_of_a_function_in_open_code_leads_to_the_reference(page):
    entry = "utils.measures.sparsity.gini"
    page(f"<dl class='py'><dt id='{entry}'>gini</dt></dl>", links.REFERENCE)
    call = (
        "<div class='cell_input'><pre>\n<span class='n'>a</span> <span class='o'>=</span> "
        "<span class='n'>sparsity</span><span class='o'>.</span><span class='n'>gini</span>"
        "<span class='p'>(</span><span class='n'>{0}</span><span class='p'>)</span>\n"
        "<span class='n'>mine</span><span class='o'>.</span><span class='n'>gini</span>"
        "<span class='p'>()</span></pre></div>"
    )
    folded = f"<div class='cell'><details>{call.format('b')}</details></div>"
    shown = "".join(f"<div class='cell'>{call.format(word)}</div>" for word in "cd")
    made = page(folded + shown)
    links.mend(made)
    (link,) = made.html.select("a.to-name")
    assert link["href"] == f"appendix_reference.html#{entry}"
    assert link.get_text() == "gini"
    assert link.find_parent("pre").find_all("span")[-4].get_text() == "mine"
    assert "c" in link.find_parent("pre").get_text()


def test_a_function_that_the_page_defines_is_its_own(page):
    page("<dl class='py'><dt id='utils.measures.sparsity.gini'>gini</dt></dl>", links.REFERENCE)
    made = page(
        "<div class='cell'><div class='cell_input'><pre><span class='k'>def</span> "
        "<span class='nf'>gini</span><span class='p'>(</span><span class='n'>x</span>"
        "<span class='p'>):</span>\n<span class='n'>gini</span><span class='p'>(</span>"
        "</pre></div></div>"
    )
    links.mend(made)
    assert made.html.select("a.to-name") == []


def test_what_was_found_counts_each_claim_once_and_says_how():
    html = "".join(
        f"<section class='claim-card' data-rungs='{rungs}' data-verdicts='{verdicts}'>"
        f"<h3>{name}: {name} holds.</h3></section>"
        for name, rungs, verdicts in (
            ("a1", "objects|CIFAR-10", "supported|mixed"),
            ("a2", "objects", "undecided"),
            ("a3", "exact", "supported"),
        )
    )
    cards = BeautifulSoup(html, "html.parser").select("section")
    assert landing.found(cards) == (
        f"Of 3 claims: 2 supported, 1 undecided. Supported: a1 holds; a3 holds. {landing.ONCE}"
    )


def test_the_card_of_a_chapter_names_the_claims_that_lead_to_it_by_what_they_say(page):
    card = (
        "<section class='claim-card' id='{0}' data-rungs='objects' data-verdicts='undecided'>"
        "<h3>{0}: {1}.</h3><a href='{2}'>Shown there</a></section>"
    )
    claims = card.format("a1", "Deeper is sparser", "1_one.html#trends")
    page(claims + card.format("a2", "Wider is not", "2_two.html"), landing.CLAIMS)
    chapter = page(
        "<h1>1 One#</h1><p>Is it so?</p><p>About 25 minutes to read, one to run.</p>"
        "<img src='data:image/png;base64,AAAA'><img src='../_images/a.png'>"
    )
    Image.fromarray(data.astronaut()).save(chapter.site.folder / "_images/a.png")
    index = page("", landing.LANDING)
    found = landing._card(index, chapter)
    assert found.h3.a.get_text() == "1 One"
    assert found.p.get_text() == "Is it so?"
    assert [link.get_text() for link in found.select(".verdicts a")] == [
        "Deeper is sparser: undecided"
    ]
    assert found.select_one(".verdicts a")["href"] == "6_claims.html#a1"
    assert found.summary.get_text() == "1 claim: 1 undecided"
    picture = Image.open(index.path(found.img["src"]))
    assert picture.size == (found.img["width"], found.img["height"]) == (240, 240)
