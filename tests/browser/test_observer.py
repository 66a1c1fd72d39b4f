"""The trials in the page: named by mouse or keyboard, kept in the browser, compared with networks.

They are tested in a page of their own, under the policy of the book's pages.
"""

import shutil

import pytest
import torch

from utils.book import build, observer, policy
from utils.book.serve import served
from utils.measures import behaviour

CLASSES, N = ("disc of brick", "square of grass", "star of fur"), 6
SHAPE, TEXTURE = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([1, 2, 0, 2, 0, 1])
NETWORK = torch.tensor([0, 2, 2, 2, 0, 0])  # by shape, texture, shape, texture, texture, neither
OWN = [0, 1, 0, 0, 1, 0]  # by shape, shape, texture, shape, shape, neither

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page_of_trials(tmp_path_factory):
    """The address of a page with the trials, and one where scripts are not allowed."""
    folder = tmp_path_factory.mktemp("trials")
    shutil.copy(build.ROOT / "_static/observer.js", folder)
    pictures = torch.rand(N, 3, 32, 32)
    found = observer.trials(
        pictures, SHAPE, TEXTURE, torch.rand(3, 3, 32, 32), CLASSES, {"ViT": NETWORK}
    )
    rules = "; ".join(f"{name} {value}" for name, value in policy.RULES.items())
    head = '<meta charset="utf-8"><link rel="icon" href="data:,">'
    head += f'<meta http-equiv="Content-Security-Policy" content="{rules}; script-src \'self\'">'
    script = '<script src="observer.js" defer></script>'
    body = f"<body>{found._repr_html_()}</body>"
    (folder / "index.html").write_text(f"<!doctype html>{head}{script}{body}", encoding="utf-8")
    (folder / "asleep.html").write_text(f"<!doctype html>{head}{body}", encoding="utf-8")
    with served(folder) as address:
        yield address


@pytest.fixture
def fresh(browser, page_of_trials):
    """Opens the trials in a browser that has kept nothing."""
    contexts = []

    def open_page(name="index.html", setup="", **settings):
        context = browser.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("console", lambda m: m.type == "error" and page.errors.append(m.text))
        if setup:
            page.add_init_script(setup)
        page.goto(f"{page_of_trials}/{name}")
        return page

    yield open_page
    for context in contexts:
        context.close()


def named(page, answers=OWN):
    """Go through the trials by their digits."""
    page.get_by_role("button", name="Begin").press("Enter")
    for answer in answers:
        page.keyboard.press(str(answer + 1))


def row(page, name):
    cells = page.locator(".results tr", has=page.get_by_role("cell", name=name, exact=True))
    return cells.locator("td").all_inner_texts()


def test_trials_are_named_with_the_keyboard_alone(fresh):
    page = fresh()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator(".status").inner_text() == f"Picture 1 of {N}"
    assert page.locator(".answers button").first.evaluate("b => b.matches(':focus-visible')")
    page.keyboard.press("9")  # no class has this digit
    assert page.locator(".status").inner_text() == f"Picture 1 of {N}"
    for answer in OWN[:-1]:
        page.keyboard.press(str(answer + 1))
    page.keyboard.press("Enter")  # on the first button, which has the focus
    assert page.locator(".status").inner_text() == f"You named {N} of {N} pictures."
    assert page.locator(".status").evaluate("e => e === document.activeElement")
    assert page.errors == []


def test_shape_bias_and_kappa_are_those_of_the_library(fresh):
    page = fresh()
    named(page)
    own = torch.tensor(OWN)
    for name, decisions in (("you", own), ("ViT", NETWORK)):
        found = behaviour.shape_bias(decisions, SHAPE, TEXTURE)
        said = f"{found.bias:.0%} [{found.low:.0%}, {found.high:.0%}]".replace("%", " %")
        assert row(page, name)[1:3] == [said, f"{found.decided:.0%}".replace("%", " %")]
    kappa = behaviour.error_consistency(own == SHAPE, NETWORK == SHAPE).kappa
    assert row(page, "ViT")[3].startswith(f"{kappa:.2f} ± ")


def test_who_names_every_shape_is_told_that_kappa_says_nothing(fresh):
    page = fresh()
    named(page, SHAPE.tolist())
    assert "κ has nothing to compare" in page.locator(".results").inner_text()
    assert row(page, "ViT")[3] == "–"


def test_answers_are_kept_until_the_reader_begins_once_more(fresh):
    page = fresh()
    named(page, OWN[:2])
    page.reload()
    page.get_by_role("button", name="Go on with picture 3").click()
    for answer in OWN[2:]:
        page.locator(".answers button").nth(answer).click()
    page.reload()
    assert row(page, "you")[0] == "you"
    assert page.locator("details .you").count() == N + 1
    page.get_by_role("button", name="Once more").click()
    page.reload()
    assert page.get_by_role("button", name="Begin").is_visible()


def test_a_browser_that_keeps_nothing_still_runs_the_trials(fresh):
    refuse = "Object.defineProperty(window, 'localStorage', {get() { throw new Error('no'); }})"
    page = fresh(setup=refuse)
    named(page)
    assert row(page, "you")
    assert page.errors == []


def test_a_picture_vanishes_unless_it_is_to_stay(fresh):
    page = fresh()
    page.clock.install(time=0)
    page.clock.pause_at(60_000)
    page.get_by_role("button", name="Begin").click()
    picture = page.locator(".shown img")
    assert picture.is_hidden()
    page.clock.run_for(600)
    assert picture.is_visible()
    page.clock.run_for(400)
    assert picture.is_hidden()
    still = fresh(reduced_motion="reduce")
    assert still.get_by_role("checkbox").is_checked()
    still.clock.install(time=0)
    still.clock.pause_at(60_000)
    still.get_by_role("button", name="Begin").click()
    still.clock.run_for(1200)
    assert still.locator(".shown img").is_visible()


def test_what_pictures_show_is_hidden_until_all_are_named(fresh):
    page = fresh()
    assert not page.locator("details").is_visible()
    named(page)
    assert page.locator("details").is_visible()


def test_without_scripts_pictures_and_decisions_are_listed(fresh):
    page = fresh("asleep.html")
    assert page.locator(".to-name img").count() == N
    assert "on paper" in page.locator(".observer").inner_text()
    page.locator("summary").click()
    first = page.locator("tbody tr").first.locator("td").all_inner_texts()
    assert first == ["1", "disc of brick", "square of grass", "disc of brick"]


def test_the_trials_fit_a_phone(fresh):
    page = fresh(viewport={"width": 400, "height": 800})
    named(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_trials_of_unequal_number_are_refused():
    pictures, examples = torch.rand(N, 3, 8, 8), torch.rand(3, 3, 8, 8)
    with pytest.raises(ValueError, match="Each trial needs a picture, cues and decisions"):
        observer.trials(pictures, SHAPE, TEXTURE, examples, CLASSES, {"ViT": NETWORK[:2]})
    with pytest.raises(ValueError, match="needs an example and a name, not 2 and 3"):
        observer.trials(pictures, SHAPE, TEXTURE, examples[:2], CLASSES, {"ViT": NETWORK})
