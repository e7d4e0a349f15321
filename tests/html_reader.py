"""Reads an HTML page back and checks that it is sound; for the tests of what writes pages."""

import io
import re
from base64 import b64decode
from html.parser import HTMLParser

from PIL import Image

VOID = {"meta", "link", "img", "br", "hr"}


class Page(HTMLParser):
    """An HTML document read back: elements `(tag, attributes, text)`, checked for balance on the way."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.shown = [], [], ""
        self.feed(text)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute of {tag} stands twice"
        element = [tag, dict(attrs), ""]
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for element in self.open:
            element[2] += data
        if not any(element[0] == "style" for element in self.open):
            self.shown += data

    def all(self, tag):
        return [(attributes, text) for name, attributes, text in self.elements if name == tag]


def read_sound(text: str) -> Page:
    """Reads a page and checks what holds for every one: it is whole, it asks for nothing, and all can read it."""
    assert text.startswith("<!doctype html>")
    found = Page(text)
    assert found.all("html")[0][0] == {"lang": "en"}
    assert len(found.all("title")) == len(found.all("h1")) == len(found.all("main")) == len(found.all("nav")) == 1
    assert not {name for name, *_ in found.elements} & {"script", "iframe", "object", "embed", "video", "audio", "base"}
    ids = [attributes["id"] for _, attributes, _ in found.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for tag, attributes, _ in found.elements:
        assert not any(name.startswith("on") for name in attributes), tag
        assert attributes.get("src", "data:").startswith("data:"), tag
        if tag == "a" and attributes["href"].startswith("#"):
            assert attributes["href"][1:] in ids
        elif tag != "a":
            assert attributes.get("href", "data:").startswith("data:"), tag
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in ids
    assert not re.search(r"url\(|@import|@font-face", text)
    policy = [attributes["content"] for attributes, _ in found.all("meta") if "http-equiv" in attributes]
    assert policy[0].startswith("default-src 'none'")
    assert all(attributes["scope"] == "col" for attributes, _ in found.all("th"))
    assert len(found.all("details")) == len(found.all("summary"))
    for attributes, _ in found.all("img"):
        assert attributes["alt"]
        with Image.open(io.BytesIO(b64decode(attributes["src"].partition("base64,")[2], validate=True))) as image:
            image.load()
            assert image.width >= int(attributes["width"]), "no picture is blown up"
            assert abs(image.height / image.width - int(attributes["height"]) / int(attributes["width"])) < 0.05
    return found
