"""Run the stages of a recipe in order: python -m launch.recipe --config=demo --workdir=runs/demo

Each stage starts from the one before; what is done is skipped, so the same command resumes after any interruption.
"""

from absl import flags

from eve_jax.process.published import work_folder
from launch._configs import define_config
from launch._flags import define_cluster, define_path, required_folder, run

CONFIG = define_config()
flags.declare_key_flag("config")
WORKDIR = define_path("workdir", None, "folder of the whole recipe", remote=work_folder)
CLUSTER = define_cluster()
flags.mark_flags_as_required(["config", "workdir"])


def main() -> None:
    from eve_jax.process.connect import distributed_run
    from eve_jax.process.setup import setup
    from eve_jax.recipe import recipe_of, run_recipe

    config, workdir = recipe_of(CONFIG.value), required_folder(WORKDIR)
    setup(computes=True)
    with distributed_run(CLUSTER(), workdir):
        run_recipe(config, workdir)


if __name__ == "__main__":
    run(main)
