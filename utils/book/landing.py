"""The landing page's lively part: what the chapters ask, show and found, read from their pages."""

import re
from collections import Counter
from collections.abc import Iterable

from bs4 import Tag

from .lighter import thumbnail

LANDING, CLAIMS = "chapters/index", "chapters/6_claims"
CHAPTER = re.compile(r"chapters/\d\w*$")
ONCE = (
    "Here and on the cards of the chapters each claim counts once: by its verdict on the generated "
    "objects or, if it does not concern them, by the first on its card."
)
MINUTES = re.compile(r"\bAbout (\d+ minutes to read, [^.;]+ to run)[.;]")


def fill(site) -> None:
    """Fill what the landing page leaves open: a card for each chapter, what was found.

    Args:
        site: A `finish.Site`; what it lacks is left out.
    """
    page = site.pages.get(LANDING)
    if page is None:
        return
    places = {place["id"]: place for place in page.html.select(".filled-in[id]")}
    for place in places.values():
        place.clear()
    if "chapter-cards" in places:
        for name in filter(CHAPTER.match, _in_order(page)):
            places["chapter-cards"].append(_card(page, site.pages[name]))
    if "found" in places and CLAIMS in site.pages:
        places["found"].string = found(site.pages[CLAIMS].html.select(".claim-card"))
    page.file.write_text(str(page.html), encoding="utf-8")


def found(cards: list[Tag]) -> str:
    """Sentences on the verdicts.

    Args:
        cards: Of the claims.

    Returns:
        How many claims have which verdict, which are supported, and how that is counted.
    """
    names = [_says(card) for card in cards if _verdict(card) == "supported"]
    stands = f" Supported: {'; '.join(names)}." if names else ""
    return f"Of {len(cards)} claims: {_counted(map(_verdict, cards))}.{stands} {ONCE}"


def _verdict(card: Tag) -> str:
    """The verdict with which a claim counts: the first on its card, see `ONCE`."""
    return card["data-verdicts"].split("|")[0]


def _counted(verdicts: Iterable[str]) -> str:
    count = Counter(verdicts)
    words = ("supported", "not supported", "mixed", "undecided", "not tested here")
    return ", ".join(f"{count[word]} {word}" for word in words if count[word])


def _says(card: Tag) -> str:
    return card.h3.get_text().partition(": ")[2].rstrip(".")


def _in_order(page) -> list[str]:
    """The pages of the table of contents, as its side bar lists them."""
    links = page.html.select(".bd-docs-nav a[href$='.html']")
    names = [page.path(link["href"]).relative_to(page.site.folder) for link in links]
    return [name.with_suffix("").as_posix() for name in dict.fromkeys(names)]


def _card(page, chapter) -> Tag:
    """What a chapter asks and shows, its minutes, and the verdicts of its claims."""
    html, article = page.html, chapter.html.select_one("article.bd-article")
    card = html.new_tag("li", attrs={"class": "chapter-card"})
    title = article.h1.get_text().rstrip("#")
    if picture := article.select_one("img:not([src^='data:'])"):  # no recorded figure of the Lab
        small, (width, height) = thumbnail(chapter.path(picture["src"]))
        size = {"loading": "lazy", "width": width, "height": height}
        card.append(html.new_tag("img", src=page.to(small), alt="", attrs=size))
    heading = html.new_tag("h3")
    link = html.new_tag("a", href=page.to(f"{chapter.name}.html"))
    link.string = title
    heading.append(link)
    question = html.new_tag("p")
    question.string = " ".join(article.p.get_text().split())
    minutes = html.new_tag("p", attrs={"class": "minutes"})
    minutes.string = _minutes(article)
    card.extend([heading, question, minutes])
    if marks := _verdicts(page, chapter):
        card.append(marks)
    return card


def _minutes(article: Tag) -> str:
    said = MINUTES.search(" ".join(article.get_text(" ").split()))
    return said[1] if said else ""


def _verdicts(page, chapter) -> Tag | None:
    """The claims that a chapter shows: their verdicts counted, and each as a link to its card."""
    claims = page.site.pages.get(CLAIMS)
    if claims is None or chapter.name == CLAIMS:
        return None
    verdicts = {}
    for card in claims.html.select(".claim-card"):
        if chapter.file in {claims.path(link["href"]) for link in card.select("a[href]")}:
            link = page.html.new_tag("a", href=f"{page.to(f'{CLAIMS}.html')}#{card['id']}")
            verdicts[link] = _verdict(card)
            link.string = f"{_says(card)}: {verdicts[link]}"
    if not verdicts:
        return None
    fold = page.html.new_tag("details", attrs={"class": "verdicts"})
    summary = page.html.new_tag("summary")
    noun = "claim" if len(verdicts) == 1 else "claims"
    summary.string = f"{len(verdicts)} {noun}: {_counted(verdicts.values())}"
    fold.extend([summary, *verdicts])
    return fold
