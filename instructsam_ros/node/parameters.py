"""The parameters of the node: what each means, its default, the values it takes and when it may change.

Why not generate_parameter_library: it generates code in a colcon build, and the node must also run from PyPI's ROS
wheels. This table also makes the text of `--help`, and a test compares it with config/perception.yaml.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.parameter import Parameter as RosParameter

from instructsam.core import DEFAULT_MODEL
from instructsam.core.errors import GeometryError
from instructsam.core.modes import COMPILE, DTYPES, DUPLICATE_IOU, INFERENCE_MODES, MAX_MEGAPIXELS_RANGE
from instructsam.core.spatial.calibration import frame_name, frame_pairs
from instructsam.core.text import shorten
from instructsam_ros.conversions.transports import RAW, TRANSPORTS
from instructsam_ros.conversions.vision_msgs import MissingMessagesError, import_vision_msgs
from instructsam_ros.node.lifecycle import AsyncLifecycleNode
from instructsam_ros.node.tf_buffer import import_tf2
from instructsam_ros.pipeline.localization import TransformError
from instructsam_ros.pipeline.settings import ANSWERS, RECTIFIED, TRIGGERS, Settings

AT_START = 'only at start'  # read-only in ROS's terms
UNCONFIGURED = 'only while the node is unconfigured'
ANY_TIME = 'at any time, from the next image on'

CAMERA = re.compile(r'[A-Za-z]\w*', re.ASCII)
DEVICE = re.compile(r'auto|cpu|mps|cuda(:\d+)?')


@dataclass(frozen=True)
class Parameter:
    """A row of the table below."""

    name: str
    default: bool | int | float | str | list[str]
    changes: str  # AT_START, UNCONFIGURED or ANY_TIME
    description: str
    choices: tuple[str, ...] = ()
    range: tuple[float, float] | None = None  # both ends included
    accepts_bool: bool = False  # true and false are choices, which YAML and the command line read as bool

    def descriptor(self) -> ParameterDescriptor:
        """Return the descriptor that `ros2 param describe` shows."""
        constraints = f'may change {self.changes}'
        if self.choices:
            constraints = f'one of {", ".join(self.choices)}; {constraints}'
        descriptor = ParameterDescriptor(
            name=self.name,
            description=self.description,
            additional_constraints=constraints,
            read_only=self.changes == AT_START,
            dynamic_typing=self.accepts_bool,
        )
        if self.range and isinstance(self.default, float):
            low, high = self.range
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        elif self.range:
            low, high = self.range
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
        return descriptor

    def normalized(self, value: Any) -> Any:
        """Return `value` in the form that the rest of the node uses."""
        return str(value).lower() if self.accepts_bool and isinstance(value, bool) else value

    def refusal(self, value: Any) -> str:
        """Return the reason why `value` cannot be used; '' if it can. ROS checks the ranges itself."""
        value = self.normalized(value)
        if value is None:
            # ROS lets this pass, also to delete a parameter that the node needs.
            return f'{self.name} is {_TYPES[type(self.default)]}, got no value (ROS reads an empty list as none)'
        if self.choices and value not in self.choices:
            return f"{self.name} is one of {', '.join(self.choices)}, got '{shorten(value)}'"
        if not _has_type_of(self.default, value):
            return f'{self.name} is {_TYPES[type(self.default)]}, got {shorten(repr(value))}'
        if self.name == 'model' and not value.strip():
            return "model is a folder, a hub id or 'tabletop', got an empty string"
        if self.name == 'device' and not DEVICE.fullmatch(value):
            return f"device is auto, cpu, mps, cuda or cuda:N, got '{shorten(value)}'"
        if self.name == 'cameras' and not _are_camera_names(value):
            return f"cameras are different names of letters, digits and _, or [''], got {shorten(list(value))}"
        if self.name == 'frame_tolerance':
            try:
                frame_pairs(value)
            except GeometryError as error:
                return shorten(error)
        if self.name == 'vision_msgs' and value:
            try:
                import_vision_msgs()
            except MissingMessagesError as error:
                return str(error)
        if self.name == 'target_frame' and value:
            if not frame_name(value).strip():
                return f'target_frame is a frame of TF, got {value!r}'
            try:
                import_tf2()
            except TransformError as error:
                return str(error)
        return ''


_TYPES = {bool: 'true or false', int: 'an integer', float: 'a decimal number', str: 'a text', list: 'a list of texts'}


def _has_type_of(default: object, value: object) -> bool:
    return isinstance(value, type(default)) and (not isinstance(value, list) or all(isinstance(v, str) for v in value))


def _are_camera_names(names: Sequence[str]) -> bool:
    if list(names) == ['']:
        return True
    return bool(names) and len(set(names)) == len(names) and all(CAMERA.fullmatch(name) for name in names)


PARAMETERS = (
    Parameter('model', DEFAULT_MODEL, UNCONFIGURED,
              "Folder or hub id of the model; 'tabletop' is a small one, trained on rendered tables only."),
    Parameter('revision', '', UNCONFIGURED,
              "Commit, tag or branch of a hub id; empty: its main branch. A commit makes sure that the model stays."),
    Parameter('device', 'auto', UNCONFIGURED,
              'Device of the model: auto (CUDA if available, otherwise CPU), cpu, cuda, cuda:N.'),
    Parameter('dtype', 'auto', UNCONFIGURED,
              'Precision of the weights; auto: bfloat16 on CUDA (float16 on GPUs without it); on CPU float32, or '
              'bfloat16 for large models where the CPU has instructions for it.',
              choices=DTYPES),
    Parameter('compile', 'auto', UNCONFIGURED,
              "graphs: CUDA graphs; inductor: torch's compiler; off: neither; auto: graphs on CUDA, otherwise off.",
              choices=COMPILE),
    Parameter('mode', 'consistent', UNCONFIGURED,
              'Arithmetic: consistent (as the model was trained) or reference (as in the published inference code).',
              choices=INFERENCE_MODES),
    Parameter('image_transport', RAW, UNCONFIGURED,
              'raw subscribes to `image`, compressed to `image/compressed` (JPEG or PNG).',
              choices=TRANSPORTS['image_transport']),
    Parameter('depth_transport', RAW, UNCONFIGURED,
              'raw subscribes to `depth`, compressedDepth to `depth/compressedDepth` (PNG or RVL), compressed to '
              '`depth/compressed` (PNG or TIFF; JPEG is refused).',
              choices=TRANSPORTS['depth_transport']),
    Parameter('cameras', [''], AT_START,
              "Names of the cameras that share the model in turn: subscribes to NAME/image, NAME/depth and "
              "NAME/camera_info, publishes ~/NAME/instances and so on. ['']: one camera without a name."),
    Parameter('vision_msgs', False, AT_START,
              'Publish results as ~/detections_2d and ~/detections_3d as well (needs the package vision_msgs).'),
    Parameter('autostart', True, AT_START,
              'Configure and activate at start, without a lifecycle manager.'),
    Parameter('instruction', '', AT_START,
              'First instruction; later ones are received on the topic `instruction`. Empty: wait for the topic.'),
    Parameter('trigger', Settings.trigger, ANY_TIME,
              'continuous: every newest image is answered; on_instruction: one result per instruction, on the newest.',
              choices=TRIGGERS),
    Parameter('answer', Settings.answer, ANY_TIME,
              'generate: the language model writes an answer whose noun phrases are segmented; instruction: the '
              'instruction itself is used as the noun phrase, which is fast.',
              choices=ANSWERS),
    Parameter('score_threshold', Settings.score_threshold, ANY_TIME,
              'Objects with a lower score are omitted.', range=(0.0, 1.0)),
    Parameter('max_new_tokens', Settings.max_new_tokens, ANY_TIME,
              'Maximum number of tokens of an answer.', range=(1, 4096)),
    Parameter('time_budget_s', Settings.time_budget_s, ANY_TIME,
              'Time limit for generating an answer, s; 0: no limit.', range=(0.0, 3600.0)),
    Parameter('suppress_duplicates', Settings.suppress_duplicates, ANY_TIME,
              f'Of two masks that overlap almost entirely (IoU above {DUPLICATE_IOU}), '
              'omit the one with the lower score.'),
    Parameter('depth_tolerance_s', Settings.depth_tolerance_s, ANY_TIME,
              'Maximum difference between the stamps of a depth image and its image, s; 0: they must be equal.',
              range=(0.0, 1.0)),
    Parameter('depth_timeout_s', Settings.depth_timeout_s, ANY_TIME,
              'Maximum time that a result waits for the depth image and the transform of its image, s.',
              range=(0.0, 10.0)),
    Parameter('max_waiting_goals', Settings.max_waiting_goals, ANY_TIME,
              'Goals of the action that may wait for the model or for an image; more are aborted with that reason.',
              range=(1, 10_000)),
    Parameter('track_rate_hz', Settings.track_rate_hz, ANY_TIME,
              'Highest rate at which the masks of the newest answer are carried to the newest image, by optical flow, '
              'and published on ~/tracked/instances, Hz; 0: never.', range=(0.0, 240.0)),
    Parameter('target_frame', Settings.target_frame, ANY_TIME,
              "Frame of all geometry, by TF at the image's stamp (needs tf2_ros); empty: the camera's optical frame."),
    Parameter('tf_max_gap_s', Settings.tf_max_gap_s, ANY_TIME,
              'Longest time between the transforms of a frame before and after an image, s; a longer gap is not '
              'interpolated.', range=(0.0, 10.0)),
    Parameter('max_megapixels', Settings.max_megapixels, ANY_TIME,
              'Largest image that is decoded, in millions of pixels; larger ones are answered with an error.',
              range=MAX_MEGAPIXELS_RANGE),
    Parameter('rectified', Settings.rectified, ANY_TIME,
              'true: the images are rectified, so that camera_info.p describes them; false: raw, so that k and d do; '
              'auto: rectified if their topic is named so (image_rect, image_rect_color, rect/image).',
              choices=RECTIFIED, accepts_bool=True),
    Parameter('frame_tolerance', Settings.frame_tolerance, ANY_TIME,
              "Pairs of frame_ids that count as the same camera's, as in 'rgb_frame=depth_frame, a=b'; empty: image, "
              'depth and camera_info must have equal ones, or there is no geometry.'),
)  # fmt: skip
BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}


class NodeParameters:
    """The parameters of one node: declares them, refuses invalid changes, and is the node's SettingsSource."""

    def __init__(self, node: AsyncLifecycleNode, on_target_frame: Callable[[], None]) -> None:
        """Declare every parameter on `node`.

        Args:
            node: The node.
            on_target_frame: Called before the parameter target_frame gets a value that is not empty.

        Raises:
            InvalidParameterTypeException: A value from the command line or a parameter file has the wrong type.
            InvalidParameterValueException: Such a value cannot be used; the message says why.
        """
        self._node = node
        self._on_target_frame = on_target_frame
        node.add_on_set_parameters_callback(self._check)
        for parameter in PARAMETERS:
            node.declare_parameter(parameter.name, parameter.default, parameter.descriptor())
        # rclpy has no public way to find a misspelt name.
        for name in getattr(node, '_parameter_overrides', ()):
            if not node.has_parameter(name) and not name.startswith('qos_overrides.'):
                node.get_logger().warning(f"there is no parameter '{name}'; there are {', '.join(BY_NAME)}")

    def value(self, name: str) -> Any:
        """Return the current value of a parameter."""
        return BY_NAME[name].normalized(self._node.get_parameter(name).value)

    def current(self) -> Settings:
        """Return the settings of this moment."""
        return Settings(**{field.name: self.value(field.name) for field in fields(Settings)})

    def _check(self, changed: Sequence[RosParameter]) -> SetParametersResult:
        for parameter in changed:
            known = BY_NAME.get(parameter.name)
            if known is None:  # ROS's own, such as use_sim_time
                continue
            reason = known.refusal(parameter.value)
            state = self._node.state
            if not reason and known.changes == UNCONFIGURED and state != 'unconfigured':
                reason = f'{known.name} may change {UNCONFIGURED}, not {state}: deactivate and clean up first'
            if reason:
                return SetParametersResult(successful=False, reason=reason)
        if any(parameter.name == 'target_frame' and parameter.value for parameter in changed):
            self._on_target_frame()
        return SetParametersResult(successful=True)


def help_text(table: Iterable[Parameter] = PARAMETERS) -> str:
    """Return the table as text for a terminal."""
    return '\n'.join(f'  {p.name} (default {p.default!r}; changes {p.changes})\n      {p.description}' for p in table)
