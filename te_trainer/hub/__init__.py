"""Publishing a finished run on the Hugging Face Hub."""
