"""The landing page's lively part: what the chapters ask, show and found, read from their pages."""

import re
from collections import Counter

from bs4 import Tag

LANDING, LAB, CLAIMS = "chapters/index", "chapters/lab", "chapters/6_claims"
CHAPTER = re.compile(r"chapters/\d\w*$")
MINUTES = re.compile(r"\bAbout (\d+ minutes to read, [^.;]+ to run)[.;]")


def fill(site) -> None:
    """Fill what the landing page leaves open: the Lab, a card for each chapter, what was found.

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
    if "the-lab" in places and LAB in site.pages:
        link = page.html.new_tag("a", href=page.to(f"{LAB}.html"), attrs={"class": "door"})
        link.string = "Try it: the networks run in your browser"
        places["the-lab"].append(link)
    page.file.write_text(str(page.html), encoding="utf-8")


def found(cards: list[Tag]) -> str:
    """Two sentences on the verdicts.

    Args:
        cards: Of the claims.

    Returns:
        How many claims have which verdict on the generated objects, and which are supported.
    """
    verdicts = {}
    for card in cards:
        rungs = card["data-rungs"].split("|")
        if "objects" in rungs:
            verdicts[card] = card["data-verdicts"].split("|")[rungs.index("objects")]
    count = Counter(verdicts.values())
    words = ("supported", "not supported", "mixed", "undecided", "not tested here")
    counted = ", ".join(f"{count[word]} {word}" for word in words if count[word])
    names = [_says(card) for card, verdict in verdicts.items() if verdict == "supported"]
    stands = f" Supported: {'; '.join(names)}." if names else ""
    return f"Of {len(verdicts)} claims that concern the generated objects: {counted}.{stands}"


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
    if picture := article.find("img"):
        image = html.new_tag("img", src=page.to(chapter.path(picture["src"])), alt="")
        image.attrs |= {"loading": "lazy"} | {
            key: picture[key] for key in ("width", "height") if picture.has_attr(key)
        }
        card.append(image)
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
    """The claims that a chapter shows and their verdicts, each a link to its card."""
    claims = page.site.pages.get(CLAIMS)
    if claims is None:
        return None
    row = page.html.new_tag("p", attrs={"class": "verdicts"})
    for card in claims.html.select(".claim-card"):
        shown = {claims.path(link["href"]) for link in card.select("a[href]")}
        if chapter.file not in shown or chapter.name == CLAIMS:
            continue
        link = page.html.new_tag("a", href=f"{page.to(f'{CLAIMS}.html')}#{card['id']}")
        link.string = f"{_says(card)}: {card['data-verdicts'].split('|')[0]}"
        row.extend([link, " "])
    return row if row.contents else None
