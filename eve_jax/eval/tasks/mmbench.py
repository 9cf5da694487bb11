"""MMBench, English and Chinese: each question comes once per rotation of its options, all of which must be right.

`lmms_judge` is lmms-eval's default, `lmms_static` its variant without a judge, which it has for English alone; `eve`
writes the table for MMBench's server, and its local score follows the static rules.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from eve_jax.eval.judge import Judge, JudgeFailed, Question
from eve_jax.eval.parsers.clean import decoded_text, scored_text
from eve_jax.eval.parsers.letters import FAILED_REQUEST, option_in_text, tolerant_letter, word_letter
from eve_jax.eval.prompts import LETTER, option_lines
from eve_jax.eval.task import DataSet, Generation, Row, Task, Verdict, mean
from eve_jax.eval.units import Units, score_units

ROTATION = 1_000_000
OPTIONS = "ABCD"
COLUMNS = ("index", "question", *OPTIONS, "prediction", "answer", "split")
SUFFIX = {"mmbench_en": LETTER, "mmbench_cn": "请直接使用所提供的选项字母作为答案回答。"}
EVE_SUFFIX = {"mmbench_en": LETTER, "mmbench_cn": "请直接回答选项字母。"}
ROUNDS, EMPTY_REPLIES = 3, 5
JUDGE_TASK = """Match an answer to one option of a single-choice question. You are given the question, the options and \
the answer. Reply with the letter of the option whose meaning is closest to the answer: one capital letter of A, B, C, \
D, if that option exists. Reply with E if the meaning of every option differs from the answer.
Example 1:
Question: Which animal sits on the fence?
Options: A. owl B. fox C. hen D. goat
Answer: a small brown owl
Your output: A
Example 2:
Question: Which animal sits on the fence?
Options: A. owl B. fox C. hen D. goat
Answer: a lizard
Your output: E
Example 3:
"""


def _missing(value: object) -> bool:
    return value is None or value != value


def _is_none(value: object) -> bool:
    return _missing(value) or str(value).lower() in ("nan", "none", "")


class _MmBench(Task):
    measure = "all rotations correct, %"

    def __init__(self, benchmark: str, protocol: str) -> None:
        self.benchmark = benchmark  # type: ignore[misc]  # the two languages are one class
        self.protocol = protocol
        language = benchmark.removeprefix("mmbench_")
        names = ("MMBench", "mmbench", f"MMBench_DEV_{language.upper()}")
        self.data = DataSet("lmms-lab-encoder/MMBench", "dev", language, names)

    def row_id(self, row: Row) -> str:
        """Return the index, of a question and a rotation."""
        return str(row["index"])

    def group(self, id: str) -> str:
        """Return the index of the question's first rotation."""
        index = id.partition("#")[0]  # of a second row with the same index
        return str(int(index) % ROTATION) if index.isdecimal() else id

    def _level2(self, row: Row) -> Any:
        return row.get("L2-category", row.get("l2-category"))

    def _letter(self, row: Row, text: str) -> str | None:
        """Return the letter that MMBench's rules find without help: a letter, or the only option in the text."""
        return word_letter(text) or option_in_text(text, self._choices(row))

    def _choices(self, row: Row) -> dict[str, Any]:
        return {letter: row[letter] for letter in OPTIONS if not _missing(row.get(letter))}

    def _static_letter(self, row: Row, text: str) -> str | None:
        return self._letter(row, text) or tolerant_letter(text, list(self._choices(row)))

    def _hits(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> list[tuple[Row, float]]:
        """Return the questions, as their first rotations, with 1 where all rotations are right and else 0."""
        right: dict[int, bool] = {}
        for row, verdict in zip(rows, verdicts, strict=True):
            question = int(row["index"]) % ROTATION
            right[question] = right.get(question, True) and verdict.score == 1
        mains = sorted((row for row in rows if int(row["index"]) < ROTATION), key=lambda row: row["index"])
        return [(row, float(right[int(row["index"])])) for row in mains]

    def units(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> Units:
        """Return the questions, each with all its rotations."""
        hits = self._hits(rows, verdicts)
        return score_units([hit for _, hit in hits], [row.get("category") or "" for row, _ in hits], "question groups")

    def _circular(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return the share of questions with all rotations correct, of all (percent), by category and by level 2."""
        hits = self._hits(rows, verdicts)
        groups = ([(row.get("category"), hit) for row, hit in hits], [(self._level2(row), hit) for row, hit in hits])
        category, level2 = (
            {
                name: mean([hit for other, hit in pairs if other == name])
                for name in sorted({n for n, _ in pairs if n is not None})
            }
            for pairs in groups
        )
        score = 100 * mean([hit for _, hit in hits])
        return {"gpt_eval_score": score, "submission": None, "category_acc": category, "l2_category_acc": level2}

    def headline(self, aggregate: Mapping[str, Any]) -> float | None:
        """Return the share of questions with all rotations correct, in percent."""
        return aggregate["gpt_eval_score"]


class MmBenchLmms(_MmBench):
    """MMBench as lmms-eval has it, with or without a judge."""

    def __init__(self, benchmark: str, protocol: str) -> None:
        super().__init__(benchmark, protocol)
        self.generation = Generation(1024, stop=("ASSISTANT:",)) if benchmark == "mmbench_en" else Generation(256)
        self.needs_judge = protocol == "lmms_judge"

    def adapt(self, row: Row) -> Row:
        """Return the columns of the data set."""
        if "L2-category" in row or "l2-category" not in row:
            return row
        return {("L2-category" if key == "l2-category" else key): value for key, value in row.items()}

    def text(self, row: Row) -> str:
        """Return hint, question and options on one line and more, an empty line, and the instruction.

        As in lmms-eval, a hint that is the word nan is left out of English prompts alone.
        """
        options = [f"{x}. {row[x]}" for x in "ABCDE" if not _missing(row.get(x)) and row[x] not in ("", "nan")]
        block = "\n".join(["There are several options:", *options]).rstrip("\n")
        hint = row["hint"]
        skipped = _missing(hint) or (hint == "nan" and self.benchmark == "mmbench_en")
        return f"{'' if skipped else f'{hint} '}{row['question']} {block}\n\n{SUFFIX[self.benchmark]}"

    def score(self, row: Row, output: str | None) -> Verdict:
        """Return the verdict on one rotation; None is the answer where a judge has to say."""
        text = scored_text(output)
        letter = self._letter(row, text) if self.needs_judge else self._static_letter(row, text)
        kept = ("index", "question", "answer", "hint", "source", "split", "category", "L2-category")
        inner = {key: row.get(key) for key in kept} | {x: row.get(x, "nan") for x in "ABCDE"} | {"prediction": text}
        gold = row["answer"]
        record = {"target": gold, "scored_text": text, "gpt_eval_score": inner}
        category = row.get("category") or ""
        return Verdict(record, float(letter == gold), letter is not None, letter, gold, category)

    def judge(self, rows: Sequence[Row], verdicts: Sequence[Verdict], judge: Judge) -> list[Verdict]:
        """Return the verdicts with letters by the judge, of the questions that are not wrong without it.

        Rotations are asked in order until one is wrong, as in the reference; rows that were not asked stay wrong.
        """
        result = list(verdicts)
        if not self.needs_judge:
            return result
        groups: dict[int, list[int]] = {}
        for place in sorted(range(len(rows)), key=lambda place: rows[place]["index"]):
            groups.setdefault(int(rows[place]["index"]) % ROTATION, []).append(place)
        for number in sorted(groups):
            group = groups[number]
            has_main = any(int(rows[place]["index"]) < ROTATION for place in group)
            if has_main and all(result[place].answer in (None, result[place].gold) for place in group):
                self._judge_group(rows, result, group, judge)
        return result

    def _judge_group(self, rows: Sequence[Row], result: list[Verdict], group: Sequence[int], judge: Judge) -> None:
        for place in group:
            verdict = result[place]
            if verdict.answer is not None:
                continue
            try:
                letter = self._ask(rows[place], verdict.record["scored_text"], judge)
            except JudgeFailed as failure:
                for other in group:
                    result[other] = result[other].failed(str(failure))
                return
            result[place] = verdict.judged(float(letter == verdict.gold), letter, letter is not None, {})
            if letter != verdict.gold:
                return

    def _ask(self, row: Row, text: str, judge: Judge) -> str | None:
        """Return the letter of the judge; None if three rounds gave none (the reference guesses then)."""
        choices = self._choices(row)
        end = next((n for n, letter in enumerate(OPTIONS) if letter not in choices), len(OPTIONS))
        block = f"There are several options: \n{option_lines(row[x] for x in OPTIONS[:end])}\n"
        content = f"{JUDGE_TASK}Question: {row['question']}?\nOptions: {block}\nAnswer: {text}\nYour output: "
        facts = {"question": row["question"], "options": block, "prediction": text}
        for _ in range(ROUNDS):
            replies = (judge.ask(Question(content, max_tokens=256, facts=facts)).strip() for _ in range(EMPTY_REPLIES))
            reply = next((reply for reply in replies if reply), FAILED_REQUEST)
            letter = word_letter(reply) or (None if reply == FAILED_REQUEST else option_in_text(reply, choices))
            if letter is not None:
                return letter
        return None

    def aggregate(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return the share of questions with all rotations correct, of all (percent), by category and by level 2."""
        return self._circular(rows, verdicts)


class MmBenchEve(_MmBench):
    """MMBench as EVE's scripts have it: a table for the server."""

    generation = Generation(1024)

    def __init__(self, benchmark: str) -> None:
        super().__init__(benchmark, "eve")

    def adapt(self, row: Row) -> Row:
        """Return the row of the official table, without words that stand for empty cells."""
        if "L2-category" not in row:
            return row
        renamed = {("l2-category" if key == "L2-category" else key): value for key, value in row.items()}
        return renamed | {key: None if _is_none(row.get(key)) else row[key] for key in ("hint", *OPTIONS)}

    def _shown(self, row: Row) -> list[str]:
        end = next((n for n, letter in enumerate(OPTIONS) if _is_none(row.get(letter))), len(OPTIONS))
        return [row[letter] for letter in OPTIONS[:end]]

    def _choices(self, row: Row) -> dict[str, Any]:
        return dict(zip(OPTIONS, self._shown(row), strict=False))

    def _question(self, row: Row) -> str:
        hint = "" if _is_none(row.get("hint")) else f"{row['hint']}\n"
        return f"{hint}{row['question']}\n{option_lines(self._shown(row))}"

    def text(self, row: Row) -> str:
        """Return hint, question, options and the instruction."""
        return f"{self._question(row)}\n{EVE_SUFFIX[self.benchmark]}"

    def score(self, row: Row, output: str | None) -> Verdict:
        """Return the verdict on one rotation, by the static rules, and what the answers file and the table hold."""
        text = decoded_text(output)
        letter = self._static_letter(row, text)
        shown = self._shown(row)
        record = {
            "text": text,
            "options": shown,
            "option_char": list(OPTIONS[: len(shown)]),
            "prompt_in_answers_file": self._question(row),
            "xlsx_prediction": text or None,  # an empty cell
        }
        gold = row.get("answer")
        category = row.get("category") or ""
        return Verdict(record, float(letter == gold), letter is not None, letter, gold, category)

    def aggregate(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return the columns and the number of rows of the table."""
        return {"xlsx_columns": list(COLUMNS), "xlsx_rows": len(rows)}

    def submission(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> list[dict[str, Any]] | None:
        """Return the rows of the table."""
        cells = [row | {"prediction": v.record["text"]} for row, v in zip(rows, verdicts, strict=True)]
        return [
            {name: None if name in OPTIONS and _is_none(c.get(name)) else c.get(name) for name in COLUMNS}
            for c in cells
        ]

    def further(self, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return the local score by the static rules."""
        return self._circular(rows, verdicts)


LANGUAGES = ("mmbench_en", "mmbench_cn")
TASKS = tuple(
    task
    for name in LANGUAGES
    for task in (MmBenchEve(name), MmBenchLmms(name, "lmms_static"), MmBenchLmms(name, "lmms_judge"))
)
