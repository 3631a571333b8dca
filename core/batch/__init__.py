"""One instruction on many images: files, folders, videos and webcams in, COCO JSON, label images and overlays out."""
