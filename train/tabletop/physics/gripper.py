"""A simulated parallel gripper in MuJoCo that closes on an object of the tabletop world and lifts it: `try_grasp`.

This is pure physics, nothing is rendered: the objects of a scene are rigid bodies of convex pieces, the table is a
plane. The hand slides along the approach direction, its two fingers are coupled and close towards each other; all
forces are bounded. Equal arguments give equal outcomes.
"""

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from instructsam.core.spatial.grasping import Grasp, Gripper
from instructsam.core.spatial.rotations import matrix_to_quaternion
from instructsam.train.tabletop.scenes.layout import PlacedObject
from instructsam.train.tabletop.world.solids import convex_pieces

mj: Any = mujoco  # compiled modules without type stubs

LEFT, RIGHT, PALM, TABLE = 'left', 'right', 'palm', 'table'  # names of bodies
HAND_ACTUATOR, FINGER_ACTUATORS = [0], [1, 2]


@dataclass(frozen=True)
class Trial:
    """Parameters of the simulation.

    Attributes:
        step_s: Time step.
        settle_s: Time for the objects to come to rest before the hand moves.
        close_s: Time for the fingers to close.
        hold_s: Time to hold the object at the top.
        arrive_s: Time for the hand to come to rest after each motion.
        lift_m: Height by which the hand lifts.
        least_lift_m: Height by which the object must rise.
        clearance_m: Height of the hand above all objects before the approach.
        least_approach_m: Least length of the approach.
        reached_m: Largest distance from the grasp at which the hand has arrived.
        steepness: Least vertical component of the approach direction.
        hand_m_s: Speed of the hand.
        finger_m_s: Speed of each finger.
        press_n: Largest force of the hand during the approach.
        carry_n: Largest force of the hand while lifting.
        close_n: Largest force of each finger.
        finger_kg: Inertia of a finger's motor, after the gear.
        most_kg: Upper bound of an object's mass: solid teapots and bottles would be heavier.
        friction: Sliding, torsional (m) and rolling (m) coefficients of all surfaces. The rolling friction is high
            because scenes are laid out without physics, and round objects would roll away before they are touched.
        pad_friction: The same for the pads of the fingers; it applies to everything that they touch.
    """

    step_s: float = 0.002
    settle_s: float = 0.2
    close_s: float = 0.6
    hold_s: float = 0.3
    arrive_s: float = 0.1
    lift_m: float = 0.10
    least_lift_m: float = 0.05
    clearance_m: float = 0.01
    least_approach_m: float = 0.02
    reached_m: float = 0.004
    steepness: float = 0.7
    hand_m_s: float = 0.25
    finger_m_s: float = 0.15
    press_n: float = 20.0
    carry_n: float = 60.0
    close_n: float = 40.0
    finger_kg: float = 1.0
    most_kg: float = 0.6
    friction: tuple[float, float, float] = (0.5, 0.02, 0.02)
    pad_friction: tuple[float, float, float] = (0.9, 0.01, 0.0005)


PARAMETERS = Trial()
# Density of the convex pieces by material, kg/m3.
DENSITY = {
    'ceramic': 2200, 'glass': 2400, 'metal': 2700, 'enamel': 1000, 'plastic': 900, 'wood': 650, 'cardboard': 250,
    'paper': 600, 'rubber': 300, 'foam': 60, 'skin': 900,
}  # fmt: skip


@dataclass(frozen=True)
class GraspOutcome:
    """The outcome of a grasp.

    Attributes:
        reason: 'lifted'; or 'not from above', 'hits the table', 'hits a neighbour', 'hits the object' (the hand could
            not come down), 'nothing between the fingers', 'another object', 'slipped'.
    """

    reason: str

    @property
    def success(self) -> bool:
        """True if the object was lifted and is still held."""
        return self.reason == 'lifted'


