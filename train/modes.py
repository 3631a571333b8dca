"""Names of the modes that training and evaluation add to core's, importable without torch."""

from instructsam.core.modes import MODES

AUTOREGRESSIVE = 'autoregressive'
"""The ablation without a query bank: the language model writes one [SEG] token per instance."""

DUMMY_PHRASE = 'object'
"""Phrase that says nothing: with it, only the slots of the language model can tell which objects are meant."""

ENGINE_MODES = (*MODES, AUTOREGRESSIVE)
"""Every mode in which a model can be trained and measured."""
