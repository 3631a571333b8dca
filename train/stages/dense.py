"""Pretraining of both image encoders on dense labels of rendered scenes; stands in for what SAM3 and Qwen3-VL bring.

Every pixel says which category and colour its object has and how far the borders of the object's box are away. SAM3's
encoder learns it at its coarsest level and, where the decoder has a rate, through the pixel decoder; Qwen's vision
tower per token. The heads are left behind afterwards.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from instructsam.core.image_file import read_image
from instructsam.core.model.preprocess import sam_pixels, to_chw
from instructsam.core.rle import Rle
from instructsam.train.loop.param_groups import learns
from instructsam.train.tabletop.world.catalog import CATEGORIES
from instructsam.train.tabletop.world.looks import COLORS

CATEGORY = {name: index for index, name in enumerate(CATEGORIES, 1)}  # 0: no object
COLOR = {name: index for index, name in enumerate(COLORS, 1)}
CELLS = 4  # label samples per token and direction
BOX_WEIGHT = 5.0
PLACE_WEIGHT = 5.0
CLOSEST = 0.4  # of the picture's side, the least that is shown of it


@dataclass
class Labels:
    """What the pixels of B pictures show, on a grid."""

    category: torch.Tensor  # [B, h, w] int64
    color: torch.Tensor  # [B, h, w] int64
    borders: torch.Tensor  # [B, 4, h, w] distances to the left, top, right, bottom of the object's box, 1 = the side


@dataclass
class PixelBatch:
    """B pictures, the inputs of both encoders, and their labels on the encoders' grids, CELLS finer than the tokens."""

    pixels: torch.Tensor  # [B, 3, S, S]
    patches: torch.Tensor  # [P, 3 * t * p * p]
    grids: list[tuple[int, int, int]]
    sam: Labels
    qwen: Labels

    def counts(self):
        return {'images': len(self.pixels)}


class ScenePictures(torch.utils.data.Dataset):
    """Pictures and objects of scenes written by `instructsam tabletop generate`, from their *_scenes.jsonl files."""

    def __init__(self, sources, seed=0, zoom=0.0):
        """sources: data.Source each; zoom: share of the pictures that are shown in part, around an object."""
        self.items = [
            (source.images, line)
            for source in sources
            for line in Path(source.annotations).read_text(encoding='utf-8').splitlines()
            for _ in range(source.repeat)
        ]
        self.seed, self.epoch, self.zoom = seed, 0, zoom

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        """(image [H, W, 3] uint8, ids [H, W] int64 (0: none), objects [N + 1, 6]: category, color, box), half of the
        time mirrored.
        """
        folder, line = self.items[index]
        facts = json.loads(line)
        image = read_image(Path(folder) / facts['image'])
        ids, objects = read_objects(facts)
        rng = np.random.default_rng((self.seed, self.epoch, index))
        mirrored = rng.random() < 0.5
        if rng.random() < self.zoom:
            image, ids, objects = _zoomed(image, ids, objects, rng)
        if mirrored:
            image, ids = image[:, ::-1].copy(), ids[:, ::-1].copy()
            objects[:, [2, 4]] = 1 - objects[:, [4, 2]]
        return image, ids, objects


def _zoomed(image, ids, objects, rng):
    """A part of the picture around an object, at the size of the whole, with the boxes of what is seen there."""
    height, width = ids.shape
    share = rng.uniform(CLOSEST, 1.0)
    seen = np.unique(ids[ids > 0])
    box = objects[rng.choice(seen), 2:] if len(seen) else np.array([0, 0, 1, 1])
    centre = (box[:2] + box[2:]) / 2 + rng.uniform(-0.3, 0.3, 2) * share
    x0, y0 = np.clip(centre - share / 2, 0, 1 - share)
    rows = ((y0 + share * (np.arange(height) + 0.5) / height) * height).astype(int)
    columns = ((x0 + share * (np.arange(width) + 0.5) / width) * width).astype(int)
    ids = ids[rows][:, columns]
    part = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    objects = objects.copy()
    for row in np.unique(ids[ids > 0]):
        at_rows, at_columns = np.nonzero((ids == row).any(1))[0], np.nonzero((ids == row).any(0))[0]
        objects[row, 2:] = (
            at_columns[0] / width,
            at_rows[0] / height,
            (at_columns[-1] + 1) / width,
            (at_rows[-1] + 1) / height,
        )
    return cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR), ids, objects


