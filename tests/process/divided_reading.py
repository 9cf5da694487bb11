"""One process of several that read a folder's parameters onto a mesh together: prints bytes read and fingerprints.

python -m tests.process.divided_reading FOLDER MESH WORKDIR COORDINATOR COUNT INDEX
"""

import json
import sys
from pathlib import Path

import jax

from eve_jax.checkpoint.stage_folder import newest_step
from eve_jax.checkpoint.weight_fingerprint import fingerprints
from eve_jax.model.eve import parameter_shardings
from eve_jax.process.cluster import Cluster
from eve_jax.process.connect import distributed_run, peers
from eve_jax.sharding import make_mesh
from eve_jax.weights import divided
from eve_jax.weights.open import open_checkpoint


def read_so_far() -> int:
    """Return the bytes that this process has asked the system for."""
    return int(Path("/proc/self/io").read_text().split()[1])


def main() -> None:
    """See above."""
    folder, mesh, workdir, coordinator, count, index = sys.argv[1:]
    divided.LEAST = 1 << 12
    with distributed_run(Cluster(coordinator, int(count), int(index)), Path(workdir)):
        checkpoint = open_checkpoint(folder)
        places = parameter_shardings(checkpoint.cfg, make_mesh(mesh))
        checkpoint.params(places)  # compiles, and imports what reads
        jax.effects_barrier()
        before = read_so_far()
        if checkpoint.source is None:
            newest_step(checkpoint.folder, False, peers())
        checked = read_so_far()
        params = checkpoint.params(places)
        jax.block_until_ready(params)
        read = {"checked": checked - before, "read": read_so_far() - checked}
        print(json.dumps(read | {"fingerprints": fingerprints(params)}))


if __name__ == "__main__":
    main()
