"""Loading Molmo 2, its exact attention, vision encoding, adapters and the loss."""
