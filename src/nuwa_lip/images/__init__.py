"""Photos and masks in, photos out: reading and writing, windows around holes, seams."""
