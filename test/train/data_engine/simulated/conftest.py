"""Fixtures of the simulated annotator: a scene that is drawn without OpenGL."""

import cv2
import numpy as np
import pytest


@pytest.fixture(scope='session')
def drawn_scene():
    """Return a known scene of five rectangles with four questions."""
    from instructsam.core.rle import Rle
    from instructsam.train.data_engine.simulated.world import KnownQuestion, KnownScene

    boxes = {
        0: (10, 10, 40, 50),
        1: (60, 10, 90, 50),
        2: (110, 10, 140, 50),
        3: (20, 70, 70, 100),
        4: (90, 70, 150, 110),
    }
    phrases = {0: 'red mug', 1: 'blue mug', 2: 'green mug', 3: 'red book', 4: 'gray tray'}
    colors = ((200, 40, 40), (40, 60, 200), (40, 160, 60), (180, 30, 60), (120, 120, 120))
    image = np.full((120, 160, 3), 210, np.uint8)
    masks = {}
    for i, (x0, y0, x1, y1) in boxes.items():
        image[y0:y1, x0:x1] = colors[i]
        filled = np.zeros((120, 160), bool)
        filled[y0:y1, x0:x1] = True
        masks[i] = Rle.encode(filled)
    questions = (
        KnownQuestion('Take the red mug.', 'red mug', 'attribute', (0,), ('red book',)),
        KnownQuestion('Where are the mugs?', 'mugs', 'category', (0, 1, 2), ()),
        KnownQuestion('Find both red things.', 'two red objects', 'counting', (0, 3), ()),
        KnownQuestion('Take the yellow mug.', 'yellow mug', 'none', (), ('red mug',)),
    )
    _, jpeg = cv2.imencode('.jpg', image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    decoded = np.ascontiguousarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[..., ::-1])
    return KnownScene('drawn_0', decoded, jpeg.tobytes(), masks, phrases, questions)
