"""What is quantized: the readers of targets, configs and rules, and who decides by them."""
