"""Opening images, decoding videos and choosing the frames the model sees; knows no labels."""
