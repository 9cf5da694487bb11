"""Links between the documents, and citations of documents in code, lead to something that is in the repository."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GENERATED = {".venv", ".git", ".cache", "build", "runs", "node_modules"}
CODE = (".py", ".sh", ".sbatch", ".yaml", ".yml", ".toml")
# Documents that the project was built from. They are not in the repository, so nothing in it may cite their sections.
OUTSIDE = ("DESIGN", "SPEC", "HOUSE", "MANIFEST", "EXPERIMENTS", "FAMILY", "ENGINE", "EVAL", "SERVE", "SPEED", "REVIEW")

DOCUMENT = r"(?:docs|benchmarks|tests)/[\w./-]+\.md|(?:README|CONTRIBUTING|CHANGELOG)\.md"
CITED = re.compile(rf"(?<![\w/.-])({DOCUMENT})(#[\w-]+)?")
OUTSIDE_SECTION = re.compile(rf"\b(?:{'|'.join(OUTSIDE)})(?:\.md\b|,? (?:section|set)s?\b| \d)")


def files(*suffixes: str) -> Iterator[Path]:
    """The repository's files with these suffixes, without those that are built or left behind by runs."""
    for folder, inside, names in os.walk(ROOT):
        inside[:] = sorted(name for name in inside if name not in GENERATED and not name.endswith(".egg-info"))
        yield from (Path(folder, name) for name in sorted(names) if name.endswith(suffixes))


def others(*suffixes: str) -> Iterator[Path]:
    """`files` without this one, which holds citations of every kind as examples."""
    return (path for path in files(*suffixes) if path != Path(__file__))


def prose(markdown: str) -> str:
    """The text without blocks and spans of code."""
    lines, fenced = [], False
    for line in markdown.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not line.startswith("    "):
            lines.append(line)
    return re.sub(r"`[^`\n]*`", "", "\n".join(lines))


def slug(heading: str) -> str:
    """The anchor that GitHub gives to a heading."""
    text = re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w -]", "", text.strip().lower()).replace(" ", "-")


def anchors_of(markdown: str) -> set[str]:
    """Anchors of a document: those of its headings (the second of two equal ones ends with -1), and `<a id=...>`."""
    found = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", markdown))
    times: Counter[str] = Counter()
    fenced = False
    for line in markdown.splitlines():
        fenced ^= line.lstrip().startswith("```")
        heading = re.fullmatch(r"#{1,6} +(.+?)(?: +#+)?", line)
        if heading and not fenced:
            name = slug(heading[1])
            found.add(f"{name}-{times[name]}" if times[name] else name)
            times[name] += 1
    return found


def links_of(markdown: str) -> list[str]:
    """Targets of the links and images of a document that point into the repository."""
    text = prose(markdown)
    found = re.findall(r"\]\(\s*<?([^\s)>]+)", text) + re.findall(r"<(?:img|a)\b[^>]*(?:src|href)=\"([^\"]+)\"", text)
    found += re.findall(r"^\[[^]]+\]:\s*(\S+)", text, flags=re.MULTILINE)
    return [target for target in found if not re.match(r"[a-z][a-z0-9+.-]*:", target)]


def unresolved(target: str, file: Path) -> str:
    """What is wrong with a link to `target` in `file`; "" when it leads somewhere."""
    path, _, anchor = target.partition("#")
    found = (file.parent / path).resolve() if path else file
    if not found.exists():
        return f"{target}: there is no such file"
    if not found.is_relative_to(ROOT):
        return f"{target}: leads out of the repository"
    if anchor and (found.suffix != ".md" or anchor not in anchors_of(found.read_text())):
        return f"{target}: the file has no such section"
    return ""


def one_line(text: str) -> str:
    """The text with its line breaks, and the comment signs after them, as single spaces."""
    return re.sub(r"\s*\n\s*(?:#+ )?", " ", text)


@pytest.mark.parametrize("file", [str(path.relative_to(ROOT)) for path in files(".md")])
def test_links_resolve(file):
    path = ROOT / file
    assert [wrong for target in links_of(path.read_text()) if (wrong := unresolved(target, path))] == []


def test_documents_cited_in_code_exist():
    """A citation is a path from the root of the repository with or without a section: docs/design.md#row-contract."""
    wrong = []
    for path in others(*CODE):
        for document, anchor in CITED.findall(path.read_text()):
            if problem := unresolved(document + anchor, ROOT / "README.md"):
                wrong.append(f"{path.relative_to(ROOT)}: {problem}")
    assert wrong == []


def test_documents_outside_the_repository_are_not_cited():
    found = set()
    for path in others(*CODE, ".md"):
        if OUTSIDE_SECTION.search(one_line(path.read_text())):
            found.add(str(path.relative_to(ROOT)))
    assert sorted(found) == []


def test_the_checks_see_what_they_are_for():
    document = '# One `two`\n\n## A, b: c_d\n## A, b: c_d\n<a id="row"></a>\n```\n# no heading\n```\n'
    assert anchors_of(document) == {"one-two", "a-b-c_d", "a-b-c_d-1", "row"}
    assert links_of("[a](b.md#c) ![d](<e.png>) [f](https://g.h) `[i](j)`\n\n    [k](l)\n\n[m]: n.md\n") == [
        "b.md#c",
        "e.png",
        "n.md",
    ]
    here = ROOT / "README.md"
    assert unresolved("docs/none.md", here).endswith("no such file")
    assert unresolved("docs/data.md#none", here).endswith("no such section")
    assert unresolved("docs/data.md#templates", here) == ""
    assert CITED.findall("see docs/data.md#templates, or runs/docs/other.md") == [("docs/data.md", "#templates")]
    for text in ("DESIGN section 4", "SPEC 3", "the SPEC,\n    section 2", "(MANIFEST, sets A, B)", "HOUSE.md"):
        assert OUTSIDE_SECTION.search(one_line(text)), text
    for text in ("MANIFEST = 'manifest.json'", "SPECIAL 3", "step / MANIFEST"):
        assert not OUTSIDE_SECTION.search(one_line(text)), text


def test_pages_with_quantized_weights_name_the_extra() -> None:
    """Commands that quantize fail without it."""
    pages = [path for path in files(".md") if re.search(r"weights=int[48]", path.read_text(encoding="utf-8"))]
    assert pages
    lacking = [path.name for path in pages if not re.search(r"\bquant[`\]]", path.read_text(encoding="utf-8"))]
    assert lacking == []
