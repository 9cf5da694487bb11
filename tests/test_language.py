"""Plain American technical English: documents, docstrings, comments, messages and scripts hold no word listed here."""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_docs import files

ROOT = Path(__file__).parents[1]
STEMS = "normal|optim|initial|serial|token|recogn|summar|general|special|minim|maxim|visual|organ|quant|parallel"
# What is not written -> what is written instead.
WORDS = {
    r"wants": "requires, expects",
    r"go(es)? on|going on|went on": "resume, continue",
    r"repeat(ing)? the command|repeat launch": "rerun the command",
    r"mend(s|ed|ing)?": "fix",
    r"blind(ly)?|gr[ae]yed out": "blank-image baseline, with blank images, unnoticed",
    r"pictures?": "image",
    r"learnt": "learned; target tokens",
    r"beside": "next to, in addition to",
    r"(say|says|said) so": "warn, warns",
    r"none of ours|(is|are) no (?-i:[A-Z])": "not an eve_jax ...",
    r"(?<=[%`}] )right\b(?! (of|to)\b)|(answered|partly) right|right answers?": "accuracy, correct",
    r"(its|whose|the) head says": "edit the settings at the top",
    r"processor time": "CPU time",
    r"holds? a step": "a step fits",
    r"twins?": "vision copy",
    r"as good as": "an alias of, counts as",
    r"called by its place": "identified by file and line",
    r"(learn|taught|trained|learns) to see": "has trained image input",
    r"(colour|neighbour|behaviour|favour|honour|centre|catalogue|licence|grey)\w*": "American spelling",
    rf"({STEMS})is(e|ed|es|ing|ation)": "American spelling: -ize",
}
FORBIDDEN = re.compile(rf"(?<![\w`/.-])({'|'.join(WORDS)})(?![\w`/-])", re.IGNORECASE)


def prose_of(text: str, whole_strings: bool) -> Iterator[tuple[int, str]]:
    """Lines of comments and docstrings, with `whole_strings` also of texts with a space in them, numbered."""
    before = tokenize.NEWLINE
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        kind = tokenize.tok_name[token.type]
        is_string = kind in ("STRING", "FSTRING_MIDDLE")
        docstring = is_string and before in (tokenize.NEWLINE, tokenize.INDENT)
        if token.type == tokenize.COMMENT or docstring or (is_string and whole_strings and " " in token.string):
            for number, line in enumerate(token.string.splitlines()):
                yield token.start[0] + number, re.sub(r"`[^`]*`|\{[^{}]*\}", "``", line)
        if token.type not in (tokenize.NL, tokenize.COMMENT):
            before = token.type


def document_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines of a document outside of its code, numbered."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        fenced ^= line.startswith("```")
        if not fenced and not line.startswith("    "):
            yield number, re.sub(r"`[^`]*`|\]\([^)]*\)", "``", line)


def lines_of(file: Path) -> Iterator[tuple[int, str]]:
    """What is read of a file, numbered: of scripts and settings, whose messages are not marked, every line."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        return document_lines(text)
    if file.suffix == ".py":
        in_package = file.relative_to(ROOT).parts[0] in ("eve_jax", "launch", "configs", "benchmarks", "examples")
        return prose_of(text, in_package)
    return iter(enumerate(text.splitlines(), 1))


def faults(file: Path) -> list[str]:
    """Forbidden words of a file as "file:line: word (write: ...)"."""
    found = []
    for number, line in lines_of(file):
        for match in FORBIDDEN.finditer(line):
            write = next(
                better for word, better in WORDS.items() if re.compile(word, re.I).fullmatch(line, *match.span(1))
            )
            found.append(f"{file.relative_to(ROOT)}:{number}: {match[1]} (write: {write})")
    return found


@pytest.mark.parametrize(
    ("suffixes", "least"),
    [
        ((".md",), 15),
        ((".py",), 500),
        ((".sh", ".sbatch", ".yaml", ".yml", ".toml", "Makefile", "run", ".gitignore"), 10),
    ],
)
def test_no_forbidden_word(suffixes: tuple[str, ...], least: int) -> None:
    paths = [
        path for path in files(*suffixes) if path != Path(__file__) and path.name not in ("CHANGELOG.md", "NOTES.md")
    ]
    assert len(paths) >= least
    assert [fault for file in paths for fault in faults(file)] == []


def test_scripts_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_language.ROOT", tmp_path)
    for name in ("Makefile", "a.yaml", "b.sbatch", "c.sh"):
        (tmp_path / name).write_text("x: y\n\t@echo 'It Goes On'\n")
        assert faults(tmp_path / name) == [f"{name}:2: Goes On (write: resume, continue)"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('"""Colours of a picture."""\n', ["Colours", "picture"]),
        ('print(f"{x:.0%} right, on the right of {y} to the right")  # The Right answer\n', ["right", "Right answer"]),
        ("x = 1  # goes on, beside y\n", ["goes on", "beside"]),
        ('raise E(f"{name} wants a folder; mend it")\n', ["wants", "mend"]),
        ('x = "picture"\ny = {"beside": z.twins}\n', []),
        ('"""Return `picture` of `beside`."""\n', []),
    ],
)
def test_words_are_found(text: str, words: list[str]) -> None:
    assert [match[1] for _, line in prose_of(text, True) for match in FORBIDDEN.finditer(line)] == words
