"""Colour, depth and instance ids of a list of geoms, rendered off screen by MuJoCo's OpenGL renderer.

MuJoCo stores the meshes and textures, compiled once. The geoms, lights and camera of an image are written into its
abstract scene, so that nothing is recompiled and no physics is simulated.
"""

import atexit
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike

from instructsam.train.tabletop.world.meshes import Mesh

NEAR_M, FAR_M = 0.08, 12.0  # distances of the clipping planes
SHADOW_HALF_WIDTH_M = 0.9  # half the side of the square around the origin that the shadow maps cover
SHADOW_PX = 640  # side of the shadow maps
# Colour images are rendered larger by this factor and downsampled, which is smoother than four samples per pixel and
# takes half the time.
SUPERSAMPLING = 1.5
# Surfaces shadow themselves in stripes (shadow acne) unless the caster lies a little behind the receiver, and MuJoCo's
# offset is too small for that: invisible copies of the objects, moved away from the light, cast the shadows.
SHADOW_BIAS_M = 0.006
GLASS_EMISSION = 0.35  # replaces the light from shadow-casting lights, which transparent geoms do not receive
MAX_GEOMS = 400
MAX_LIGHTS = 8  # limit of OpenGL's fixed pipeline


@dataclass(frozen=True, eq=False)
class Geom:
    """One painted mesh; a vertex v is drawn at `matrix @ v + position`.

    Attributes:
        mesh: Name of the mesh.
        position: [3] m.
        matrix: [3, 3], rotation and scale.
        color: RGBA, 0 to 1.
        texture: Name of the texture, or ''.
        specular: Specular reflectance, 0 to 1.
        shininess: 0 to 1.
        owner: Index of the object that it is a part of, or -1 for the surroundings.
        casts_shadow: Whether it casts a shadow.
    """

    mesh: str
    position: np.ndarray
    matrix: np.ndarray
    color: tuple[float, ...]
    texture: str = ''
    specular: float = 0.0
    shininess: float = 0.1
    owner: int = -1
    casts_shadow: bool = False


