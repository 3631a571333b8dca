"""ROS domains of tests."""

import random
import socket


def reserve_domain() -> tuple[socket.socket, int]:
    """Return a random ROS_DOMAIN_ID and a socket that reserves it, until it is closed, against other tests."""
    while True:
        number = random.randrange(1, 102)
        reservation = socket.socket()  # TCP, because DDS uses the UDP port of this number
        try:
            reservation.bind(('127.0.0.1', 7400 + 250 * number))
        except OSError:
            reservation.close()
            continue
        return reservation, number