def try_grasp(objects: list[PlacedObject], target: int, grasp: Grasp, gripper: Gripper | None = None) -> GraspOutcome:
    """Simulate whether the gripper lifts an object and still holds it afterwards.

    Args:
        objects: The objects of a scene, as in `scene.Stage`.
        target: Index of the object to lift.
        grasp: The grasp in the world frame: z is up, the table is at z = 0.
        gripper: Dimensions of the gripper, by default those of `Gripper()`.

    Raises:
        IndexError: There is no such object.
    """
    if not 0 <= target < len(objects):
        raise IndexError(f'there is no object {target}: the scene has {len(objects)}')
    if -grasp.rotation[2, 2] < PARAMETERS.steepness:
        return GraspOutcome('not from above')
    return _Simulation(objects, target, grasp, gripper or Gripper()).run()


class _Simulation:
    """One trial of one grasp."""

    def __init__(self, objects: list[PlacedObject], target: int, grasp: Grasp, gripper: Gripper) -> None:
        self._target = str(target)
        top = max(obj.hull_vertices[:, 2].max() for obj in objects)
        rise = top + PARAMETERS.clearance_m - grasp.position[2]
        self._approach_m = max(PARAMETERS.least_approach_m, rise / -grasp.rotation[2, 2])
        self._model = _compile(objects, grasp, gripper, self._approach_m)
        self._data = mj.MjData(self._model)
        self._data.qpos[[-2, -1]] = max(0.0, gripper.opening_m - grasp.opening_m) / 2

    def run(self) -> GraspOutcome:
        """Let the objects settle, approach, close, lift and hold."""
        self._step(PARAMETERS.settle_s)
        height_before_m = self._height()
        self._move_hand(self._approach_m, PARAMETERS.press_n)
        if self._data.joint('hand').qpos[0] < self._approach_m - PARAMETERS.reached_m:
            touched = self._touching(LEFT) | self._touching(RIGHT) | self._touching(PALM)
            if self._target in touched:
                return GraspOutcome('hits the object')
            return GraspOutcome('hits the table' if TABLE in touched else 'hits a neighbour')
        self._data.ctrl[FINGER_ACTUATORS] = PARAMETERS.finger_m_s
        self._step(PARAMETERS.close_s)
        held = self._touching(LEFT) & self._touching(RIGHT)
        if self._target not in held:
            return GraspOutcome('another object' if held - {LEFT, RIGHT, TABLE} else 'nothing between the fingers')
        self._move_hand(self._approach_m - PARAMETERS.lift_m, PARAMETERS.carry_n)
        self._step(PARAMETERS.hold_s)
        held = self._touching(LEFT) & self._touching(RIGHT)
        is_lifted = self._target in held and self._height() > height_before_m + PARAMETERS.least_lift_m
        return GraspOutcome('lifted' if is_lifted else 'slipped')

    def _height(self) -> float:
        return self._data.body(self._target).xipos[2]

    def _move_hand(self, goal_m: float, most_n: float) -> None:
        """Move the hand to `goal_m` along its approach at constant speed and let it come to rest there."""
        self._model.actuator_forcerange[HAND_ACTUATOR] = -most_n, most_n
        start_m = self._data.ctrl[HAND_ACTUATOR][0]
        steps = max(1, round(abs(goal_m - start_m) / (PARAMETERS.hand_m_s * PARAMETERS.step_s)))
        for position_m in np.linspace(start_m, goal_m, steps + 1)[1:]:
            self._data.ctrl[HAND_ACTUATOR] = position_m
            mj.mj_step(self._model, self._data)
        self._step(PARAMETERS.arrive_s)

    def _step(self, time_s: float) -> None:
        mj.mj_step(self._model, self._data, round(time_s / PARAMETERS.step_s))

    def _touching(self, name: str) -> set[str]:
        """Return the names of the bodies in contact with the body `name`."""
        body_id, bodies = self._model.body(name).id, self._model.geom_bodyid[self._data.contact.geom]
        others = np.concatenate([bodies[bodies[:, 0] == body_id, 1], bodies[bodies[:, 1] == body_id, 0]])
        return {self._model.body(other).name if other else TABLE for other in others.tolist()}


