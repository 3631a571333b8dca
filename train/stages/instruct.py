"""Stages 1 and 2: instructions to masks through the whole model (paper, section 3.4)."""

from torch import nn

from instructsam.train.losses.deep_supervision import TERMS, add, detect_layers, layer_losses
from instructsam.train.losses.pointing import Pointing
from instructsam.train.stages.forward import answer_terms, features_of, forward, read, slot_queries


class InstructTraining(nn.Module):
    """The model with the published objective, or with losses on every detector layer (`layers`)."""

    def __init__(self, model, objective, phrases_per_call, layers=False, pointing=0.0):
        """pointing: weight of pointing.Pointing's losses, beside those on every layer."""
        super().__init__()
        self.pointing = Pointing(model.config.qwen.text_config.hidden_size, pointing) if pointing else None
        self.model = model
        self.objective = objective
        self.phrases_per_call = phrases_per_call
        self.layers = layers

    def forward(self, batch):
        """Loss sums: {term: (sum, count)}."""
        if self.layers:
            return self._layered(batch)
        output, weights = forward(self.model, batch, self.objective, self.phrases_per_call), self.objective
        return {
            'answer': (output.answer, 'tokens'),
            'mask_bce': (weights.bce_loss * output.terms.bce, 'masks'),
            'mask_dice': (weights.dice_loss * output.terms.dice, 'masks'),
            'presence': (weights.presence_loss * output.terms.presence, 'phrases'),
        }

    def _layered(self, batch):
        if any(len(boxes) for boxes in batch.boxes):
            raise ValueError('losses on every layer want masks, and a sample has boxes only: set layers to false')
        model = self.model
        hidden = read(model, batch)
        zero = hidden.sum() * 0.0  # every batch has all terms: processes add up theirs
        losses = {**answer_terms(model, batch, hidden), **{name: (zero, count) for name, count in TERMS.items()}}
        if self.pointing is not None:
            losses.update(self.pointing(hidden, batch))
        if not batch.chosen:
            return losses
        features = model.grounding.encode(batch.pixels)
        own = model.grounding.detr_decoder.reference_points.weight
        for chosen in batch.calls(self.phrases_per_call):
            queries = slot_queries(model, hidden, batch, chosen)[:, None]
            references = own[: queries.shape[2]].expand(len(chosen), 1, -1, -1)
            phrase_ids = [batch.text.phrase_ids[index] for index in chosen]
            outputs = detect_layers(model, features_of(features, batch, chosen), queries, references, phrase_ids)
            masks = [batch.masks[index] for index in chosen]
            found = layer_losses(model, outputs, masks, presence_target=self.objective.presence_target)
            presence, count = found['presence']
            add(losses, {**found, 'presence': (self.objective.presence_loss * presence, count)})
        return losses
