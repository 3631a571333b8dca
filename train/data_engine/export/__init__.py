"""The export: training records, the benchmark's form, COCO JSON and a page of samples."""