@dataclass(frozen=True, eq=False)
class Light:
    """A directional light that shines along `direction` [3]; the colours are RGB [3] from 0 to 1."""

    direction: np.ndarray
    diffuse: np.ndarray
    specular: np.ndarray
    ambient: np.ndarray
    casts_shadow: bool = False


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera with square pixels and its principal point in the middle of the image.

    Attributes:
        width: px.
        height: px.
        focal_px: Focal length.
        position: [3] m in the world.
        rotation: [3, 3], the axes of the optical frame (right, down, forward) in the world as columns.
    """

    width: int
    height: int
    focal_px: float
    position: np.ndarray
    rotation: np.ndarray

    @property
    def intrinsics(self) -> np.ndarray:
        """Camera matrix K [3, 3] for pixel centres at integer coordinates."""
        return np.array(
            [[self.focal_px, 0, (self.width - 1) / 2], [0, self.focal_px, (self.height - 1) / 2], [0, 0, 1.0]]
        )

    def to_camera(self, points: ArrayLike) -> np.ndarray:
        """Transform points [N, 3] m from the world into the optical frame, [N, 3] m."""
        return (np.asarray(points) - self.position) @ self.rotation

    def project(self, points: ArrayLike) -> np.ndarray:
        """Project points [N, 3] m in the world to pixels [N, 2] (x, y)."""
        local = self.to_camera(points)
        return local[:, :2] / local[:, 2:] * self.focal_px + np.array(((self.width - 1) / 2, (self.height - 1) / 2))

    def on_table(self, pixel: Sequence[float] | np.ndarray) -> np.ndarray | None:
        """Return the point [3] m where the ray through `pixel` (x, y) meets z = 0, or None above the horizon."""
        ray = self.rotation @ np.linalg.solve(self.intrinsics, (*pixel, 1.0))
        if ray[2] > -1e-3:
            return None
        return self.position - ray * (self.position[2] / ray[2])

    def scaled(self, factor: float) -> 'Camera':
        """Return a camera with the same view and `factor` times the width and height."""
        width, height = round(self.width * factor), round(self.height * factor)
        return Camera(width, height, self.focal_px * width / self.width, self.position, self.rotation)

    def padded(self, pixels: int) -> 'Camera':
        """Return a camera that sees `pixels` more on every side."""
        return Camera(self.width + 2 * pixels, self.height + 2 * pixels, self.focal_px, self.position, self.rotation)


@dataclass(frozen=True, eq=False)
class _StoredMesh:
    """A mesh of the model: MuJoCo moves its centre of mass to the origin, `rotation` and `offset` undo that."""

    index: int
    rotation: np.ndarray
    offset: np.ndarray


class Renderer:
    """Off-screen renderer with one OpenGL context."""

    def __init__(self, meshes: Mapping[str, Mesh], textures: Mapping[str, np.ndarray], width: int, height: int) -> None:
        """Compile the meshes and textures and open the context.

        Args:
            meshes: The meshes by name.
            textures: [N, N, 3] uint8 by name; `set_texture` replaces them by others of the same size.
            width: Largest width of an image, px.
            height: Largest height of an image, px.

        Raises:
            ImportError: MuJoCo is not installed.
            RuntimeError: OpenGL does not work.
        """
        try:
            import mujoco  # noqa: PLC0415  # everything except rendering works without MuJoCo
        except ImportError as error:
            raise ImportError('drawing the tabletop world needs MuJoCo: pip install "mujoco>=3.5"') from error

        self._mj: Any = mujoco  # compiled modules without type stubs
        self._process = os.getpid()
        self._model = _compile(mujoco, meshes, textures, width, height)
        self._context: Any
        self._gl: Any
        self._context, self._gl = _open_context(mujoco, self._model, width, height)
        self._size = (width, height)
        self._scene = self._mj.MjvScene(self._model, maxgeom=MAX_GEOMS)
        self._meshes = {name: self._stored_mesh(index) for index, name in enumerate(meshes)}
        self._textures = {name: index for index, name in enumerate(textures)}
        atexit.register(self.close)  # OSMesa prints errors if its context outlives the interpreter's modules

    def _stored_mesh(self, index: int) -> _StoredMesh:
        matrix = np.zeros(9)
        self._mj.mju_quat2Mat(matrix, self._model.mesh_quat[index])
        return _StoredMesh(index, matrix.reshape(3, 3), self._model.mesh_pos[index].copy())

    def close(self) -> None:
        """Free the OpenGL context; the renderer cannot be used afterwards."""
        if self._context is not None and os.getpid() == self._process:
            self._context.free()
            self._gl.free()
            self._context = self._gl = None

    def set_texture(self, name: str, image: np.ndarray) -> None:
        """Replace a texture by `image` [N, N, 3] uint8 of the same size."""
        index = self._textures[name]
        start = self._model.tex_adr[index]
        shape = (self._model.tex_height[index], self._model.tex_width[index], self._model.tex_nchannel[index])
        if image.shape != shape:
            raise ValueError(f'texture {name!r} has shape {shape}, got an image of shape {image.shape}')
        self._model.tex_data[start : start + image.size] = image.ravel()
        self._gl.make_current()
        self._mj.mjr_uploadTexture(self._model, self._context, index)

    def color(self, geoms: Sequence[Geom], lights: Sequence[Light], camera: Camera) -> np.ndarray:
        """Render a colour image [H, W, 3] uint8; geoms with `casts_shadow` cast shadows on everything."""
        if len(lights) > MAX_LIGHTS:
            raise ValueError(f'OpenGL has {MAX_LIGHTS} lights, got {len(lights)}')
        sun = np.sum([light.direction for light in lights if light.casts_shadow], axis=0)
        away = SHADOW_BIAS_M * sun / max(np.linalg.norm(sun), 1e-9)
        casters = [
            replace(geom, position=geom.position + away, color=(0, 0, 0, 0), texture='')
            for geom in geoms
            if geom.casts_shadow
        ]
        larger = camera.scaled(SUPERSAMPLING)
        self._fill([*geoms, *casters], larger)
        for light, target in zip(lights, self._scene.lights, strict=False):  # the scene has more lights than are used
            self._set_light(light, target)
        self._scene.nlight = len(lights)
        self._set_flags('SHADOW')
        rgb, _ = self._draw(larger)
        return cv2.resize(rgb, (camera.width, camera.height), interpolation=cv2.INTER_AREA)

    def ids(self, geoms: Sequence[Geom], camera: Camera) -> tuple[np.ndarray, np.ndarray]:
        """Render instance ids and depth.

        Returns:
            The owner of the visible geom, [H, W] int16, -1 where there is no object, and the depth along the optical
            axis, [H, W] float32 m.
        """
        rgb, z = self._draw_ids(geoms, camera)
        near, far = np.float64(NEAR_M), np.float64(FAR_M)
        return _owners(rgb), (near * far / (near + z * (far - near))).astype(np.float32)

    def owners(self, geoms: Sequence[Geom], camera: Camera) -> np.ndarray:
        """Render the instance ids only, [H, W] int16."""
        return _owners(self._draw_ids(geoms, camera)[0])

    def _draw_ids(self, geoms: Sequence[Geom], camera: Camera) -> tuple[np.ndarray, np.ndarray]:
        self._fill(geoms, camera)
        self._scene.nlight = 0
        self._set_flags('SEGMENT', 'IDCOLOR')
        return self._draw(camera)

    def _draw(self, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
        """Render the filled scene: RGB [H, W, 3] uint8 and the depth buffer [H, W] float32 (0 at the far plane)."""
        rect = self._mj.MjrRect(0, 0, camera.width, camera.height)
        rgb = np.empty((camera.height, camera.width, 3), np.uint8)
        z = np.empty((camera.height, camera.width), np.float32)
        self._gl.make_current()
        self._mj.mjr_render(rect, self._scene, self._context)
        self._mj.mjr_readPixels(rgb, z, rect, self._context)
        return rgb[::-1], z[::-1]  # OpenGL's first row is the lowest

    def _set_flags(self, *names: str) -> None:
        """Set the rendering flags `names` and clear all others."""
        for name in ('SHADOW', 'REFLECTION', 'SKYBOX', 'FOG', 'HAZE', 'SEGMENT', 'IDCOLOR'):
            self._scene.flags[getattr(self._mj.mjtRndFlag, f'mjRND_{name}')] = name in names

    def _fill(self, geoms: Sequence[Geom], camera: Camera) -> None:
        """Write the geoms and the camera into MuJoCo's abstract scene."""
        if camera.width > self._size[0] or camera.height > self._size[1]:
            raise ValueError(
                f'the renderer was made for {self._size[0]} x {self._size[1]} px, '
                f'the camera has {camera.width} x {camera.height}'
            )
        mj, scene = self._mj, self._scene
        for geom, target in zip(geoms, scene.geoms, strict=False):  # the scene has more geoms than are used
            mesh = self._meshes[geom.mesh]
            position = geom.matrix @ mesh.offset + geom.position
            matrix = (geom.matrix @ mesh.rotation).ravel()
            color = np.asarray(geom.color, np.float32)
            mj.mjv_initGeom(target, mj.mjtGeom.mjGEOM_MESH, np.zeros(3), position, matrix, color)
            target.dataid = 2 * mesh.index  # odd indices are convex hulls
            target.objtype, target.objid, target.segid = mj.mjtObj.mjOBJ_GEOM, geom.owner, geom.owner + 1
            is_caster = color[3] == 0  # MuJoCo lets everything but decoration cast shadows
            target.category = mj.mjtCatBit.mjCAT_DYNAMIC if is_caster else mj.mjtCatBit.mjCAT_DECOR
            target.specular, target.shininess = geom.specular, geom.shininess
            target.matid = self._textures.get(geom.texture, -1)
            if hasattr(target, 'texid'):  # a field of MuJoCo 4
                target.texid = target.matid
            target.texcoord = 1
            target.emission = GLASS_EMISSION if 0 < color[3] < 1 else 0.0
        scene.ngeom = len(geoms)
        for eye in scene.camera:
            eye.pos, eye.forward, eye.up = camera.position, camera.rotation[:, 2], -camera.rotation[:, 1]
            eye.frustum_near, eye.frustum_far, eye.frustum_center = NEAR_M, FAR_M, 0
            eye.frustum_top = NEAR_M * camera.height / 2 / camera.focal_px
            eye.frustum_bottom = -eye.frustum_top
            eye.frustum_width = NEAR_M * camera.width / 2 / camera.focal_px
            eye.orthographic = 0

    def _set_light(self, light: Light, target: Any) -> None:
        target.type = self._mj.mjtLightType.mjLIGHT_DIRECTIONAL
        direction = np.asarray(light.direction) / np.linalg.norm(light.direction)
        target.dir, target.pos = direction, -direction * 2.5
        target.diffuse, target.specular, target.ambient = light.diffuse, light.specular, light.ambient
        target.attenuation, target.cutoff, target.exponent = (1, 0, 0), 90, 0
        target.castshadow, target.headlight = light.casts_shadow, 0


