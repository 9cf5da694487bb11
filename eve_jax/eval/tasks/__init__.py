"""One file per benchmark; `eve_jax.eval.registry` finds them by name."""
