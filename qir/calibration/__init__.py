"""From values that stream by to the encodings of quantizers."""