def _owners(rgb: np.ndarray) -> np.ndarray:
    """Decode an image rendered with the flag IDCOLOR: object indices [H, W] int16, -1 where there is none."""
    return rgb[..., 0].astype(np.int16) - 2


def _compile(mj: Any, meshes: Mapping[str, Mesh], textures: Mapping[str, np.ndarray], width: int, height: int) -> Any:
    """Compile a model that holds the meshes and textures; material i shows texture i."""
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


def _open_context(mj: Any, model: Any, width: int, height: int) -> tuple[Any, Any]:
    """Open an off-screen OpenGL context; return MuJoCo's rendering context and the OpenGL context."""
    backend = os.environ.get('MUJOCO_GL', 'osmesa').lower()
    if backend not in ('osmesa', 'egl'):
        raise RuntimeError(
            f'MUJOCO_GL is {backend!r}; scenes are drawn off screen: set it to osmesa (the default) or egl'
        )
    try:
        gl = import_module(f'mujoco.{backend}').GLContext(width, height)
    except (ImportError, AttributeError, OSError) as error:  # PyOpenGL raises any of them if the library is missing
        raise RuntimeError(
            f'no OpenGL through {backend}: install libosmesa6 and libgl1-mesa-dri, or set MUJOCO_GL=egl'
        ) from error
    gl.make_current()
    context = mj.MjrContext(model, mj.mjtFontScale.mjFONTSCALE_50)
    mj.mjr_setBuffer(mj.mjtFramebuffer.mjFB_OFFSCREEN, context)
    context.readDepthMap = mj.mjtDepthMap.mjDEPTH_ZEROFAR
    return context, gl
