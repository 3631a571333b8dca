"""Layers equivalent to those of transformers, on the same weights, with fewer operations.

joint_linear    linear layers of one input as one matrix product
rotary          rotary position embeddings from tables
kv_cache        keys and values of the language model in memory that is allocated once
text_decoder    the language model on a cache, for inference
vision_tower    Qwen's vision tower on one image, for inference
sam3_modules    transformers' SAM3 modules
sam_attention   attention in SAM3
fusion_encoder  SAM3's fusion encoder, whose first self-attention is computed once per image
detr_decoder    SAM3's detector, driven by given queries
pixel_decoder   SAM3's pixel decoder, whose convolutions of the image are computed once per image
"""
