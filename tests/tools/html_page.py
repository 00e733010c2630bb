"""A page of HTML, as the tests of the site read it."""

from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "hr", "input", "path", "line", "circle", "rect", "polyline"}


class Page(HTMLParser):
    """A page's tags, its tables as rows of (text, attributes), and whether every tag is closed."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.tables, self.open, self.cell = [], [], [], None
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open += [tag] * (tag not in VOID)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append(["", dict(attrs)])
            self.cell = self.tables[-1][-1][-1]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag
        self.cell = None if tag in ("td", "th") else self.cell

    def handle_data(self, data):
        if self.cell:
            self.cell[0] += data

    def every(self, name):
        return [attrs[name] for _, attrs in self.tags if name in attrs]
