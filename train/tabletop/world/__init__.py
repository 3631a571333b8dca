"""The objects of the tabletop world: categories, shapes, materials and dataset splits."""
