"""launch.chat end to end: answers on stdout, everything else on stderr, several turns, clear errors."""

import base64
import json
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from eve_jax.infer.api import EVE
from tests import reference as ref
from tests.launcher import launch
from tests.weights import folders

ROOT = Path(__file__).parents[2]
NEW = 6


def chat(*args: str, typed: str = "") -> subprocess.CompletedProcess:
    return launch("launch.chat", *args, typed=typed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, two images and a file that is none."""
    folder = tmp_path_factory.mktemp("chat")
    folders.write_hf(folder / "hf", *folders.golden())
    for i in (0, 1):
        Image.fromarray(ref.tensors("A_inputs")[f"image_uint8_{i}"]).save(folder / f"{i}.png")
    (folder / "text.png").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def eve(folder: Path) -> EVE:
    return EVE.from_pretrained(folder / "hf", fit="shrink")


def test_one_question(folder: Path, eve: EVE) -> None:
    flags = [f"--checkpoint={folder / 'hf'}", "--fit=shrink", f"--max_new_tokens={NEW}", "--prompt=What is it?"]
    encoded = base64.b64encode((folder / "1.png").read_bytes()).decode()
    flags += [f"--image={folder / '0.png'}", f"--image=data:image/png;base64,{encoded}"]
    answer = eve.answer("What is it?", [folder / "0.png", folder / "1.png"], max_new_tokens=NEW)
    at = len(answer.text) // 2
    done = chat(*flags, f"--stop={answer.text[at : at + 1]}", "--stop=nowhere")
    expected = answer.text.partition(answer.text[at : at + 1])[0].strip()
    assert (done.returncode, done.stdout) == (0, expected + "\n"), done.stderr


def test_several_turns(folder: Path, eve: EVE) -> None:
    flags = [f"--checkpoint={folder / 'hf'}", "--fit=shrink", f"--max_new_tokens={NEW}", "--json", "--temperature=0.7"]
    typed = f"""What is it?
/image {folder / "nowhere.png"}
/image {folder / "text.png"}
/image {(folder / "1.png").as_uri()}
<image> <image>?

And now?
Does <image> need \\<image>?
/nonsense
/new
What is it?
/quit
never asked
"""
    choosing: dict[str, float] = {"top_p": 0.9, "seed": 3, "top_k": 200, "min_p": 0.001, "presence_penalty": -0.5}
    choosing |= {"frequency_penalty": 0.5, "repetition_penalty": 1.1}
    flags += [f"--{name}={value}" for name, value in choosing.items()]
    done = chat(*flags, f"--image={folder / '0.png'}", typed=typed)
    assert done.returncode == 1, "a line was wrong, and no person was there to see"
    settings = {"max_new_tokens": NEW, "temperature": 0.7, **choosing}
    talk, tag = eve.chat(), "Does <image> need \\<image>?"
    expected = [
        ("What is it?", talk.ask("What is it?", folder / "0.png", **settings)),  # type: ignore[arg-type]
        ("And now?", talk.ask("And now?", folder / "1.png", **settings)),  # type: ignore[arg-type]
        (tag, talk.ask(tag, **settings)),  # type: ignore[arg-type]
        ("What is it?", eve.answer("What is it?", **settings)),  # type: ignore[arg-type]
    ]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines == [{"prompt": q, "text": a.text, "new_ids": a.new_ids} for q, a in expected]
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert ["missing file" in errors[0], "not an image" in errors[1], "2 <image> markers" in errors[2]] == [True] * 3
    assert len(errors) == 3
    assert done.stderr.count("note: the question has no image") == 1
    assert "/nonsense: expected one of" in done.stderr


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--prompt="], "--prompt is empty"),
        (
            ["--prompt=<image> or <image>?", "--image={folder}/0.png"],
            "--prompt has 2 of <image>, --image is given 1 time",
        ),
        (["--prompt=x", "--image=nowhere.png"], "nowhere.png: missing file"),
        (["--prompt=x", "--temperature=-1"], "--temperature=-1.0: expected 0 (greedy) or a number above 0"),
        (["--prompt=x", "--top_p=0"], "--top_p=0.0: expected more than 0 and at most 1"),
        (["--prompt=x", "--top_k=5"], "--top_k=5 needs a temperature above 0"),
        (["--prompt=x", "--min_p=2"], "--min_p=2.0: expected a number of 0 to 1"),
        (["--prompt=x", "--presence_penalty=3"], "--presence_penalty=3.0: expected a number of -2 to 2"),
        (["--prompt=x", "--repetition_penalty=0"], "--repetition_penalty=0.0: expected a number of 0.01 to 100"),
        (["--prompt=x", "--seed=-1"], "--seed=-1: expected a whole number of 0 to 4294967295"),
        (["--prompt=x", "--stop="], "--stop=['']: expected a text or a list of at most 4"),
        (["--prompt=x", "--checkpoint=nowhere"], "nowhere"),
        (
            ["--prompt=h\udcff"],
            "question: character 2 is '\\udcff', half of a surrogate pair or the byte 0xff",
        ),
        (["--prompt=x", "--dtype=float8"], "--dtype='float8': expected one of float32, bfloat16, float16"),
        (["--prompt=x", "--max_size=5"], "--max_size=5: expected 0 or a number of pixels, at least 32"),
    ],
)
def test_errors_are_one_line(folder: Path, flags: list[str], says: str) -> None:
    done = chat(f"--checkpoint={folder / 'hf'}", *(flag.format(folder=folder) for flag in flags))
    assert (done.returncode, done.stdout) == (1, "")
    *slow, line = done.stderr.splitlines()
    assert all(text.endswith(" ...") for text in slow)
    assert line.startswith("error: ")
    assert says in line
