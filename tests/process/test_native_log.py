"""Fatal log entries of JAX's coordination service, as a line for people; abort() ends a process with it."""

import re
import subprocess
import sys

import pytest

from eve_jax.process.native_log import lost_peer

DEAD = (
    "E1126 coordination_service.cc:1549] ...\nF1126 10:35:43 client.h:80] Terminating process ... absl::Status: "
    "UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats):\n1,3\nThe tasks have crashed. Check"
)
LEADER = "F1126 client.h:80] ... absl::Status: UNAVAILABLE: Failed to send RPC to coordination service. Either the"
TAKEN = (
    "F1130 client.h:80] Terminating process ... absl::Status: ABORTED: 1 unexpectedly tried to connect with another "
    "incarnation. It has likely restarted.\n\nRPC: /xla.coordination.CoordinationService/PollForError"
)
LATE = "absl::Status: DEADLINE_EXCEEDED: Deadline Exceeded\n\nRPC: /xla.coordination.CoordinationService/RegisterTask"


@pytest.mark.parametrize(
    ("tail", "says"),
    [
        (DEAD, "process 1, 3 of 4 has died or is out of reach, so the run ends here; start all processes again"),
        (LEADER, "process 0 of 4, the coordinator, has died"),
        (LATE, r"not all 4 processes were there within 300 s \(--start_timeout\)"),
        (TAKEN, "something else has connected as process 1 of 4: that process started once more, another run at the"),
        ("something else", "a native library has ended the process"),
    ],
)
def test_reasons(tail, says):
    assert re.match(says, lost_peer(tail, 4, 300))


PROGRAM = """
import os, sys
from pathlib import Path
from eve_jax.process.native_log import NativeOutput
output = NativeOutput(Path(sys.argv[1]) / "first.log")
output.rename(Path(sys.argv[1]) / "process-1.log")
output.on_abort(lambda tail: f"the end of [{tail.strip()}]")
print("to people")
os.write(1, b"native chatter ")
os.write(2, b"and a wall of text")
os.abort()
"""


def test_abort_is_one_line(tmp_path):
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True)
    log = tmp_path / "process-1.log"
    assert done.returncode == 1
    assert done.stdout == "to people\n"
    assert done.stderr == f"error: the end of [native chatter and a wall of text]; details in {log}\n"
    assert log.read_text() == "native chatter and a wall of text"
    assert not (tmp_path / "first.log").exists()
