"""Raw samples -> tensors: the same objects serve datamodules, `mm.load` and servers."""