def read_objects(facts):
    """What a scene's line says of its pixels: ids [H, W] int64 (0: none) and objects [N + 1, 6]: category, color and
    box xyxy, 0 to 1.
    """
    height, width = facts['height'], facts['width']
    ids = np.zeros((height, width), np.int64)
    objects = np.zeros((len(facts['objects']) + 1, 6), np.float32)
    for row, item in enumerate(facts['objects'], 1):
        mask = Rle.from_coco(item['mask'])
        ids[mask.decode()] = row
        x0, y0, x1, y1 = mask.box
        place = (x0 / width, y0 / height, x1 / width, y1 / height)
        objects[row] = (CATEGORY[item['category']], COLOR[item['color']], *place)
    return ids, objects


class PixelCollator:
    """Pictures from ScenePictures as a PixelBatch."""

    def __init__(self, model, preprocessor):
        self.preprocessor = preprocessor
        self.side = model.grounding.image_size
        self.rows = model.grounding.image_size // model.grounding.patch_size

    def __call__(self, items):
        chws = [to_chw(image) for image, _, _ in items]
        patches, grids = zip(*(self.preprocessor(chw, 'cpu', torch.float32) for chw in chws))
        return PixelBatch(
            torch.cat([sam_pixels(chw, self.side, 'cpu', torch.float32) for chw in chws]),
            torch.cat(patches),
            list(grids),
            **encoder_labels([item[1:] for item in items], self.rows, grids, self.preprocessor.merge_size),
        )


