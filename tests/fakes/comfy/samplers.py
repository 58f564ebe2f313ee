"""The names of the samplers and schedulers, for the lists that nodes show."""


class KSampler:
    SAMPLERS = ("euler", "dpmpp_2m", "ddim")
    SCHEDULERS = ("normal", "karras", "sgm_uniform")
