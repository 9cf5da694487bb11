#!/usr/bin/env bash
# A TPU VM or pod slice from here, by gcloud; every command runs on all its hosts.
#   launch/tpu.sh create                         the slice (queued until there is room; SLICES=2: several slices)
#   launch/tpu.sh setup                          this folder, its environment and the shared folder, on all hosts
#   launch/tpu.sh run launch.train --config=... --workdir=/shared/runs ...       in the background
#   launch/tpu.sh log | stop | delete            output of process 0 | save and stop | give the slice back
# Environment: NAME, ZONE, TYPE (v5litepod-64), VERSION (v2-alpha-tpuv5-lite), SLICES (1), SPOT=1, SHARE (an NFS export
# HOST:/DIR, mounted at /shared), EVE_CACHE (folder of compiled programs on the hosts; default: WORKDIR/cache, which all
# share). DRY_RUN=1 prints the commands.
set -euo pipefail
NAME=${NAME:-eve} ZONE=${ZONE:-us-west4-a} TYPE=${TYPE:-v5litepod-64} VERSION=${VERSION:-v2-alpha-tpuv5-lite}
SLICES=${SLICES:-1}
action=${1:-help}
[ $# -gt 0 ] && shift

say() {
    if [ -n "${DRY_RUN:-}" ]; then printf '%q ' "$@"; echo; else "$@"; fi
}

names() {
    if [ "$SLICES" = 1 ]; then echo "$NAME"; else seq -f "$NAME-%g" 0 $((SLICES - 1)); fi
}

everywhere() { # COMMAND: on all hosts of all slices at once
    local started=() failed=0
    for name in $(names); do
        say gcloud compute tpus tpu-vm ssh "$name" --zone="$ZONE" --worker=all --command="$1" &
        started+=($!)
    done
    for process in "${started[@]}"; do wait "$process" || failed=1; done
    return "$failed"
}

case $action in
create)
    nodes=(--node-id="$NAME")
    [ "$SLICES" = 1 ] || nodes=(--node-count="$SLICES" --node-prefix="$NAME")
    say gcloud compute tpus queued-resources create "$NAME" "${nodes[@]}" --zone="$ZONE" \
        --accelerator-type="$TYPE" --runtime-version="$VERSION" ${SPOT:+--spot}
    ;;
setup)
    everywhere "mkdir -p eve_jax"
    for name in $(names); do
        say gcloud compute tpus tpu-vm scp --recurse configs eve_jax launch pyproject.toml constraints.txt README.md \
            LICENSE "$name:eve_jax/" --zone="$ZONE" --worker=all
    done
    mount=
    [ -z "${SHARE:-}" ] || mount="sudo apt-get install -y nfs-common && sudo mkdir -p /shared &&
        (mountpoint -q /shared || sudo mount -t nfs $SHARE /shared) &&"
    everywhere "sudo apt-get update && sudo apt-get install -y python3.11 python3.11-venv && $mount
        cd eve_jax && python3.11 -m venv .venv && .venv/bin/pip install -c constraints.txt -e '.[tpu]'"
    ;;
run)
    [ $# -gt 0 ] || { echo "say what to run: launch/tpu.sh run launch.train --config=..." >&2; exit 2; }
    everywhere "cd eve_jax && ${EVE_CACHE:+EVE_CACHE=$(printf %q "$EVE_CACHE") }nohup .venv/bin/python -m $(printf '%q ' "$@") > run.log 2>&1 < /dev/null &"
    ;;
log)
    first=$(names | head -1)
    say gcloud compute tpus tpu-vm ssh "$first" --zone="$ZONE" --worker=0 --command="tail -n 50 -f eve_jax/run.log"
    ;;
stop) # a request to one process stops all after the same step
    first=$(names | head -1)
    say gcloud compute tpus tpu-vm ssh "$first" --zone="$ZONE" --worker=0 \
        --command="pkill -TERM -f -- '-m launch.(train|recipe)'"
    ;;
delete)
    say gcloud compute tpus queued-resources delete "$NAME" --zone="$ZONE" --force
    ;;
*)
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
