"""Experiments: several arms, each trained with several seeds, scored at one or more points, and compared.

    trunk (shared) -+-> ARM_SEED_CURVE --+- step 150 -> ARM_SEED_SCORED_150 -> scores
                    |                    +- step 300 -> ARM_SEED_SCORED_300 -> scores
                    |                    +- its end  -> ARM_SEED_SCORED     -> scores
                    +-> the next arm, the next seed ...

An experiment is a recipe (`eve_jax.recipe`): its stages are a tree of ordinary stages in order, each of which starts
from the one before it or says where by `init`, a step of a run by `WORKDIR/STAGE@STEP`. The section `experiment` of the
recipe's config (`eve_jax.experiments.config`) says which of the stages are arms, seeds and points, what they are scored
on, and what the paper reports. Seeds are paired: seed s of every arm sees its data in the same order.

    config.py      the section, the names of the stages, the points
    cost.py        what it will take: samples, tokens, FLOPs, hours of chips, minutes of two cores
    score.py       scores of a stage, kept with what they are of: answers by `eve_jax.eval`, losses by `eve_jax.infer`
    gather.py      tables [seeds, questions] of all points
    statistics.py  means and errors over seeds; differences of arms, paired by seed and question
    report.py      NAME.json and NAME.md: the table, the paper's numbers, what can be said; chart.py draws NAME.png

What is trained and scored is skipped, so that rerunning the command resumes, and a further seed or arm is added to what
is there. The points of a curve are settled by its first run, which keeps the checkpoints of their steps alone.
"""
