"""The instruction in force."""

from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Instruction:
    """An instruction as it was received. Compared by identity: the same text received twice is two instructions."""

    text: str
    id: int  # counts from 1
