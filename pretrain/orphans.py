"""A process whose parent was killed outright does not go on alone."""

import multiprocessing
import os
import threading


def leave_with_parent() -> None:
    """From now on this process, which `multiprocessing` started, ends when its parent does."""
    parent = multiprocessing.parent_process()
    if parent:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
