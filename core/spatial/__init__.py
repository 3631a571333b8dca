"""3D from masks and depth: camera model, object geometry, grasp candidates and multi-object tracking."""
