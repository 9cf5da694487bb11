"""The files of a stage folder that say what its checkpoints are: config.json and the tokenizers.

A folder without a checkpoint belongs to nobody: a run that begins there replaces what a dead one left. Next to a
checkpoint they stay what they are, and the tokenizer must be the run's.
"""

import json
import os
import shutil
from pathlib import Path

from eve_jax.checkpoint.stage_folder import CONFIG, steps_in
from eve_jax.config.stage import Config
from eve_jax.data.image.codes import digest_of_tokenizer
from eve_jax.data.samples.data_fingerprint import OTHER_FOLDER
from eve_jax.data.samples.sample_rule import VISION_TOKENIZER, SampleRule, tokenizer_hash
from eve_jax.data.text.load import load_tokenizer
from eve_jax.data.text.tokenizer import COMPANIONS, MODEL_FILE, TOKENIZER_FILE, Tokenizer
from eve_jax.errors import UserError
from eve_jax.hf.vision_tokenizer import carry_vision_tokenizer
from eve_jax.process import places
from eve_jax.process.at_step import folder_of
from eve_jax.process.connect import print_once
from eve_jax.process.files import PART, write_json
from eve_jax.version import versioned

TOKENIZER_FILES = (TOKENIZER_FILE, MODEL_FILE, *COMPANIONS)


def write_stage_files(folder: Path, config: Config, rule: SampleRule, resumed: bool, verified: bool) -> None:
    """Write config.json and the tokenizers into a stage folder, before its first checkpoint; later, restore lost ones.

    rule: of the stage's samples, with its tokenizers. resumed: there is a checkpoint. verified: they are known to be
    those of the checkpoint, so that another text tokenizer in the folder is replaced. Raises UserError for another one
    where this is not known, and for another vision tokenizer.
    """
    tokenizer = rule.tokenizer
    if not resumed or not (folder / CONFIG).exists():
        write_json(folder / CONFIG, versioned(json.loads(config.to_json())), indent=1)
    _keep_vision_tokenizer(folder / VISION_TOKENIZER, config, rule.images.vocabulary, resumed)
    if not resumed:
        _replace_tokenizer(folder, tokenizer)
        return
    found = [name for name in (TOKENIZER_FILE, MODEL_FILE) if (folder / name).is_file()]
    if _holds(folder, tokenizer):
        return
    if found and not verified:
        raise UserError(
            f"{folder / found[0]} is not the tokenizer of config.data.tokenizer; name the one that the checkpoints "
            f"were trained with, or, if that is it, remove {found[0]}; or {OTHER_FOLDER}"
        )
    print_once(f"{folder}: its tokenizer was {'not that of its checkpoints' if found else 'missing'}: written again")
    _replace_tokenizer(folder, tokenizer)


def _keep_vision_tokenizer(target: Path, config: Config, digest: str, resumed: bool) -> None:
    """Have the vision tokenizer of a stage that reads codes in `target`, in place of what a dead run left there.

    digest: of the one that the stage trains with; another one next to a checkpoint is a UserError.
    """
    source = vision_tokenizer(config) if config.sizes.codes else None
    its_own = source is not None and source.resolve() == target.resolve()
    if not resumed and not its_own:
        shutil.rmtree(target, ignore_errors=True)
    if source is None or its_own:
        return
    if resumed and (target / CONFIG).is_file():
        if digest_of_tokenizer(target) != digest:
            raise UserError(
                f"{target} is not the vision tokenizer that its checkpoints were trained with; remove it, and that of "
                f"{source} takes its place"
            )
        return
    if resumed:
        print_once(f"{target} was missing: written again")
    carry_vision_tokenizer(source, target, link=_is_kept(source, target))


def _is_kept(source: Path, target: Path) -> bool:
    """Whether nobody writes the files of `source` and `target` in place: those of stages, and none of a bucket's."""
    return bool(steps_in(source.parent)) and not any(map(places.url_of, (source, target)))


def vision_tokenizer(config: Config) -> Path:
    """Return the folder of the vision tokenizer of a stage that reads codes."""
    return Path(config.data.vision_tokenizer or Path(folder_of(config.init)) / VISION_TOKENIZER)


def _holds(folder: Path, tokenizer: Tokenizer) -> bool:
    """Whether what `load_tokenizer` finds in the folder is `tokenizer`."""
    try:
        return tokenizer_hash(load_tokenizer(folder)) == tokenizer_hash(tokenizer)
    except UserError:
        return False


def _replace_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Write the tokenizer and its companions, and remove those of another one."""
    if tokenizer.folder is not None and tokenizer.folder.resolve() == folder.resolve():
        return
    part = folder / f"tokenizer{PART}"
    shutil.rmtree(part, ignore_errors=True)  # of a run that was killed
    try:
        tokenizer.save(part)
        for name in TOKENIZER_FILES:
            if (part / name).exists():
                os.replace(part / name, folder / name)
            else:
                (folder / name).unlink(missing_ok=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)
