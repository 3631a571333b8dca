"""The InstructSAM network and its inputs.

To understand the model, read in this order:

config          what a checkpoint's config.json determines
prompt          text and token ids: the prompt around an instruction, the notation of answers
token_layout    order, positions and attention mask of the tokens; where query blocks go
sequence        the language model with a key-value cache: prompt, answer, hidden states at the queries
instructsam     the network as a whole: Qwen3-VL, the query bank, the bridge, SAM3
trunk           a pretrained network that reads the image for both encoders (only in models that name one)
grounding       SAM3: from queries and phrases to masks, scores and boxes

Skip these at first; they change speed, not results:

graphs/         stages of fixed shapes as CUDA graphs, and the plain stages that they record
layers/         equivalents of transformers' layers with fewer operations, which the modules above consist of

Around the network:

preprocess      images to the encoders' input tensors
checkpoint      model folders: reading and writing weights
config_check    comparison of a configuration with the tensors of its file, before anything is built
chat_template   rendering a chat template within limits of time and memory
tokenizer       reading the tokenizer of a model folder
"""
