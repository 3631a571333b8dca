"""COCO's own mask AP by pycocotools, beside the pooled AP: 101 recall points, at most 100 predictions per query."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from instructsam.train.evaluation.figures.metrics import MaskMatch


def coco_average_precision(matches: Sequence[MaskMatch]) -> dict[str, float]:
    """Return coco_AP, coco_AP50 and coco_AP75 as shares; empty if no query has a target.

    Each query is one image, and all objects are of one class: the name of an object differs from query to query, so
    that there are no classes to average over.
    """
    if not any(match.num_targets for match in matches):
        return {}
    targets = [{'image_id': i, 'iscrowd': 0} for i, match in enumerate(matches) for _ in range(match.num_targets)]
    predictions = [{'image_id': i, 'score': score} for i, match in enumerate(matches) for score in match.scores]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        evaluation = _Evaluation(_dataset(len(matches), targets), _dataset(len(matches), predictions), matches)
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ['all']
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval['precision'][:, :, 0, 0, -1]  # [IoU, recall]
    index_of = {round(float(iou), 2): index for index, iou in enumerate(evaluation.params.iouThrs)}
    values = {'coco_AP': precision, 'coco_AP50': precision[index_of[0.5]], 'coco_AP75': precision[index_of[0.75]]}
    return {name: float(value.mean()) for name, value in values.items()}


def _dataset(num_images: int, annotations: list[dict[str, Any]]) -> COCO:
    """Return pycocotools' data set of one class. The areas are dummies: all sizes are evaluated together."""
    dataset = COCO()
    # The stubs demand entries that the evaluation does not read, such as the name of a category.
    dataset.dataset = {  # pyright: ignore[reportAttributeAccessIssue]
        'images': [{'id': index} for index in range(num_images)],
        'categories': [{'id': 1}],
        'annotations': [
            {**annotation, 'id': number, 'category_id': 1, 'area': 1}
            for number, annotation in enumerate(annotations, 1)
        ],
    }
    dataset.createIndex()
    return dataset


class _Evaluation(COCOeval):
    """COCO evaluation with given mask IoUs; the type 'bbox' keeps pycocotools from looking for masks."""

    def __init__(self, targets: COCO, predictions: COCO, matches: Sequence[MaskMatch]):
        super().__init__(targets, predictions, 'bbox')
        self._matches = matches

    def computeIoU(self, imgId: int, catId: int):  # noqa: N802, N803 (overrides pycocotools' name)
        """Return the IoUs [predictions by descending score, targets] of one query."""
        match = self._matches[imgId]
        if not match.ious.size:
            return []
        order = np.argsort(-match.scores, kind='mergesort')[: self.params.maxDets[-1]]
        return match.ious[order]
