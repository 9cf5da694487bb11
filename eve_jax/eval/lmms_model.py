"""`lmms-eval --model eve_jax`: its tasks and scorers on our engine, with answers that a killed run leaves.

    python -m lmms_eval --model eve_jax --model_args checkpoint=DIR,answers=OUT --tasks mme --batch_size 16

lmms-eval asks for all answers at once and keeps none until the last one is there; with `answers` each is appended to
OUT/answers/TASK.lmms-eval.jsonl as it comes, and a rerun asks only what is missing.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from lmms_eval.api.instance import GenerationResult, TokenCounts
from lmms_eval.api.model import lmms
from PIL import Image

from eve_jax.errors import UserError
from eve_jax.eval.answers import FOLDER, Answers
from eve_jax.eval.ask import WINDOW
from eve_jax.eval.identity import check_run, model_facts
from eve_jax.eval.outcome import Answered
from eve_jax.eval.task import Generation, ImageSlot, message_of
from eve_jax.infer.api import EVE
from eve_jax.infer.batches import Ask, answer_all
from eve_jax.process.checks import whole
from eve_jax.process.progress import ProgressBar

DEFAULT_TOKENS = 1024  # for tasks that state no limit, as lmms-eval's own clients have it
SETTINGS = ("fit", "max_size", "template", "mesh", "dtype", "weights", "cache")
PASSED_BY = ("device", "max_batch_size")  # what lmms-eval adds
SPACES = "\n\n"  # where lmms-eval's tasks stop by default; its clients do not, and neither do we
PASSED_OVER = ("do_sample", "image_aspect_ratio", "use_cache", "until", "max_new_tokens", "temperature", "top_p")


@contextmanager
def ending_the_run() -> Iterator[None]:
    """End the process with a UserError's line: lmms-eval would catch it, print a traceback and exit with status 0."""
    try:
        yield
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


class Request:
    """One request of lmms-eval: its user turn, its images and how it is answered.

    Args:
        request: with the arguments (context, messages of a document, generation settings, number, task, split).
        documents: of each task and split, by number.
    """

    def __init__(self, request: Any, documents: Mapping[str, Any]) -> None:
        _, messages_of, settings, number, self.task, split = request.args
        self.where = f"{self.task}/{split}#{number}"
        self.generation = generation_of(settings, self.where)
        self.images: list[Image.Image] = []
        parts = list(self._parts(messages_of(documents[self.task][split][number])))
        self.message = message_of(parts)
        seen = [hashlib.sha256(f"{i.size}".encode() + i.convert("RGB").tobytes()).hexdigest() for i in self.images]
        facts = json.dumps([seen, self.generation.max_new_tokens, self.generation.temperature, self.generation.stop])
        self.id = f"{split}#{number}#{hashlib.sha256(facts.encode()).hexdigest()[:16]}"

    def _parts(self, messages: Sequence[Mapping[str, Any]]) -> Iterator[str | ImageSlot]:
        if [message["role"] for message in messages] != ["user"]:
            raise UserError(f"{self.where}: expected one message of the user; several turns are not supported")
        for part in messages[0]["content"]:
            if part["type"] == "text":
                yield part["text"]
            elif part["type"] == "image" and isinstance(part["url"], Image.Image):
                self.images.append(part["url"])
                yield ImageSlot(len(self.images) - 1)
            else:
                raise UserError(f"{self.where}: has {part['type']}; text and images are supported")


def generation_of(settings: Mapping[str, Any], where: str) -> Generation:
    """Return how lmms-eval's `settings` generate: with its temperature, whatever `do_sample` says, as over a server.

    Raises UserError that names `where` and a setting that cannot be followed.
    """
    for name, value in settings.items():
        neutral = name in PASSED_OVER or value is None or (name == "num_beams" and value == 1)
        if not neutral:
            raise UserError(f"{where}: the generation setting {name}={value!r} is not supported; see --gen_kwargs")
    stops = settings.get("until") or ()
    stop = tuple(text for text in ([stops] if isinstance(stops, str) else stops) if text != SPACES)
    longest = whole(f"{where}: max_new_tokens", settings.get("max_new_tokens") or DEFAULT_TOKENS, "at least 1", 1)
    temperature = float(settings.get("temperature") or 0)
    if temperature and settings.get("top_p") not in (None, 1):
        raise UserError(f"{where}: top_p={settings['top_p']} with a temperature is not supported; see --gen_kwargs")
    return Generation(longest, temperature, stop)


