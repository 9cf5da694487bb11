"""The form of a conversation: what stands around its turns, and what of it is learned."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Template:
    """How a conversation is written: the system sentence, then (human, human_end, gpt, answer, end) for every exchange.

    `answer_end` stands between an `end` and the next human turn. The tokenizer's bos token, where it has one, goes
    before everything. The targets are `answer_begin` + the answer + `end`. With `caption` there is no dialogue: the
    images, then the text of the single gpt turn, with `strip` without outer white space; `end` is then text like any
    other, since nothing is generated with such a template.

    header_alone: `system_begin` and `system_end` stand also without a sentence. inside: the sentence and `system_end`
    stand in the first human turn. trim: of whose outer white space is left out, "answers" or "all" turns (the
    sentence's, too, but of `inside`). thought: an empty block of thoughts before the last answer, or with
    `each_thought` before every one, which is read and not learned; line ends at the start of such an answer are left
    out. tokens: those of the tokenizer that are written next to `end`. after: a target behind every `end`. image: texts
    before and behind each image. images_first: all images stand before everything, the bos token too. apart: the text
    of an answer to learn is tokenized for itself. adds: tokens that the tokenizer of a base LLM is given, in this
    order, where it lacks them. learned: all but the images is a target, not the answers alone. day: the date that the
    sentence's header tells, where the original tells that of the day.
    """

    system_begin: str = ""
    system: str = ""  # unless a record has its own
    system_end: str = ""
    human: str = ""
    human_end: str = ""
    gpt: str = ""
    answer_begin: str = ""
    end: str = ""
    answer_end: str = ""
    caption: bool = False
    strip: bool = True
    header_alone: bool = False
    inside: bool = False
    trim: str = ""
    thought: str = ""
    each_thought: bool = False
    tokens: tuple[str, ...] = ()
    after: str = ""
    image: tuple[str, str] = ("", "")
    images_first: bool = False
    apart: bool = False
    adds: tuple[str, ...] = ()
    learned: bool = False
    day: str = ""

    def around(self, system: str, inside: bool) -> tuple[str, str, str]:
        """Return what stands before the system sentence, the sentence, and what stands after it.

        Before the first human turn, or with `inside` at its start, as templates have it. A header (`system_begin`)
        without a sentence is left out.
        """
        if inside:
            return ("", system, self.system_end) if self.inside and system else ("", "", "")
        if self.inside or (self.system_begin and not system and not self.header_alone):
            return "", "", ""
        return self.system_begin, system.strip() if self.trim == "all" else system, self.system_end

    @property
    def rewrites(self) -> bool:
        """Whether an answer is written otherwise once another turn follows, so that no cache of it can be continued."""
        return bool(self.thought) and not self.each_thought

    def block(self, last: bool) -> str:
        """Return the empty thoughts before an answer, the last turn of a conversation or not."""
        return self.thought if last or self.each_thought else ""

    def bare(self, answer: str, last: bool) -> str:
        """Return an answer without the white space that is left out."""
        return (answer.strip() if self.trim else answer).lstrip("\n" if self.block(last) else "")
