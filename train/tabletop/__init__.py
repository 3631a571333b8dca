"""The tabletop world: rendered scenes of household objects and instructions about them, with exact ground truth.

world       the objects: categories, shapes, materials, textures, dataset splits
scenes      a table with objects in a room, rendered: `scenes.scene.render_scene(split, index, seed)`
language    instructions and answers: `language.instructions.sample_instructions(scene)`
physics     a simulated gripper
command     `instructsam tabletop` with `generate` (training data), `page` (an overview image) and `bag` (a recording)
records     scenes and instructions as JSON
workers     processes that render in parallel
"""
