"""COCO's own mask AP through pycocotools, beside the pooled one: 101 recall points, at most 100 predictions a query."""

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def coco_average_precision(queries):
    """{'coco_AP', 'coco_AP50', 'coco_AP75'} of metrics.Compared, shares: each query is an image, all objects one class.

    What the objects of a picture are called differs from query to query, so that there are no classes to average over.
    Empty where no query has a target.
    """
    if not any(query.targets for query in queries):
        return {}
    truth = [{'image_id': index, 'iscrowd': 0} for index, query in enumerate(queries) for _ in range(query.targets)]
    found = [{'image_id': index, 'score': score} for index, query in enumerate(queries) for score in query.scores]
    with contextlib.redirect_stdout(io.StringIO()):  # it tells how it gets on
        evaluation = _Evaluation(_coco(len(queries), truth), _coco(len(queries), found), queries)
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ['all']
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval['precision'][:, :, 0, 0, -1]  # [IoU, recall]
    at = {round(float(iou), 2): index for index, iou in enumerate(evaluation.params.iouThrs)}
    values = {'coco_AP': precision, 'coco_AP50': precision[at[0.5]], 'coco_AP75': precision[at[0.75]]}
    return {name: float(value.mean()) for name, value in values.items()}


def _coco(images, annotations):
    """Pycocotools' data set of one class; areas do not count here."""
    made = COCO()
    made.dataset = {
        'images': [{'id': index} for index in range(images)],
        'categories': [{'id': 1}],
        'annotations': [{**one, 'id': id, 'category_id': 1, 'area': 1} for id, one in enumerate(annotations, 1)],
    }
    made.createIndex()
    return made


class _Evaluation(COCOeval):
    """With the IoUs of masks that are known already; 'bbox' keeps pycocotools from looking for the masks."""

    def __init__(self, truth, found, queries):
        super().__init__(truth, found, 'bbox')
        self._queries = queries

    def computeIoU(self, imgId, catId):
        """[predictions, best scored first, targets]"""
        query = self._queries[imgId]
        if not query.ious.size:
            return []
        order = np.argsort(-query.scores, kind='mergesort')[: self.params.maxDets[-1]]
        return query.ious[order]
