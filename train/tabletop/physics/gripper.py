"""Does a grasp hold? A parallel gripper in MuJoCo closes on an object of the tabletop world and lifts it: `lifts`.

Pure physics, nothing is drawn: the things of a scene are rigid bodies of convex pieces, the table is a plane. The hand
slides along the direction of approach, its two fingers are coupled and close towards each other, all with bounded
forces. The same call, the same outcome.
"""

from dataclasses import dataclass

import mujoco as mj
import numpy as np
from scipy.spatial.transform import Rotation

from instructsam.core.spatial.grasping import Gripper
from instructsam.train.tabletop.world.solids import solid

LIFT_M, LEAST_M = 0.10, 0.05  # how far the hand goes up, and how far the target must
SETTLE_S, CLOSE_S, HOLD_S = 0.2, 0.6, 0.3
HAND_M_S, FINGERS_M_S = 0.25, 0.15
PRESS_N, CARRY_N, CLOSE_N = 20.0, 60.0, 40.0  # of the hand down and up, and of each finger
FINGER_KG = 1.0  # what the motor has to move, geared
REACHED_M = 0.004  # from its place, where the hand has come down
STEEP = 0.7  # of the approach, least share downwards
STEP_S = 0.002
# kg/m3 of the pieces, and what nothing weighs more than: solid teapots and bottles would
DENSITY = {
    'ceramic': 2200, 'glass': 2400, 'metal': 2700, 'enamel': 1000, 'plastic': 900, 'wood': 650, 'cardboard': 250,
    'paper': 600, 'rubber': 300, 'foam': 60, 'skin': 900,
}  # fmt: skip
MOST_KG = 0.6
# sliding, turning [m], rolling [m], as MuJoCo has it. Scenes are laid out without physics: what is round would roll
# away before it is touched, so things do not roll. The pads' own values hold for what they touch.
FRICTION, PADS = (0.5, 0.02, 0.02), (0.9, 0.01, 0.0005)
LEFT, RIGHT, PALM, TABLE = 'left', 'right', 'palm', 'table'


@dataclass(frozen=True)
class Lift:
    """How a grasp went. reason: 'lifted'; or 'not from above', 'hits the table', 'hits a neighbour', 'hits the object'
    (the hand could not come down), 'nothing between the fingers', 'another object', 'slipped'.
    """

    reason: str

    @property
    def success(self):
        return self.reason == 'lifted'


def lifts(things, target, grasp, gripper=Gripper()):
    """Whether the gripper, closing at `grasp`, lifts the thing number `target` by 5 cm and still holds it: a Lift.

    things: list of layout.Thing, as `scene.staged` gives them; grasp: a grasping.Grasp in the world's frame, z up, the
    table's top at 0. Raises IndexError: there is no such thing.
    """
    if not 0 <= target < len(things):
        raise IndexError(f'there is no thing {target}: the scene has {len(things)}')
    if -grasp.rotation[2, 2] < STEEP:
        return Lift('not from above')
    return _Trial(things, target, grasp, gripper).outcome()


class _Trial:
    """One simulation."""

    def __init__(self, things, target, grasp, gripper):
        self._target = str(target)
        top = max(thing.corners[:, 2].max() for thing in things)
        self._way_m = max(0.02, (top + 0.01 - grasp.position[2]) / -grasp.rotation[2, 2])
        self._model = _model(things, grasp, gripper, self._way_m)
        self._data = mj.MjData(self._model)
        self._data.qpos[[-2, -1]] = max(0.0, gripper.opening_m - grasp.opening_m) / 2
        self._hand, self._fingers = [0], [1, 2]  # of the actuators

    def outcome(self):
        self._run(SETTLE_S)
        before_m = self._height()
        self._move(self._way_m, PRESS_N)
        if self._data.joint('hand').qpos[0] < self._way_m - REACHED_M:
            touched = self._touched(LEFT) | self._touched(RIGHT) | self._touched(PALM)
            if self._target in touched:
                return Lift('hits the object')
            return Lift('hits the table' if TABLE in touched else 'hits a neighbour')
        self._data.ctrl[self._fingers] = FINGERS_M_S
        self._run(CLOSE_S)
        held = self._touched(LEFT) & self._touched(RIGHT)
        if self._target not in held:
            return Lift('another object' if held - {LEFT, RIGHT, TABLE} else 'nothing between the fingers')
        self._move(self._way_m - LIFT_M, CARRY_N)
        self._run(HOLD_S)
        held = self._touched(LEFT) & self._touched(RIGHT)
        return Lift('lifted' if self._target in held and self._height() > before_m + LEAST_M else 'slipped')

    def _height(self):
        return self._data.body(self._target).xipos[2]

    def _move(self, goal_m, most_n):
        """The hand to goal_m along its way, evenly, and a little time for it to come to rest there."""
        self._model.actuator_forcerange[self._hand] = -most_n, most_n
        start_m = self._data.ctrl[self._hand][0]
        steps = max(1, round(abs(goal_m - start_m) / (HAND_M_S * STEP_S)))
        for place_m in np.linspace(start_m, goal_m, steps + 1)[1:]:
            self._data.ctrl[self._hand] = place_m
            mj.mj_step(self._model, self._data)
        self._run(0.1)

    def _run(self, time_s):
        mj.mj_step(self._model, self._data, round(time_s / STEP_S))

    def _touched(self, name):
        """Names of the bodies that touch the body `name`."""
        own, bodies = self._model.body(name).id, self._model.geom_bodyid[self._data.contact.geom]
        other = np.concatenate([bodies[bodies[:, 0] == own, 1], bodies[bodies[:, 1] == own, 0]])
        return {self._model.body(body).name if body else TABLE for body in other.tolist()}


