"""Pictures of a list of geoms: colour, depth and instance ids, drawn by MuJoCo's OpenGL renderer off screen.

MuJoCo serves as a store of meshes and textures, compiled once; what is drawn, where, how large and in which colour
is written into its abstract scene for every picture, so that nothing is recompiled and nothing is simulated.
"""

import atexit
import os
from dataclasses import dataclass, replace
from importlib import import_module

import cv2
import numpy as np

NEAR_M, FAR_M = 0.08, 12.0
SHADOW_HALF_WIDTH_M, SHADOW_PX = 0.9, 640
FINER = 1.5  # pictures are drawn larger and shrunk: smoother than four samples a pixel, at half the time
# Surfaces shade themselves in stripes unless what casts the shadow lies a little behind what receives it, and
# MuJoCo's own offset is too small for that: unseen copies of the objects, moved away from the light, cast for them.
SHADOW_BIAS_M = 0.006
GLASS_GLOW = 0.35  # transparent geoms receive no light that casts shadows; this stands in for it
MAX_GEOMS = 400
IDENTITY = np.eye(3)


@dataclass(frozen=True, eq=False)
class Geom:
    """One painted mesh: vertices are mapped by `matrix` [3, 3] (rotation and scale) and moved by `position` [3] m.

    color: RGBA from 0 to 1; texture: name or ''; owner: -1 for the surroundings, else the index of an object; casts:
    whether it throws shadows.
    """

    mesh: str
    position: np.ndarray
    matrix: np.ndarray
    color: tuple
    texture: str = ''
    specular: float = 0.0
    shininess: float = 0.1
    owner: int = -1
    casts: bool = False


