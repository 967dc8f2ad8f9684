"""What the commands do, each read from top to bottom; the recipes and `te-trainer` call them."""
