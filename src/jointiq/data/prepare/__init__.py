"""``src.prepare``: cut training patches from folders of images in advance."""
