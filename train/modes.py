"""Names of the modes that training and evaluation add to core's, importable without torch."""

from instructsam.core.modes import MODES

AUTOREGRESSIVE = 'autoregressive'
"""The ablation without a query bank: the language model writes one [SEG] token per instance."""

ENGINE_MODES = (*MODES, AUTOREGRESSIVE)
"""Every mode in which a model can be trained and measured."""
