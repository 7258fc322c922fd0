"""`QuantizationSimModel` and what AIMET's users find around it."""
