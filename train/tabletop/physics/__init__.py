"""Physics of the tabletop world: a simulated parallel gripper."""
