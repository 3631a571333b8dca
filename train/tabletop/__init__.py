"""The tabletop world: rendered scenes of household objects and instructions about them, with exact answers.

catalog, shapes, meshes, looks, textures   what there is and how it looks
layout, room                               what stands where, and in what surroundings
render, sensor, scene                      the picture, depth and masks: `scene.scene(split, index, seed)`
program, relations                         what an instruction means
intents, words, drafts, instructions       how it is said: `instructions.instructions(scene)`, `.concepts(scene)`
records, generate, splits, page            files for training, the splits, a page to look at
workers, command                           processes that draw, and `instructsam tabletop`
"""
