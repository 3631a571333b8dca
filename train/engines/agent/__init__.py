"""The SAM3-Agent baseline: a vision-language model calls a phrase segmenter as a tool, round by round."""
