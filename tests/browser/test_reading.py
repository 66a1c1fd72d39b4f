"""What readers do with the pages: search, follow terms and claims, open code, predict, print."""

import re
from urllib.parse import urlsplit

import pytest
from helpers.rendered import NAMES, PAGES

CHAPTER, CLAIMS = "chapters/3_attention_sparsity.html", "chapters/6_claims.html"
INDEX = "chapters/index.html"

pytestmark = pytest.mark.slow


@pytest.fixture
def fresh(browser, address):
    """Opens pages in a browser that has kept nothing."""
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:

        def open_page(name):
            page = context.new_page()
            page.goto(f"{address}/{name}", wait_until="networkidle")
            return page

        yield open_page


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("Colab", "appendix_running.html#on-colab"),
        ("GPU", "appendix_running.html#on-a-gpu"),
        ("install", "appendix_running.html#"),
        ("register tokens", "3_attention_sparsity.html#registers"),
        (
            "why heads less sparse",
            "(6_claims.html#hu6|3_attention_sparsity.html#(over|more)-heads)",
        ),
        ("Gini", "appendix_glossary.html#term-Gini-index"),
        ("head dimension", "(appendix_glossary.html#term-Head-dimension|5_2_depth)"),
        ("hu6", "6_claims.html#hu6"),
    ],
)
def test_a_question_is_answered_by_one_of_the_first_three_sections(visit, query, answer):
    page = visit(f"search.html?q={query}")
    found = page.locator("ol.found li")
    links = found.locator("a").evaluate_all("links => links.map(a => a.getAttribute('href'))")
    assert re.search(answer, " ".join(links[:3])), links[:5]
    assert found.first.locator("p").inner_text().strip()


@pytest.mark.parametrize("word", ["__proto__", "toString", "hasOwnProperty"])
def test_a_word_that_scripts_know_and_the_book_does_not_is_not_found(visit, word):
    page = visit(f"search.html?q={word}")
    assert page.locator("#search-results").inner_text().startswith("No sections found.")


def test_constructor_which_every_object_of_a_script_has_is_a_word_like_others(visit):
    page = visit("search.html?q=constructor")
    assert "sections found." in page.locator("#search-results").inner_text()


def test_every_page_states_its_policy():
    pages = [file for file in PAGES.rglob("*.html") if "_static" not in file.parts]
    stated = [f for f in pages if "Content-Security-Policy" in f.read_text(encoding="utf-8")]
    assert stated == pages


def test_no_script_runs_that_was_not_built_with_the_page(fresh):
    page = fresh(INDEX)
    page.evaluate("""() => {
        const script = document.createElement("script");
        script.textContent = "window.injected = true";
        document.body.append(script);
    }""")
    assert page.evaluate("window.injected") is None


def test_the_search_finds_no_code_and_no_set_up():
    index = (PAGES / "_static/sections.js").read_text(encoding="utf-8")
    assert "sparse-checkout" not in index
    assert "import matplotlib" not in index


def test_the_box_of_every_page_leads_to_the_search(fresh):
    page = fresh(INDEX)
    page.keyboard.press("Control+k")
    page.keyboard.type("register")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert urlsplit(page.url).path == "/search.html"
    assert page.locator("ol.found li").count() > 0


@pytest.mark.parametrize("name", NAMES, scope="module")
def test_links_within_the_book_lead_to_what_is_there(visit, address, name):
    links = visit(name).evaluate("[...document.links].map(link => link.href)")
    for link in {link for link in links if link.startswith(address)}:
        path, anchor = urlsplit(link).path, urlsplit(link).fragment
        if not path.endswith(".html"):
            continue
        file = PAGES / path.removeprefix("/").removeprefix("seeing-sparsely/")
        assert file.is_file(), link
        if anchor and "=" not in anchor:  # what the Lab is asked to show
            assert f'id="{anchor}"' in _text(file), link


def _text(file, known={}):  # noqa: B006  a page is read once
    if file not in known:
        known[file] = file.read_text(encoding="utf-8")
    return known[file]


def test_the_first_italics_of_a_term_lead_to_its_definition(visit):
    page = visit("chapters/index.html")
    term = page.locator("a.to-term", has_text="attention").or_(page.locator("a.to-term")).first
    anchor = term.get_attribute("href").partition("#")[2]
    assert f'id="{anchor}"' in _text(PAGES / "chapters/appendix_glossary.html")
    term.focus()
    tooltip = page.locator(".tooltip-inner")
    tooltip.wait_for()
    assert len(tooltip.inner_text()) > 20


def test_claims_are_filtered_by_keyboard_and_a_link_shows_a_hidden_one(fresh):
    page = fresh(CLAIMS)
    shown = page.locator(".claim-card:visible")
    every = shown.count()
    assert every == page.locator(".claim-card").count() > 20
    verdict = page.get_by_label("Verdict")
    verdict.focus()
    page.keyboard.press("ArrowDown")
    assert 0 < shown.count() < every
    assert page.get_by_role("status").inner_text() == f"{shown.count()} of {every} claims"
    hidden = page.locator(".claim-card:not(:visible)").first.get_attribute("id")
    page.evaluate("id => location.hash = id", hidden)
    page.locator(f"#{hidden}").wait_for(state="visible")


