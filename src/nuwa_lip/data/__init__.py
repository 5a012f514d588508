"""Masks, captioned photos, shards and benchmarks: what training and evaluation read."""
