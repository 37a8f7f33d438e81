"""Label Studio: regions of images, videos and timelines."""
