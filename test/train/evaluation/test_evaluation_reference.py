"""The benchmarks' metrics against recordings of the authors' evaluation code: IoUs to 1e-6, AP to 1e-9.

The folder is $INSTRUCTSAM_REFERENCE or the copy in test/data/reference; its README describes the files.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from instructsam.core.model.grounding import resize_masks
from instructsam.core.rle import Rle
from instructsam.train.evaluation.figures import metrics
from instructsam.train.evaluation.figures.coco_ap import coco_average_precision

OWN = Path(__file__).parents[2] / 'data' / 'reference'
FOLDER = Path(os.environ.get('INSTRUCTSAM_REFERENCE', OWN)) / 'evaluation'
THRESHOLDS = {'inst2seg': 0.3, 'refcoco_ap': 0.3, 'reasonseg': 0.3, 'roborefit': 0.5}


@pytest.fixture(scope='module')
def expected():
    return json.loads((FOLDER / 'expected.json').read_text())


@pytest.fixture(scope='module')
def records():
    return json.loads((FOLDER / 'records.json').read_text())


@pytest.fixture(scope='module')
def predictions(records):
    """The predicted masks and scores of each record by its idx, all groups and slots in order."""
    stored, found = np.load(FOLDER / 'predictions.npz'), {}
    for record in records:
        masks, scores = [], np.zeros(0, np.float32)
        if f'masks_{record["idx"]}' in stored:
            scores = stored[f'scores_{record["idx"]}'].ravel()
            logits = torch.from_numpy(stored[f'masks_{record["idx"]}'].astype(np.float32)).flatten(0, 1)
            masks = list(resize_masks(logits, record['height'], record['width']).numpy() > 0)
        found[record['idx']] = masks, scores
    return found


@pytest.fixture(scope='module')
def matches(records, predictions):
    """Return a function of a benchmark: one MaskMatch per record; reasonseg and roborefit have one target each."""

    def match(benchmark):
        return [match_record(benchmark, record, *predictions[record['idx']]) for record in records]

    return match


def match_record(benchmark, record, masks, scores):
    threshold = THRESHOLDS[benchmark]
    kept = [index for index, score in enumerate(scores) if score > np.float32(threshold)]
    ground_truth = [Rle.from_coco(rle) for rle in record['gt_rles']]
    ignore = None
    if benchmark == 'reasonseg' and record['ignore_mask'] is not None:
        ignore = Rle.from_coco(record['ignore_mask'])
    return metrics.match_masks([Rle.encode(masks[i]) for i in kept], scores[kept], ground_truth, threshold, ignore)


@pytest.mark.parametrize('name', ['inst2seg', 'refcoco_ap'])
def test_average_precision_as_recorded(matches, expected, name):
    queries, recorded = matches(name), expected['metrics'][name]
    assert sum(query.num_targets for query in queries) == recorded['num_gt_instances']
    assert sum(len(query.scores) for query in queries) == recorded['num_pred_instances']
    check_average_precision(queries, recorded)


def check_average_precision(queries, recorded):
    for iou in metrics.IOUS:
        assert metrics.average_precision(queries, iou) == pytest.approx(recorded[f'AP@{iou:.2f}'], abs=1e-9)
    figures = metrics.compute_metrics(queries)
    for name in ('mAP', 'AP50', 'AP75'):
        assert figures[name] == pytest.approx(recorded[name], abs=1e-9)


def test_average_precision_of_the_first_records(matches):
    recorded = json.loads((FOLDER / 'expected_ap_first25.json').read_text())
    check_average_precision(matches('inst2seg')[:25], recorded)


def test_unions_as_recorded(matches, expected):
    queries = matches('inst2seg')
    for query, record in zip(queries, expected['per_record']['inst2seg'], strict=True):
        assert (query.intersection, query.union) == (record['inter'], record['union'])
        assert metrics.giou([query]) == pytest.approx(record['iou'], abs=1e-6)
        assert query.num_targets == record['gt_num_objects']
        assert query.num_found == len(record['pred_rles'])
    for benchmark in ('inst2seg', 'refcoco_ap'):
        check_unions(queries, expected['metrics'][benchmark])


def check_unions(queries, recorded, empty=1.0):
    assert metrics.giou(queries, empty) == pytest.approx(recorded['giou'], abs=1e-6)
    assert metrics.ciou(queries, empty) == pytest.approx(recorded['ciou'], abs=1e-6)


def test_by_number_of_targets_as_recorded(matches, expected):
    queries = matches('inst2seg')
    for number, recorded in expected['metrics']['inst2seg']['by_num_objects'].items():
        group = [query for query in queries if query.num_targets_group == number.replace('>=2', '2+')]
        assert len(group) == recorded['num_samples']
        check_unions(group, recorded)
        if number == '0':  # the authors give 0, this package nan: there is nothing to find
            assert recorded['mAP'] == 0
            assert np.isnan(metrics.compute_metrics(group)['mAP'])
        else:
            check_average_precision(group, recorded)


def test_reasonseg_as_recorded(matches, expected, records):
    queries, recorded = matches('reasonseg'), expected['metrics']['reasonseg']
    for query, record in zip(queries, expected['per_record']['reasonseg'], strict=True):
        assert (query.intersection, query.union) == (record['inter'], record['union'])
        assert metrics.giou([query], empty=0) == pytest.approx(record['iou'], abs=1e-6)
    long = [query for query, record in zip(queries, records, strict=True) if record['is_sentence']]
    short = [query for query, record in zip(queries, records, strict=True) if not record['is_sentence']]
    for name, group in (('overall', queries), ('long', long), ('short', short)):
        assert len(group) == recorded[name]['count']
        check_unions(group, recorded[name], empty=0)


def test_roborefit_as_recorded(matches, expected):
    queries = matches('roborefit')
    for query, record in zip(queries, expected['per_record']['roborefit'], strict=True):
        assert (query.intersection, query.union) == (record['intersection'], record['union'])
        assert metrics.giou([query], empty=0) == pytest.approx(record['iou'], abs=1e-6)
    assert metrics.giou(queries, empty=0) == pytest.approx(expected['metrics']['roborefit']['mean_iou'], abs=1e-6)


def test_coco_s_own_ap(matches, records, predictions):
    """Equals what pycocotools computes from the masks."""
    images, targets, found = [], [], []
    for record in records:
        idx, size = record['idx'], {'height': record['height'], 'width': record['width']}
        images.append({'id': idx, **size})
        for mask in record['gt_rles']:
            targets.append(
                {
                    'id': len(targets) + 1,
                    'image_id': idx,
                    'category_id': 1,
                    'iscrowd': 0,
                    'segmentation': mask,
                    'area': Rle.from_coco(mask).area,
                }
            )
        for mask, score in zip(*predictions[idx], strict=True):
            if score > np.float32(0.3):
                found.append(
                    {
                        'image_id': idx,
                        'category_id': 1,
                        'score': float(score),
                        'segmentation': Rle.encode(mask).to_coco(),
                    }
                )
    dataset = COCO()
    dataset.dataset = {'images': images, 'annotations': targets, 'categories': [{'id': 1}]}
    dataset.createIndex()
    evaluation = COCOeval(dataset, dataset.loadRes(found), 'segm')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    ours = coco_average_precision(matches('inst2seg'))
    assert [ours['coco_AP'], ours['coco_AP50'], ours['coco_AP75']] == pytest.approx(evaluation.stats[:3], abs=1e-9)