def _model(things, grasp, gripper, way_m):
    """The MuJoCo model: bodies are named by their thing's index, the hand's by the constants above."""
    spec = mj.MjSpec()
    spec.option.timestep, spec.option.integrator = STEP_S, mj.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone, spec.option.impratio = mj.mjtCone.mjCONE_ELLIPTIC, 10
    spec.default.geom.solref = [2.5 * STEP_S, 1]
    spec.default.geom.friction, spec.default.geom.condim = FRICTION, 6
    spec.worldbody.add_geom(type=mj.mjtGeom.mjGEOM_PLANE, size=[3, 3, 0.1])
    for index, thing in enumerate(things):
        _add_thing(spec, str(index), thing)
    _add_hand(spec, grasp, gripper, way_m)
    model = spec.compile()
    for index in range(len(things)):
        body = model.body(str(index)).id
        share = min(1.0, MOST_KG / model.body_mass[body])
        model.body_mass[body] *= share
        model.body_inertia[body] *= share
    mj.mj_setConst(model, mj.MjData(model))
    return model


def _add_thing(spec, name, thing):
    body = spec.worldbody.add_body(name=name, pos=thing.position, quat=_quaternion(thing.turn))
    body.add_freejoint()
    for number, corners in enumerate(solid(thing.shape)):
        mesh = f'{name}.{number}'
        scaled = (corners * thing.scale).ravel()
        spec.add_mesh(name=mesh, uservert=scaled, inertia=mj.mjtMeshInertia.mjMESH_INERTIA_CONVEX)
        body.add_geom(type=mj.mjtGeom.mjGEOM_MESH, meshname=mesh, density=DENSITY[thing.material])


def _add_hand(spec, grasp, gripper, way_m):
    """The hand before its way down. Its frame is the grasp's: x from finger to finger, z ahead, fingertips at 0."""
    start = grasp.position - way_m * grasp.rotation[:, 2]
    palm = spec.worldbody.add_body(name=PALM, pos=start, quat=_quaternion(grasp.rotation), gravcomp=1)
    slide, box = mj.mjtJoint.mjJNT_SLIDE, mj.mjtGeom.mjGEOM_BOX
    palm.add_joint(name='hand', type=slide, axis=[0, 0, 1])
    half = np.array([gripper.opening_m / 2 + gripper.thickness_m, gripper.palm_m / 2, 0.01])
    palm.add_geom(type=box, size=half, pos=[0, 0, -gripper.length_m - half[2]], mass=0.5)
    for name, side in ((LEFT, -1), (RIGHT, 1)):
        place = [side * (gripper.opening_m + gripper.thickness_m) / 2, 0, -gripper.length_m / 2]
        finger = palm.add_body(name=name, pos=place, gravcomp=1)
        finger.add_joint(
            name=name,
            type=slide,
            axis=[-side, 0, 0],
            limited=True,
            range=[0, gripper.opening_m / 2],
            armature=FINGER_KG,
        )
        size = [gripper.thickness_m / 2, gripper.finger_m / 2, gripper.length_m / 2]
        finger.add_geom(type=box, size=size, mass=0.1, friction=PADS, priority=1)
    same = spec.add_equality(
        type=mj.mjtEq.mjEQ_JOINT, objtype=mj.mjtObj.mjOBJ_JOINT, name1=LEFT, name2=RIGHT, solref=[2.5 * STEP_S, 1]
    )
    same.data = np.eye(1, len(same.data), 1)[0]  # of a polynomial: the one is 1 x the other
    joint = {'trntype': mj.mjtTrn.mjTRN_JOINT}
    spec.add_actuator(name='hand', target='hand', forcerange=[-PRESS_N, PRESS_N], **joint).set_to_position(
        kp=6000, kv=150
    )
    for name in (LEFT, RIGHT):
        spec.add_actuator(name=name, target=name, forcerange=[-CLOSE_N, CLOSE_N], **joint).set_to_velocity(kv=300)


def _quaternion(rotation):
    """[w, x, y, z] of [3, 3]."""
    return Rotation.from_matrix(rotation).as_quat()[[3, 0, 1, 2]]