class EveJax(lmms):
    """An EVE as a chat model of lmms-eval; an error ends the process with one line and status 1.

    Args:
        checkpoint: a stage, an import or a Hugging Face folder.
        answers: folder that keeps the answers and names the model they are of; "" keeps none.
        batch_size: prompts of a batch; no answer depends on it.
        settings: SETTINGS, as in `EVE.from_pretrained`.
    """

    is_simple = False

    @ending_the_run()
    def __init__(self, checkpoint: str = "", answers: str = "", batch_size: int | str = 16, **settings: Any) -> None:
        super().__init__()
        given = {name: value for name, value in settings.items() if name not in PASSED_BY}
        unknown = sorted(given.keys() - set(SETTINGS))
        if unknown or not str(checkpoint):
            what = f"unknown: {', '.join(unknown)}" if unknown else "checkpoint is missing"
            raise UserError(f"--model_args: {what}; expected checkpoint, answers, {', '.join(SETTINGS)}")
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise UserError(f"--batch_size {batch_size}: expected a whole number of at least 1")
        self.eve = EVE.from_pretrained(str(checkpoint), **given)
        self.rows = int(batch_size)
        self.out = Path(answers) if answers else None
        if self.out:
            self.out.mkdir(parents=True, exist_ok=True)
            check_run(self.out, model_facts(self.eve), {}, {"checkpoint": str(checkpoint)})
        self._files: dict[str, Answers] = {}

    def _answers(self, task: str) -> Answers:
        if task not in self._files:
            self._files[task] = Answers.open(self.out and self.out / FOLDER / f"{task}.lmms-eval.jsonl")
        return self._files[task]

    @ending_the_run()
    def generate_until(self, requests: list[Any]) -> list[Any]:
        """Return the answers in the order of `requests`.

        Where some failed, the run ends with a line that names them, after all others are answered: lmms-eval has no way
        to leave a question out, and would score any text in its place.
        """
        results: list[Any] = []
        failed: list[str] = []
        with ProgressBar("eve_jax", len(requests), unit="questions", status="") as bar:
            for start in range(0, len(requests), self.rows * WINDOW):
                window = requests[start : start + self.rows * WINDOW]
                for answered in self._window([Request(one, self.task_dict) for one in window], bar):
                    counts = TokenCounts(input_tokens=answered.prompt_tokens, output_tokens=answered.tokens)
                    results.append(GenerationResult(answered.answer or "", counts))
                    failed += [answered.error] if answered.error else []
        if failed:
            kept = f"{self.out} has the others; rerun to ask these" if self.out else "answers=FOLDER keeps the others"
            raise UserError(f"{len(failed):,} of {len(requests):,} requests failed, {failed[0]}; {kept}")
        return results

    def _window(self, window: Sequence[Request], bar: ProgressBar) -> list[Answered]:
        """Ask what has no answer yet; return the answers to all of `window`, in order."""
        asks: dict[str, Ask] = {}
        for number, one in enumerate(window):
            if self._answers(one.task).has(one.id, one.message):
                bar.advance()
                continue
            try:
                prompt = self.eve.prompt(one.message, one.images)
                how = one.generation
                run = self.eve.settings(len(prompt), max_new_tokens=how.max_new_tokens, temperature=how.temperature)
                asks[str(number)] = Ask(str(number), prompt, run.max_new_tokens, run.sampling)
            except UserError as error:
                self._keep(one, Answered(one.id, one.message, None, None, error=f"{one.where}: {error}"))
        for reply in answer_all(self.eve.engine, list(asks.values()), self.eve.stop_ids, self.rows):
            one, prompt_tokens = window[int(reply.key)], len(asks[reply.key].prompt)
            text = None if reply.error else one.generation.cut(self.eve.decode(reply.ids))
            failed = f"{one.where}: {reply.error}" if reply.error else ""
            tokens = (prompt_tokens, len(reply.ids), reply.seconds)
            self._keep(one, Answered(one.id, one.message, text, None, *tokens, failed))
            bar.advance()
        return [self._answers(one.task).known[one.id] for one in window]

    def _keep(self, one: Request, answered: Answered) -> None:
        self._answers(one.task).add(answered)

    @ending_the_run()
    def loglikelihood(self, requests: list[Any]) -> NoReturn:
        """End the run: no task of images that is supported asks for it."""
        raise UserError("eve_jax answers questions (generate_until); this task asks for log-likelihoods")

    @ending_the_run()
    def generate_until_multi_round(self, requests: list[Any]) -> NoReturn:
        """End the run: several rounds are not supported."""
        raise UserError("eve_jax answers questions (generate_until); this task asks in several rounds")