@dataclass(frozen=True, eq=False)
class Light:
    """A distant light shining along `direction` [3]; colours [3] from 0 to 1."""

    direction: np.ndarray
    diffuse: np.ndarray
    specular: np.ndarray
    ambient: np.ndarray
    shadow: bool = False


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole: focal length in px, square pixels, centre of the image (width - 1) / 2, (height - 1) / 2.

    rotation [3, 3] has the camera's axes (right, down, forward: the optical frame) as columns in world coordinates;
    position [3] m.
    """

    width: int
    height: int
    focal_px: float
    position: np.ndarray
    rotation: np.ndarray

    @property
    def intrinsics(self):
        """K [3, 3] for pixel centres at integer coordinates."""
        return np.array(
            [[self.focal_px, 0, (self.width - 1) / 2], [0, self.focal_px, (self.height - 1) / 2], [0, 0, 1.0]]
        )

    def to_camera(self, points):
        """World points [N, 3] in the optical frame, [N, 3] m."""
        return (np.asarray(points) - self.position) @ self.rotation

    def project(self, points):
        """World points [N, 3] to pixels [N, 2] (x, y)."""
        local = self.to_camera(points)
        return local[:, :2] / local[:, 2:] * self.focal_px + ((self.width - 1) / 2, (self.height - 1) / 2)

    def on_table(self, pixel):
        """Where the ray through `pixel` (x, y) meets z = 0, [3] m, or None above the horizon."""
        ray = self.rotation @ np.linalg.solve(self.intrinsics, (*pixel, 1.0))
        if ray[2] > -1e-3:
            return None
        return self.position - ray * (self.position[2] / ray[2])

    def scaled(self, factor):
        """The same view in `factor` times as many pixels each way."""
        width, height = round(self.width * factor), round(self.height * factor)
        return Camera(width, height, self.focal_px * width / self.width, self.position, self.rotation)

    def padded(self, pixels):
        """The same camera with `pixels` more on every side."""
        return Camera(self.width + 2 * pixels, self.height + 2 * pixels, self.focal_px, self.position, self.rotation)


class Renderer:
    """Draws with the given meshes and textures; one OpenGL context, made for at most `width` x `height` px.

    meshes: name -> Mesh; textures: name -> [N, N, 3] uint8, replaceable later by arrays of the same size.
    """

    def __init__(self, meshes, textures, width, height):
        try:
            import mujoco  # here, for everything but drawing works without it
        except ImportError as error:
            raise ImportError('drawing the tabletop world needs MuJoCo: pip install "mujoco>=3.5"') from error

        self._mj, self._process = mujoco, os.getpid()
        self._model = _compile(mujoco, meshes, textures, width, height)
        self._context, self._gl = _open_context(mujoco, self._model, width, height)
        self._size = (width, height)
        self._scene = mujoco.MjvScene(self._model, maxgeom=MAX_GEOMS)
        self._meshes = {name: self._stored(index) for index, name in enumerate(meshes)}
        self._textures = {name: index for index, name in enumerate(textures)}
        atexit.register(self.close)  # OSMesa complains when its context outlives the interpreter's modules

    def _stored(self, index):
        """MuJoCo moves a mesh to its centre of mass: (index, rotation, offset) to undo it."""
        turn = np.zeros(9)
        self._mj.mju_quat2Mat(turn, self._model.mesh_quat[index])
        return index, turn.reshape(3, 3), self._model.mesh_pos[index].copy()

    def close(self):
        """Free the OpenGL context; the renderer cannot be used afterwards."""
        if self._context is not None and os.getpid() == self._process:
            self._context.free()
            self._gl.free()
            self._context = self._gl = None

    def set_texture(self, name, image):
        """Replace a texture by `image` [N, N, 3] uint8 of the same size."""
        index = self._textures[name]
        start = self._model.tex_adr[index]
        shape = (self._model.tex_height[index], self._model.tex_width[index], self._model.tex_nchannel[index])
        if image.shape != shape:
            raise ValueError(f'texture {name!r} is {shape}, got an image {image.shape}')
        self._model.tex_data[start : start + image.size] = image.ravel()
        self._gl.make_current()
        self._mj.mjr_uploadTexture(self._model, self._context, index)

    def color(self, geoms, lights, camera):
        """A picture, [H, W, 3] uint8. OpenGL has eight lights; shadows fall from opaque objects on everything."""
        if len(lights) > 8:
            raise ValueError(f'OpenGL has 8 lights, got {len(lights)}')
        sun = np.sum([light.direction for light in lights if light.shadow], axis=0)
        away = SHADOW_BIAS_M * sun / max(np.linalg.norm(sun), 1e-9)
        casters = [
            replace(geom, position=geom.position + away, color=(0, 0, 0, 0), texture='') for geom in geoms if geom.casts
        ]
        fine = camera.scaled(FINER)
        self._fill([*geoms, *casters], fine)
        for light, target in zip(lights, self._scene.lights):
            self._set_light(light, target)
        self._scene.nlight = len(lights)
        self._flags(color=True)
        return cv2.resize(self._draw(fine)[0], (camera.width, camera.height), interpolation=cv2.INTER_AREA)

    def ids(self, geoms, camera):
        """Which object is seen where, [H, W] int16, -1 for none, and depth along the optical axis, [H, W] float32 m."""
        rgb, depth = self._draw_ids(geoms, camera, depth=True)
        near, far = np.float64(NEAR_M), np.float64(FAR_M)
        return _owners(rgb), (near * far / (near + depth * (far - near))).astype(np.float32)

    def owners(self, geoms, camera):
        """The first half of what `ids` returns."""
        return _owners(self._draw_ids(geoms, camera)[0])

    def _draw_ids(self, geoms, camera, depth=False):
        self._fill(geoms, camera)
        self._scene.nlight = 0
        self._flags(color=False)
        return self._draw(camera, depth)

    def _draw(self, camera, depth=False):
        rect = self._mj.MjrRect(0, 0, camera.width, camera.height)
        rgb = np.empty((camera.height, camera.width, 3), np.uint8)
        distance = np.empty((camera.height, camera.width), np.float32) if depth else None
        self._gl.make_current()
        self._mj.mjr_render(rect, self._scene, self._context)
        self._mj.mjr_readPixels(rgb, distance, rect, self._context)
        return rgb[::-1], None if distance is None else distance[::-1]  # OpenGL's first row is the lowest

    def _flags(self, color):
        flag = self._mj.mjtRndFlag
        for name in ('SHADOW', 'REFLECTION', 'SKYBOX', 'FOG', 'HAZE', 'SEGMENT', 'IDCOLOR'):
            self._scene.flags[getattr(flag, f'mjRND_{name}')] = (
                (name == 'SHADOW') if color else name in ('SEGMENT', 'IDCOLOR')
            )

    def _fill(self, geoms, camera):
        if camera.width > self._size[0] or camera.height > self._size[1]:
            raise ValueError(f'the renderer was made for {self._size}, the camera has {camera.width} x {camera.height}')
        mj, scene = self._mj, self._scene
        for geom, target in zip(geoms, scene.geoms):
            index, turn, offset = self._meshes[geom.mesh]
            position = geom.matrix @ offset + geom.position
            color = np.asarray(geom.color, np.float32)
            mj.mjv_initGeom(target, mj.mjtGeom.mjGEOM_MESH, np.zeros(3), position, (geom.matrix @ turn).ravel(), color)
            target.dataid = 2 * index  # the odd ones are convex hulls
            target.objtype, target.objid, target.segid = mj.mjtObj.mjOBJ_GEOM, geom.owner, geom.owner + 1
            unseen = color[3] == 0  # a caster; MuJoCo lets everything but decoration cast shadows
            target.category = mj.mjtCatBit.mjCAT_DYNAMIC if unseen else mj.mjtCatBit.mjCAT_DECOR
            target.specular, target.shininess = geom.specular, geom.shininess
            target.matid = self._textures.get(geom.texture, -1)
            if hasattr(target, 'texid'):  # MuJoCo 4
                target.texid = target.matid
            target.texcoord = 1
            target.emission = GLASS_GLOW if 0 < color[3] < 1 else 0.0
        scene.ngeom = len(geoms)
        for eye in scene.camera:
            eye.pos, eye.forward, eye.up = camera.position, camera.rotation[:, 2], -camera.rotation[:, 1]
            eye.frustum_near, eye.frustum_far, eye.frustum_center = NEAR_M, FAR_M, 0
            eye.frustum_top = NEAR_M * camera.height / 2 / camera.focal_px
            eye.frustum_bottom = -eye.frustum_top
            eye.frustum_width = NEAR_M * camera.width / 2 / camera.focal_px
            eye.orthographic = 0

    def _set_light(self, light, target):
        target.type = self._mj.mjtLightType.mjLIGHT_DIRECTIONAL
        direction = np.asarray(light.direction) / np.linalg.norm(light.direction)
        target.dir, target.pos = direction, -direction * 2.5
        target.diffuse, target.specular, target.ambient = light.diffuse, light.specular, light.ambient
        target.attenuation, target.cutoff, target.exponent = (1, 0, 0), 90, 0
        target.castshadow, target.headlight = light.shadow, 0


def _owners(rgb):
    """Object indices [H, W] int16 of a picture drawn with the flag IDCOLOR; -1: none."""
    return rgb[..., 0].astype(np.int16) - 2


def _compile(mj, meshes, textures, width, height):
    """The model that holds the meshes and textures; material i shows texture i."""
    spec = mj.MjSpec()
    spec.visual.global_.offwidth, spec.visual.global_.offheight = width, height
    spec.visual.quality.offsamples, spec.visual.quality.shadowsize = 0, SHADOW_PX
    spec.visual.map.shadowclip = SHADOW_HALF_WIDTH_M
    spec.stat.extent = 1.0
    for name, mesh in meshes.items():
        spec.add_mesh(
            name=name,
            uservert=mesh.vertices.ravel(),
            usernormal=mesh.normals.ravel(),
            usertexcoord=mesh.uv.ravel(),
            userface=mesh.faces.ravel().astype(np.int32),
            inertia=mj.mjtMeshInertia.mjMESH_INERTIA_SHELL,
        )
    for name, image in textures.items():
        texture = spec.add_texture(
            name=name, type=mj.mjtTexture.mjTEXTURE_2D, width=image.shape[1], height=image.shape[0], nchannel=3
        )
        texture.data = image.tobytes()
        material = spec.add_material(name=name)
        material.textures[mj.mjtTextureRole.mjTEXROLE_RGB] = name
    return spec.compile()


def _open_context(mj, model, width, height):
    backend = os.environ.get('MUJOCO_GL', 'osmesa').lower()
    if backend not in ('osmesa', 'egl'):
        raise RuntimeError(
            f'MUJOCO_GL is {backend!r}; scenes are drawn off screen: set it to osmesa (the default) or egl'
        )
    try:
        gl = import_module(f'mujoco.{backend}').GLContext(width, height)
    except (ImportError, AttributeError, OSError) as error:  # what PyOpenGL raises where it finds no library
        raise RuntimeError(
            f'no OpenGL through {backend}: install libosmesa6 and libgl1-mesa-dri, or set MUJOCO_GL=egl'
        ) from error
    gl.make_current()
    context = mj.MjrContext(model, mj.mjtFontScale.mjFONTSCALE_50)
    mj.mjr_setBuffer(mj.mjtFramebuffer.mjFB_OFFSCREEN, context)
    context.readDepthMap = mj.mjtDepthMap.mjDEPTH_ZEROFAR
    return context, gl
