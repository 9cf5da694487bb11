"""What of a model's output is scored."""

REASONING = (("<think>", "</think>"), ("<analysis>", "</analysis>"))


def scored_text(output: str | None) -> str:
    """Return the text that the `lmms` protocols score: without reasoning blocks, stripped; "" for None.

    Tags are matched with their case; an opening tag that is not closed stays; a closing tag without an opening one
    ends a reasoning that began in the prompt, so the text before it is dropped.
    """
    text = output or ""
    for opening, closing in REASONING:
        while (start := text.find(opening)) >= 0 and (end := text.find(closing, start)) >= 0:
            text = text[:start] + text[end + len(closing) :]
        if opening not in text:
            text = text.rpartition(closing)[2]
    return text.strip()


def decoded_text(output: str | None) -> str:
    """Return the text that the `eve` protocol scores: stripped, without a final stop string; "" for None."""
    return (output or "").strip().removesuffix("<|im_end|>").strip()
