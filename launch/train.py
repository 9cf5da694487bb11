"""Train one stage: python -m launch.train --config=stage1 --workdir=runs [--config.optim.lr=1e-4 ...]

Resumes from the last checkpoint in WORKDIR/<stage>; Ctrl-C and SIGTERM save and stop. Leaves report.png there.
"""

from absl import flags

from eve_jax.process.published import work_folder
from launch._configs import define_config
from launch._flags import define_cluster, define_path, required_folder, run

CONFIG = define_config()
flags.declare_key_flag("config")
WORKDIR = define_path("workdir", None, "folder under which the stage's own folder is made", remote=work_folder)
CLUSTER = define_cluster()
flags.mark_flags_as_required(["config", "workdir"])


def main() -> None:
    from eve_jax.config.stage import Config
    from eve_jax.process.connect import distributed_run, print_once
    from eve_jax.process.places import shown
    from eve_jax.process.setup import setup
    from eve_jax.recipe import train_stage
    from eve_jax.train.report import REPORT, reported

    config = Config.of(CONFIG.value)
    setup(computes=True)
    workdir = required_folder(WORKDIR)
    with distributed_run(CLUSTER(), workdir):
        with reported(workdir / config.name):
            folder = train_stage(config, workdir)
        print_once(shown(f"done: {folder}, {folder / REPORT}"))


if __name__ == "__main__":
    run(main)