def test_without_scripts_all_claims_are_shown(browser, address):
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{address}/{CLAIMS}")
        assert page.locator(".claim-card:visible").count() == page.locator(".claim-card").count()


def test_one_switch_opens_all_code_but_solutions_and_is_remembered(fresh):
    page = fresh(CHAPTER)
    button = page.get_by_role("button", name="All code")
    opened = "div.cell:not(.tag_solution) > details[open]"
    assert page.locator(opened).count() == 0
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    assert page.locator(opened).count() > 5
    assert page.locator(".tag_solution details[open]").count() == 0
    page.reload(wait_until="networkidle")
    assert page.locator(opened).count() > 5
    page.get_by_role("button", name="All code").click()
    assert page.locator(opened).count() == 0


def test_a_prediction_is_kept_and_stands_next_to_what_comes(fresh):
    page = fresh(CHAPTER)
    form = page.locator("form.prediction").first
    assert page.locator(".veiled").count() == 0
    form.locator("textarea").fill("It rises, then falls.")
    assert page.locator(".veiled").count() <= 1
    form.locator("textarea").press("Tab")
    page.keyboard.press("Enter")
    page.reload(wait_until="networkidle")
    kept = page.locator("p.kept:visible")
    assert kept.count() == 1
    assert "It rises, then falls." in kept.inner_text()
    assert "It rises, then falls." in page.locator("p.predicted:visible").inner_text()
    kept.get_by_role("button", name="Change").click()
    assert page.locator("p.kept:visible").count() == 0


def test_a_box_that_lists_answers_offers_them(fresh):
    found = []
    for name in NAMES:
        if re.match(r"chapters/[12]", name):
            page = fresh(name)
            found += page.locator("form.prediction fieldset").all()
            for group in page.locator("form.prediction fieldset").all():
                assert group.get_by_role("radio").count() > 1
            page.close()
    assert found


def test_on_paper_code_is_whole_and_folds_leave_no_frames(fresh):
    page = fresh(CHAPTER)
    page.emulate_media(media="print")
    cut = page.eval_on_selector_all(
        ".bd-article pre", "all => all.filter(e => e.scrollWidth > e.clientWidth + 1).length"
    )
    assert cut == 0
    for hidden in ("details:not([open])", "form.prediction", ".copybtn"):
        assert page.locator(f".bd-article {hidden}:visible").count() == 0


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name.startswith("chapters/")], scope="module"
)
def test_a_page_says_what_it_is_to_those_who_link_to_it(visit, name):
    page = visit(name)

    def meta(key):
        return page.locator(f"meta[name='{key}'], meta[property='{key}']").get_attribute("content")

    assert len(meta("description")) > 20
    assert meta("og:description") == meta("description")
    assert re.match(r"https://.+/_static/cover\.png$", meta("og:image"))
    assert meta("og:url") == page.locator("link[rel=canonical]").get_attribute("href")
    assert meta("twitter:card") == "summary_large_image"
    assert re.match(r"Last built on \d+ \w+ \d{4}", page.locator(".built").inner_text())


def test_the_title_of_the_landing_page_is_the_book_s(visit):
    assert visit(INDEX).title() == "Seeing Sparsely"


def test_the_landing_page_has_three_doors_and_a_card_for_each_chapter(visit):
    page = visit(INDEX)
    assert page.locator("ul.doors a.door").all_inner_texts() == ["Read", "Run", "Assign"]
    chapters = [name for name in NAMES if re.match(r"chapters/\d", name)]
    cards = page.locator(".chapter-card")
    assert cards.count() == len(chapters)
    for card in cards.all():
        assert card.locator("p").first.inner_text().endswith("?")
        assert "minutes to read" in card.locator(".minutes").inner_text()
    counted = re.search(r"Of (\d+) claims", page.locator("#found").inner_text())
    on_cards = cards.locator(".verdicts summary").all_text_contents()
    assert int(counted[1]) == sum(int(each.split()[0]) for each in on_cards)


def test_search_engines_are_told_of_every_page_and_of_no_other():
    listed = re.findall(r"<loc>(.+?)</loc>", (PAGES / "sitemap.xml").read_text(encoding="utf-8"))
    names = {"/".join(urlsplit(url).path.split("/")[-2:]) for url in listed}
    assert names == {name for name in NAMES if name.startswith("chapters/")}
    robots = (PAGES / "robots.txt").read_text(encoding="utf-8")
    assert robots.splitlines()[-1].endswith("/sitemap.xml")


def test_the_page_for_what_is_not_there_works_at_any_depth():
    text = (PAGES / "404.html").read_text(encoding="utf-8")
    targets = re.findall(r'(?:href|src|action)="([^"]+)"', text)
    assert all(target.startswith(("/", "data:")) for target in targets)
