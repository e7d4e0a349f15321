"""The HTML page: sound, complete and alone, whatever its text holds."""

import io
from base64 import b64decode

import numpy as np
import pytest
from html_reader import read_sound
from PIL import Image

from trajclust_experiments.rendering.figures import SCREEN
from trajclust_experiments.rendering.page import page, slug


def picture(folder, name, size=(5, 3)):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(folder / name)
    return pixels


def table(header, *rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def test_headings_are_contents(tmp_path):
    found = read_sound(page("# All\n\ntext\n\n## One, two\n\n### In it\n\n## One two\n\n## Contents\n", tmp_path))
    assert found.all("title") == [({}, "All")]
    assert [text for _, text in found.all("li")] == ["One, two", "One two", "Contents"]
    assert [attributes["id"] for attributes, _ in found.all("h2")] == ["one-two", "one-two-1", "contents-1"]
    assert slug("One, two") == "one-two"


def test_text_that_looks_like_html_is_shown(tmp_path):
    odd = "<script>alert(1)</script> & <b onclick='x'>"
    text = f"# Of {odd}\n\n## {odd}\n\n{table(['<i>', '&lt;'], [odd, '<br>'])}\n\n[bad](javascript:alert(1))\n"
    found = read_sound(page(text, tmp_path))
    assert found.shown.count(odd) == 5, "title, heading, contents, heading, cell"
    assert not found.all("b") + found.all("i") + found.all("br")
    assert [attributes["href"] for attributes, _ in found.all("a")] == [f"#{slug(odd)}"]


def test_differences_are_coloured_by_sign_and_size(tmp_path):
    values = ["+0.022", "-0.05", "−0.3", "0.000", "n/a", "+5 %", "-"]
    found = read_sound(page("# A\n\n" + table(["also", "difference"], *([v, v] for v in values)), tmp_path))
    cells = found.all("td")
    assert [text for _, text in cells[1::2]] == values, "the sign stays readable without colour"
    styles = [(a["class"].removeprefix("number").strip(), a.get("style")) for a, _ in cells[1::2]]
    assert styles == [
        ("above", "--depth: 0.22"),
        ("below", "--depth: 0.50"),
        ("below", "--depth: 1.00"),
        ("", None),
        ("", None),
        ("above", "--depth: 0.50"),
        ("", None),
    ]
    assert all("style" not in attributes for attributes, _ in cells[::2])


def test_what_is_below_the_oracle_is_coloured_by_how_far(tmp_path):
    rows = [["a", "0.800", "0.600 (0.9)", "0.900", "n/a", "-0.100"], ["b", "-200", "-250", "-900", "-", "-200"]]
    rows.append(["c", "-", "0.100", "0.200", "-", "-"])  # no oracle to compare with
    found = read_sound(page("# A\n\n" + table(["task", "oracle", "w", "x", "y", "z"], *rows), tmp_path))
    depths = [(attributes.get("style") or "-").removeprefix("--depth: ") for attributes, _ in found.all("td")]
    assert depths[:6] == ["-", "-", "0.25", "-", "-", "1.00"]
    assert depths[6:12] == ["-", "-", "0.25", "1.00", "-", "-"]
    assert depths[12:] == ["-"] * 6
    assert "above" not in {each for a, _ in found.all("td") for each in a.get("class", "").split()}


def test_columns_know_what_they_hold(tmp_path):
    rows = [["a", "0.942 ± 0.000", "1 x cpu (2 cores)", "x" * 31], ["b", "-", "1 x cpu (2 cores)", "short"]]
    found = read_sound(page("# A\n\n" + table(["name", "NMI", "device", "shows"], *rows), tmp_path))
    classes = [attributes.get("class") for attributes, _ in found.all("td")]
    assert classes == ["key", "number", None, "wide"] * 2
    assert [attributes.get("class") for attributes, _ in found.all("th")] == classes[:4]
    boxes = [attributes for attributes, _ in found.all("div")]
    assert boxes == [{"class": "box", "role": "region", "aria-labelledby": "a", "tabindex": "0"}]
    read_sound(page("# A\n\n" + table(["difference"]), tmp_path))  # no rows


def test_pictures_are_in_the_page(tmp_path):
    (tmp_path / "in it").mkdir()
    pixels = picture(tmp_path / "in it", "a<b&.png")
    text = '# A\n\n![the "alt" <text>](in%20it/a%3Cb%26.png "cap & tion")\n\nin ![line](in%20it/a%3Cb%26.png) text\n'
    found = read_sound(page(text, tmp_path))
    (first, _), (second, _) = found.all("img")
    assert first["alt"] == 'the "alt" <text>'
    assert second["alt"] == "line"
    assert found.all("figcaption") == [({}, "cap & tion")]
    assert len(found.all("figure")) == 1, "the other stands in its line"
    with Image.open(io.BytesIO(b64decode(first["src"].partition(",")[2]))) as image:
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), pixels)


def test_first_columns_stay_in_sight(tmp_path):
    """The task, and where it stands beside it the method: a row of one number needs neither to be scrolled to."""
    rows = [["a", "b", "1", "2"]]
    two = read_sound(page("# A\n\n" + table(["task", "method", "x", "y"], *rows), tmp_path))
    assert [attributes["class"] for attributes, _ in two.all("td")] == ["key", "key second", "number", "number"]
    one = read_sound(page("# A\n\n" + table(["task", "seeds", "x", "y"], *rows), tmp_path))
    assert [attributes.get("class") for attributes, _ in one.all("td")] == ["key", None, "number", "number"]


def test_pictures_with_a_resolution_are_shown_sharp(tmp_path):
    picture(tmp_path, "a.png", (480, 240))
    with Image.open(tmp_path / "a.png") as image:
        image.save(tmp_path / "a.png", dpi=(2 * SCREEN, 2 * SCREEN))
    found = read_sound(page("# A\n\n![a](a.png)\n", tmp_path))
    ((attributes, _),) = found.all("img")
    assert (attributes["width"], attributes["height"]) == ("240", "120")


def test_folded_sections_hold_what_is_below_them(tmp_path):
    text = "# A\n\n## Long one\n\nin\n\n### Part\n\ndeep\n\n## Next\n\nout\n\n### Long two\n\nlast\n"
    found = read_sound(page(text, tmp_path, folded=("Long",)))
    assert [text.split() for _, text in found.all("details")] == [
        ["Long", "one", "in", "Part", "deep"],
        ["Long", "two", "last"],
    ]
    assert [text.strip() for _, text in found.all("summary")] == ["Long one", "Long two"]
    assert "details" not in page(text, tmp_path).partition("<body>")[2]


def test_pages_lead_to_each_other(tmp_path):
    pages = [("Report", "report.html"), ("A & <b>", "a.html")]
    found = read_sound(page("# A\n", tmp_path, pages=pages, here="a.html"))
    links = [(attributes["href"], attributes.get("aria-current"), text) for attributes, text in found.all("a")]
    assert links == [("report.html", None, "Report"), ("a.html", "page", "A & <b>")]


@pytest.mark.parametrize("source", ["https://example.org/a.png", "missing.png", "//example.org/a.png"])
def test_pictures_that_are_not_here_are_refused(tmp_path, source):
    with pytest.raises(FileNotFoundError):
        page(f"# A\n\n![a]({source})", tmp_path)
