"""For every test."""

import random
import signal
import socket

import pytest

# A shell that starts the tests in the background lets them ignore SIGINT, and what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _free_domain():
    """A random ROS_DOMAIN_ID that no other test of this machine has meanwhile, whichever process it runs in."""
    while True:
        number = random.randrange(1, 102)
        with socket.socket() as reservation:  # TCP has no use for the port that DDS listens on by UDP
            try:
                reservation.bind(('127.0.0.1', 7400 + 250 * number))
            except OSError:
                continue
            yield number
            return


domain_id = pytest.fixture(_free_domain, name='domain_id')
module_domain_id = pytest.fixture(_free_domain, name='module_domain_id', scope='module')
