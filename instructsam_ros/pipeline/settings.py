"""Settings of the pipeline: their defaults, and the choices of those that have names."""

from dataclasses import dataclass

from instructsam.core.modes import MAX_MEGAPIXELS

CONTINUOUS = 'continuous'
ON_INSTRUCTION = 'on_instruction'
TRIGGERS = (CONTINUOUS, ON_INSTRUCTION)

GENERATE = 'generate'
INSTRUCTION = 'instruction'
ANSWERS = (GENERATE, INSTRUCTION)


AUTO = 'auto'
RECTIFIED = (AUTO, 'true', 'false')


@dataclass(frozen=True)
class Settings:
    """Settings that one image is answered with; two queries with unequal ones may have different answers.

    The node declares a parameter of the same name for each; node/parameters.py documents them.
    """

    trigger: str = CONTINUOUS
    answer: str = GENERATE
    score_threshold: float = 0.5
    max_new_tokens: int = 256
    time_budget_s: float = 0.0
    suppress_duplicates: bool = True
    depth_tolerance_s: float = 0.0
    depth_timeout_s: float = 0.2
    target_frame: str = ''
    tf_max_gap_s: float = 1.0
    max_megapixels: float = MAX_MEGAPIXELS
    rectified: str = AUTO
    frame_tolerance: str = ''
    max_waiting_goals: int = 100
    track_rate_hz: float = 0.0
