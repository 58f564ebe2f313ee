"""The training kit: three stages from a pretrained (or fresh) model to a LoopAnimate bundle."""