def _compile(objects: list[PlacedObject], grasp: Grasp, gripper: Gripper, approach_m: float) -> Any:
    """Compile the MuJoCo model; the bodies of objects are named by their indices."""
    spec = mj.MjSpec()
    spec.option.timestep, spec.option.integrator = PARAMETERS.step_s, mj.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone, spec.option.impratio = mj.mjtCone.mjCONE_ELLIPTIC, 10
    spec.default.geom.solref = [2.5 * PARAMETERS.step_s, 1]
    spec.default.geom.friction, spec.default.geom.condim = PARAMETERS.friction, 6
    spec.worldbody.add_geom(type=mj.mjtGeom.mjGEOM_PLANE, size=[3, 3, 0.1])
    for index, obj in enumerate(objects):
        _add_object(spec, str(index), obj)
    _add_hand(spec, grasp, gripper, approach_m)
    model = spec.compile()
    for index in range(len(objects)):
        body = model.body(str(index)).id
        scale = min(1.0, PARAMETERS.most_kg / model.body_mass[body])
        model.body_mass[body] *= scale
        model.body_inertia[body] *= scale
    mj.mj_setConst(model, mj.MjData(model))
    return model


def _add_object(spec: Any, name: str, obj: PlacedObject) -> None:
    body = spec.worldbody.add_body(name=name, pos=obj.position, quat=_quaternion_wxyz(obj.rotation))
    body.add_freejoint()
    for number, corners in enumerate(convex_pieces(obj.shape)):
        mesh = f'{name}.{number}'
        scaled = (corners * obj.scale).ravel()
        spec.add_mesh(name=mesh, uservert=scaled, inertia=mj.mjtMeshInertia.mjMESH_INERTIA_CONVEX)
        body.add_geom(type=mj.mjtGeom.mjGEOM_MESH, meshname=mesh, density=DENSITY[obj.material])


def _add_hand(spec: Any, grasp: Grasp, gripper: Gripper, approach_m: float) -> None:
    """Add the hand at the start of its approach.

    Its frame is that of the grasp: x from finger to finger, z ahead, the fingertips at z = 0.
    """
    start = grasp.position - approach_m * grasp.rotation[:, 2]
    palm = spec.worldbody.add_body(name=PALM, pos=start, quat=_quaternion_wxyz(grasp.rotation), gravcomp=1)
    slide, box = mj.mjtJoint.mjJNT_SLIDE, mj.mjtGeom.mjGEOM_BOX
    palm.add_joint(name='hand', type=slide, axis=[0, 0, 1])
    half = np.array([gripper.opening_m / 2 + gripper.thickness_m, gripper.palm_m / 2, 0.01])
    palm.add_geom(type=box, size=half, pos=[0, 0, -gripper.length_m - half[2]], mass=0.5)
    for name, side in ((LEFT, -1), (RIGHT, 1)):
        center = [side * (gripper.opening_m + gripper.thickness_m) / 2, 0, -gripper.length_m / 2]
        finger = palm.add_body(name=name, pos=center, gravcomp=1)
        finger.add_joint(
            name=name,
            type=slide,
            axis=[-side, 0, 0],
            limited=True,
            range=[0, gripper.opening_m / 2],
            armature=PARAMETERS.finger_kg,
        )
        size = [gripper.thickness_m / 2, gripper.finger_m / 2, gripper.length_m / 2]
        finger.add_geom(type=box, size=size, mass=0.1, friction=PARAMETERS.pad_friction, priority=1)
    coupling = spec.add_equality(
        type=mj.mjtEq.mjEQ_JOINT,
        objtype=mj.mjtObj.mjOBJ_JOINT,
        name1=LEFT,
        name2=RIGHT,
        solref=[2.5 * PARAMETERS.step_s, 1],
    )
    # Coefficients of a polynomial: both joints have equal positions.
    coupling.data = np.eye(1, len(coupling.data), 1)[0]
    _add_actuator(spec, 'hand', PARAMETERS.press_n).set_to_position(kp=6000, kv=150)
    for name in (LEFT, RIGHT):
        _add_actuator(spec, name, PARAMETERS.close_n).set_to_velocity(kv=300)


def _add_actuator(spec: Any, joint: str, most_n: float) -> Any:
    return spec.add_actuator(name=joint, target=joint, forcerange=[-most_n, most_n], trntype=mj.mjtTrn.mjTRN_JOINT)


def _quaternion_wxyz(rotation: np.ndarray) -> np.ndarray:
    """Return the quaternion of a rotation matrix in MuJoCo's order (w, x, y, z)."""
    return matrix_to_quaternion(rotation)[[3, 0, 1, 2]]
