"""Caption the images of records: python -m launch.caption --config=caption --from=RECORDS --to=OUT
    --config.endpoint.url=http://host:8000/v1 --config.endpoint.model=NAME

Asks an OpenAI-style endpoint (launch.serve, vLLM, SGLang, others) about every image, checks what it says, and writes
records that config.data.records=OUT names. --config=caption:densefusion fuses what experts found with what is seen. The
key is read from EVE_CAPTION_KEY or OPENAI_API_KEY. --config.engine.runner=ray asks from a cluster. Ctrl-C and SIGTERM
stop; rerun the command to resume: what was answered is not asked again. See docs/curation.md.
"""

import importlib.util
from pathlib import Path

from absl import flags

from eve_jax.process import fetched
from eve_jax.process.published import in_bucket, work_folder
from launch._configs import define_config
from launch._flags import define_path, leaving_threads, run

CONFIG = define_config()
flags.declare_key_flag("config")
FROM_IS = "records with images, as config.data.records takes them; records without texts are read, too"
FROM = define_path("from", None, FROM_IS, several=True, remote=fetched.fetch)
IMAGES = define_path("images", "", "folder that image paths of the records start from", remote=fetched.images)
TO = define_path("to", None, "folder for answers and captioned records", remote=work_folder)
NEW_ANSWERS = flags.DEFINE_bool("new_answers", False, "prompt, model or what is sent changed: ask for all again")
NEW_RECORDS = flags.DEFINE_bool("new_records", False, "the records changed: caption what is new, keep the answers")
RETRY = flags.DEFINE_list("retry", [], "ask again about images rejected for these reasons: refused, server, timeout")
flags.mark_flags_as_required(["config", "from", "to"])


def main() -> None:
    from eve_jax.errors import UserError, name_fields
    from eve_jax.process import interrupt
    from eve_jax.process.places import shown

    interrupt.ready()
    if importlib.util.find_spec("httpx") is None:
        raise UserError("the package httpx is missing: pip install -c constraints.txt -e '.[curate]'")
    with name_fields(_flag):
        from eve_jax.caption.config import CaptionConfig, key_of_environment
        from eve_jax.caption.folder import Allowed
        from eve_jax.caption.replies import RULES

        if unknown := [rule for rule in RETRY.value or [] if rule not in RULES]:
            raise UserError(f"--retry={unknown[0]}: expected any of {', '.join(RULES)}")
        config = CaptionConfig.of(CONFIG.value)
        config.endpoint.check_given()

        from eve_jax.caption.write import caption_records, check_kept, funnel_lines

        new = Allowed(NEW_ANSWERS.value or False, NEW_RECORDS.value or False, tuple(RETRY.value or ()))
        out = Path(TO.value or "")
        with in_bucket(out, "captioning"):
            funnel = caption_records(config, FROM.value or "", IMAGES.value or "", out, key_of_environment(), new)

            from eve_jax.curate.report.write import write_report  # it takes seconds to import
            from eve_jax.data.sources.records import open_records

            write_report(out, open_records(FROM.value or "", IMAGES.value or "", texts=False))
    print("\n".join(funnel_lines(funnel)))
    check_kept(funnel, out)
    print(shown(f"done: {out}"))


def _flag(field: str) -> str:
    return {"data.records": "--from", "data.images": "--images"}.get(field, f"config.{field}")


if __name__ == "__main__":
    run(lambda: leaving_threads(main))
