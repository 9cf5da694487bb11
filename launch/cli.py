"""The command `eve`: `eve train --config=stage3 ...` is `python -m launch.train --config=stage3 ...`, and so on."""

import runpy
import sys

COMMANDS = {
    "train": "train one stage",
    "recipe": "train all stages of a recipe, in order",
    "chat": "ask about images",
    "serve": "answer over HTTP as the OpenAI API has it, with a page",
    "score": "the loss of every record under a model",
    "eval": "scores of a model on benchmarks and on questions of your own",
    "compare": "what tells checkpoints apart: weights, texts, images, answers side by side",
    "convert": "import, export, or make a checkpoint self-contained",
    "prepare_data": "convert records into shards, measure and draw them",
    "curate": "select images as the papers do: filters, clusters, near-copies",
    "caption": "caption the images of records through OpenAI-style endpoints",
    "compile": "compile a stage for an absent TPU slice: memory, FLOPs, step time",
}


def usage() -> str:
    """Return the text of `eve --help`."""
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    return f"usage: eve COMMAND --FLAG=VALUE ...\n\n{lines}\n\n`eve COMMAND --help` lists the flags; `eve --version`"


def main() -> None:
    """Run the launcher that the first argument names, with the arguments that follow."""
    name = sys.argv[1].replace("-", "_") if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else ""
    if name in COMMANDS:
        del sys.argv[1]
        runpy.run_module(f"launch.{name}", run_name="__main__", alter_sys=True)
    elif sys.argv[1:] == ["--version"]:
        from eve_jax import __version__

        print(__version__)
    elif sys.argv[1:] in (["--help"], ["-h"], ["help"]):
        print(usage())
    else:
        given = f"unknown command {sys.argv[1]!r}" if len(sys.argv) > 1 else "no command given"
        print(f"error: {given}; expected one of {', '.join(COMMANDS)} (see eve --help)", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