def encoder_labels(scenes, rows, grids, merge):
    """Labels of scenes on both encoders' grids: sam's of rows x rows tokens, qwen's of `grids` in patches, merged."""
    return {
        'sam': labels_at(scenes, [(CELLS * rows,) * 2] * len(scenes)),
        'qwen': labels_at(scenes, [(CELLS * h // merge, CELLS * w // merge) for _, h, w in grids]),
    }


def labels_at(scenes, sizes):
    """The Labels of scenes (ids, objects) at the middles of rows x columns cells; sizes: (rows, columns), all alike."""
    made = [_labels(*scene, *size) for scene, size in zip(scenes, sizes)]
    return Labels(*(torch.stack(parts) for parts in zip(*made)))


def _labels(ids, objects, rows, columns):
    y, x = (np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns
    at = ids[(y * ids.shape[0]).astype(int)][:, (x * ids.shape[1]).astype(int)]
    found = torch.from_numpy(objects[at])  # [rows, columns, 6]
    x, y = torch.from_numpy(x).float()[None, :], torch.from_numpy(y).float()[:, None]
    x0, y0, x1, y1 = found[..., 2:].unbind(-1)
    return found[..., 0].long(), found[..., 1].long(), torch.stack([x - x0, y - y0, x1 - x, y1 - y])


class DenseHeads(nn.ModuleDict):
    """A head on each of some feature maps: pixels (the pixel decoder's), coarse (SAM3's), tokens (Qwen's).

    Qwen's tokens also say where they are: the language model compares places by nothing else.
    """

    def __init__(self, config, names):
        sam, text = config.bridge_dim, config.qwen.text_config.hidden_size
        outputs = len(CATEGORY) + 1 + len(COLOR) + 1 + 4
        widths = {'pixels': sam, 'coarse': sam, 'tokens': text}
        super().__init__({name: _head(widths[name], outputs) for name in names})
        self['place'] = _head(text, 2)

    def losses(self, name, values, labels):
        """Loss sums of the map `name`, values [B, h, w, C]: {term: (sum, 'images')}."""
        return {f'{name}_{term}': (loss, 'images') for term, loss in _terms(self[name](values), labels).items()}

    def token_losses(self, tokens, labels):
        """Those of Qwen's tokens [B * h * w, C]."""
        count, rows, columns = labels.category.shape
        tokens = tokens.view(count, rows // CELLS, columns // CELLS, -1)
        places = (torch.arange(size, device=tokens.device) for size in tokens.shape[1:3])
        y, x = torch.meshgrid(*((place + 0.5) / len(place) for place in places), indexing='ij')
        truth = torch.stack([x, y], dim=-1).expand(count, -1, -1, -1)
        off = F.smooth_l1_loss(self['place'](tokens), truth, reduction='none', beta=0.05).mean((1, 2)).sum()
        return {**self.losses('tokens', tokens, labels), 'tokens_place': (PLACE_WEIGHT * off, 'images')}


def _head(width, outputs):
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, outputs))


class PixelTraining(nn.Module):
    """The model with a head on every feature map that is to carry the labels, of the encoders that learn."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.heads = DenseHeads(model.config, ('pixels', 'coarse', 'tokens'))

    def forward(self, batch):
        """Loss sums over images: {name: (sum, 'images')}."""
        losses = {}
        if learns(self.model.grounding):
            decoder = self.model.grounding.mask_decoder.pixel_decoder
            features = self.model.grounding.encode(batch.pixels, fine=learns(decoder))
            if learns(decoder):
                fine = decoder(list(features.pyramid))
                losses.update(self.heads.losses('pixels', fine.permute(0, 2, 3, 1), batch.sam))
            losses.update(self.heads.losses('coarse', features.pyramid[-1].permute(0, 2, 3, 1), batch.sam))
        if learns(self.model.model.visual):
            tokens, _ = self.model.encode_image(batch.patches, *batch.grids)
            losses.update(self.heads.token_losses(tokens, batch.qwen))
        return losses

    def categories(self, batch):
        """What the pixel decoder takes SAM3's input for: category numbers [B, h, w], 0 where it sees no object."""
        features = self.model.grounding.encode(batch.pixels)
        fine = self.model.grounding.mask_decoder.pixel_decoder(list(features.pyramid))
        return self.heads['pixels'](fine.permute(0, 2, 3, 1))[..., : len(CATEGORY) + 1].argmax(-1)


def _terms(outputs, labels):
    """Sums over images of the mean category, color and box loss; outputs [B, h, w, C] on the labels' grid or CELLS
    coarser, where a cell's truth is the mix of its labels.
    """
    cells = labels.category.shape[1] // outputs.shape[1]
    category, color, borders = outputs.split([len(CATEGORY) + 1, len(COLOR) + 1, 4], dim=-1)
    shown = (labels.category > 0).float()
    weight = _pool(shown[:, None], cells)[:, 0]  # [B, h, w] share of the cell that shows an object
    truth = _pool((labels.borders * shown[:, None]), cells) / weight.clamp(min=1e-6)[:, None]
    per_object = weight / weight.sum((1, 2), keepdim=True).clamp(min=1)
    found = {
        'category': _cross_entropy(category, labels.category, cells) * (1 + 3 * weight) / weight[0].numel(),
        'color': (_cross_entropy(color, labels.color, cells)) * per_object,
        'box': BOX_WEIGHT
        * F.smooth_l1_loss(borders.permute(0, 3, 1, 2), truth, reduction='none', beta=0.05).sum(1)
        * per_object,
    }
    return {name: loss.sum() for name, loss in found.items()}


def _cross_entropy(logits, labels, cells):
    """[B, h, w] cross-entropy against the label, or the shares of the labels in a cell."""
    if cells == 1:
        return F.cross_entropy(logits.permute(0, 3, 1, 2), labels, reduction='none')
    shares = _pool(F.one_hot(labels, logits.shape[-1]).permute(0, 3, 1, 2).float(), cells)
    return -(logits.log_softmax(-1).permute(0, 3, 1, 2) * shares).sum(1)


def _pool(maps, cells):
    return maps if cells == 1 else F.avg_pool2d(maps, cells)
