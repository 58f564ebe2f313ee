"""Still pictures: reading, fitting and saving them, what stands out in them, and folders of them."""

SIZE_MULTIPLE_PX = 8
"""The widths and heights of loops are multiples of this: a latent of Stable Diffusion covers 8 x 8 pixels."""
