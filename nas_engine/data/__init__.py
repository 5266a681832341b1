"""Reading image data sets: every source becomes one `ImageDataset`."""
