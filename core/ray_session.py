"""Ray in a command: started on this machine, or a cluster's, without taking the command's signals. Needs `ray`."""

from __future__ import annotations

import logging
import signal
import threading

import ray  # pyright: ignore[reportMissingImports]  # of the extra engine-ray

from instructsam.core.errors import InstructSAMError
from instructsam.core.stop_signals import SIGNALS


def start_ray(address: str = '') -> None:
    """Start Ray unless it runs: on the cluster at `address` or in RAY_ADDRESS, without either on this machine."""
    if ray.is_initialized():
        return
    handlers = {each: signal.getsignal(each) for each in SIGNALS}
    ray.init(address=address or None, log_to_driver=False, logging_level=logging.ERROR)
    if threading.current_thread() is threading.main_thread():
        for each, handler in handlers.items():
            signal.signal(each, handler)


def find_gpus(needed: float, setting: str) -> float:
    """Return the number of GPUs that Ray has.

    Args:
        needed: GPUs of one process.
        setting: Name of the setting that says so, for the message.

    Raises:
        InstructSAMError: They are less than one process needs.
    """
    gpus = ray.cluster_resources().get('GPU', 0.0)
    if gpus < needed:
        raise InstructSAMError(f'{setting} is {needed:g}, and Ray has {gpus:g} GPUs: set it to 0 to use CPUs')
    return gpus
