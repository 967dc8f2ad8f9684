"""The method: cycles of labelling and training, in an output folder."""
