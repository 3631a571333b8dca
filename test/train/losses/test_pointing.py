"""The language model's own grounding: slots that point at their objects cost nothing, and every phrase is trained."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from instructsam.train.losses.boxes import tight_boxes
from instructsam.train.losses.pointing import Pointing

ROWS, COLUMNS, MERGE, CELL = 4, 6, 2, 8  # tokens of the image, patches per token, px per token
WIDTH = 4  # hidden states: in the first mask, in the second mask, a slot without object, unused
SURE = 60.0
CONFIG = SimpleNamespace(text=SimpleNamespace(hidden_size=WIDTH), slot_references=False, slot_scores=False)
MODEL = SimpleNamespace(slot_references=None)


@pytest.fixture
def masks():
    """Return two masks [2, H, W] that fill whole tokens."""
    masks = torch.zeros(2, ROWS * CELL, COLUMNS * CELL, dtype=torch.bool)
    masks[0, : 2 * CELL, : 3 * CELL] = True
    masks[1, 3 * CELL :, 4 * CELL :] = True
    return masks


def batch_of(masks):
    """Return one sample: image tokens, three slots for `masks`, and three slots of a phrase that refers to nothing."""
    tokens = ROWS * COLUMNS
    is_image = torch.arange(tokens + 6)[None] < tokens
    blocks = [(0, slice(tokens, tokens + 3)), (0, slice(tokens + 3, tokens + 6))]
    return SimpleNamespace(
        text=SimpleNamespace(is_image=is_image, blocks=blocks),
        grids=[(1, ROWS * MERGE, COLUMNS * MERGE)],
        masks=[masks, masks[:0]],
        anchors=[masks[:0], masks[:1]],  # the second phrase is named beside the first object
    )


def right(masks):
    """Return heads and hidden states that predict `masks` exactly; the objects are in slots 2 and 0."""
    pointing = Pointing(CONFIG, weight=0.5)
    for layer in (pointing.slots, pointing.tokens, pointing.anchors, pointing.anchor_tokens):
        layer.weight.data = torch.eye(WIDTH)
        layer.bias.data.zero_()
    pointing.presence.weight.data = torch.tensor([[1.0, 1.0, -1.0, 0.0]]) / SURE * 12
    pointing.presence.bias.data.zero_()
    boxes = tight_boxes(masks)
    sides = torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], dim=1)
    pointing.box = nn.Linear(WIDTH, 4, bias=False)
    pointing.box.weight.data = torch.cat([torch.logit(sides).T, torch.zeros(4, 2)], dim=1) / SURE
    tokens = torch.zeros(ROWS, COLUMNS, WIDTH)
    tokens[..., :2] = -1
    for index, mask in enumerate(masks):
        tokens[..., index][mask[::CELL, ::CELL]] = 1
    slots = SURE * torch.eye(WIDTH)[[1, 2, 0, 2, 2, 2]]
    return pointing, torch.cat([tokens.view(-1, WIDTH), slots])[None].requires_grad_()


def test_correct_predictions_cost_nothing(masks):
    pointing, hidden = right(masks)
    losses = pointing(MODEL, hidden, hidden, batch_of(masks))
    assert {name: count for name, (_, count) in losses.items()} == {
        'point_mask': 'all_masks',
        'point_box': 'all_masks',
        'point_presence': 'blocks',
        'point_anchors': 'anchored',
    }
    for name, (value, _) in losses.items():
        assert value.item() == pytest.approx(0, abs=1e-3), name


def test_a_slot_that_points_elsewhere_gets_a_gradient(masks):
    pointing, hidden = right(masks)
    with torch.no_grad():
        hidden[0, ROWS * COLUMNS, 1] = -SURE  # points at everything except the second object, and predicts absence
    losses = pointing(MODEL, hidden, hidden, batch_of(masks))
    assert losses['point_mask'][0] > 1
    assert losses['point_box'][0] > 0.1
    assert losses['point_presence'][0] > 1
    sum(value for value, _ in losses.values()).backward()
    assert hidden.grad[0, ROWS * COLUMNS :][:3, 1].min() < -1e-3  # one of the slots is pulled towards the second object
    assert hidden.grad[0, -3:].abs().max() < 1e-5  # the other phrase is predicted correctly


def test_the_middle_layer_points_at_the_other_objects(masks):
    """The token before the slots does: in this batch, the last slot of the phrase before."""
    pointing, hidden = right(masks)
    middle = hidden.detach().clone()
    middle[0, ROWS * COLUMNS + 2] = -middle[0, ROWS * COLUMNS + 2]
    middle.requires_grad_()
    loss = pointing(MODEL, hidden, middle, batch_of(masks))['point_anchors'][0]
    assert loss > 1
    loss.backward()
    assert middle.grad[0, ROWS * COLUMNS :].abs().sum(1).nonzero().tolist() == [[2]]


def test_a_phrase_without_slots_is_passed_over(masks):
    """Without a query bank, a phrase that refers to nothing has no slots."""
    pointing, hidden = right(masks)
    batch = batch_of(masks)
    after = batch.text.blocks[1][1].start
    batch.text.blocks[1] = (0, slice(after, after))
    assert sum(value for value, _ in pointing(MODEL, hidden, hidden, batch).values()).item() == pytest.approx(
        0, abs=1e-3
    )


def test_weight(masks):
    pointing, hidden = right(masks)
    losses = pointing(MODEL, 0.1 * hidden, 0.1 * hidden, batch_of(masks))
    pointing.weight = 1.0
    for name, (value, _) in pointing(MODEL, 0.1 * hidden, 0.1 * hidden, batch_of(masks)).items():
        assert value.item() == pytest.approx(2 * losses[name][0].item()), name


def test_presence_is_what_the_slots_add_to_the_scores(masks):
    pointing, hidden = right(masks)
    config = SimpleNamespace(text=CONFIG.text, slot_references=True, slot_scores=True)
    with_scores = Pointing(config, weight=0.5)
    assert with_scores.presence is None
    with_scores.load_state_dict(
        {k: v for k, v in pointing.state_dict().items() if not k.startswith(('box', 'presence'))}
    )

    def losses(layer):
        model = SimpleNamespace(slot_references=pointing.box, slot_scores=lambda slots: layer(slots)[:, 0])
        return with_scores(model, hidden, hidden, batch_of(masks))

    assert losses(pointing.presence)['point_presence'][0].item() == pytest.approx(0, abs=1e-3)
    assert losses(nn.Linear(WIDTH, 1))['point_presence'][0].item() > 0.1


def test_boxes_are_those_that_the_detector_starts_from(masks):
    """With slot references, there is no head for boxes, and the losses train the model's own layers."""
    pointing, hidden = right(masks)
    config = SimpleNamespace(text=CONFIG.text, slot_references=True, slot_scores=False)
    with_references = Pointing(config, weight=0.5)
    assert with_references.box is None
    with_references.load_state_dict({k: v for k, v in pointing.state_dict().items() if not k.startswith('box')})
    losses = with_references(SimpleNamespace(slot_references=pointing.box), hidden, hidden, batch_of(masks))
    assert losses['point_box'][0].item() == pytest.approx(0, abs=1e-3)
    losses = with_references(SimpleNamespace(slot_references=nn.Linear(WIDTH, 4)), hidden, hidden, batch_of(masks))
    assert losses['point_box'][0].item() > 0.1
