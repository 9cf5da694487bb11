"""Errors of Orbax and TensorStore in the system's words, where a disk is to blame."""

import errno
import os


def disk_reason(error: Exception) -> str:
    """The system's own words in an error of Orbax or TensorStore; "" when it comes from something else."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    known = (os.strerror(n) for n in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT, errno.EIO))
    return next((words for words in known if words in str(error)), "")
