"""The benchmark `real`: instructions about photographs of household objects, with exact masks.

stamps      the photographs, cut-outs of single objects from a package
composite   an image of several of them on a photographed surface
questions   instructions about such an image
photo       a photograph of a box of objects with hand-made masks
source      all of it as images and queries
"""
