#!/usr/bin/env bash
# Several processes of one run on this machine, to try a run of several hosts:
#   launch/local.sh 2 launch.recipe --config=demo:tiny --workdir=runs/two
# Ctrl-C stops all after the same step, saved. PYTHON names the interpreter; on a machine without accelerators every
# process gets DEVICES (1) virtual CPU devices. DRY_RUN=1 prints the commands.
set -euo pipefail
if [ $# -lt 2 ] || ! [[ $1 =~ ^[1-9][0-9]*$ ]]; then
    sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
count=$1 module=$2
shift 2
python=${PYTHON:-.venv/bin/python}
port=${PORT:-$((20000 + RANDOM % 20000))}
export JAX_NUM_CPU_DEVICES=${DEVICES:-1}
processes=()
for ((i = 0; i < count; i++)); do
    command=("$python" -m "$module" "$@" --coordinator="localhost:$port" --num_processes="$count" --process_id="$i")
    if [ -n "${DRY_RUN:-}" ]; then
        echo "${command[*]}"
    else
        "${command[@]}" &
        processes+=($!)
    fi
done
trap 'kill -TERM "${processes[@]}" 2>/dev/null || true' TERM
trap : INT # a terminal sends Ctrl-C to the processes, too
status=0
for process in "${processes[@]}"; do
    code=0
    wait "$process" || code=$?
    while kill -0 "$process" 2>/dev/null; do # a signal has ended the waiting
        code=0
        wait "$process" || code=$?
    done
    [ "$code" = 0 ] || status=$code
done
exit "$status"
