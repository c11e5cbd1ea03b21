"""The numbers of the presets, and the choices that a `Config` offers by name."""

METHODS = ("disendiff", "custom_diffusion", "dreambooth", "textual_inversion")

# What of the UNet trains: which projections of every cross-attention layer, all of it, or nothing.
# "lora" lays adapters of a low rank over the keys and values.
TRAINED = {
    "kv": ("to_k", "to_v"),
    "qkv": ("to_q", "to_k", "to_v"),
    "v": ("to_v",),
    "lora": ("to_k", "to_v"),
    "unet": None,
    "none": (),
}
CLASS_MAPS = ("attention", "masks")

# What each method changes, for each preset: a rate that suits keys and values alone would wreck a whole UNet.
PER_METHOD = {
    "paper": {
        "disendiff": {},
        "custom_diffusion": {"calibration_weight": 0.0},
        "dreambooth": {"trained": "unet", "calibration_weight": 0.0, "learning_rate": 5e-6},
        "textual_inversion": {
            "trained": "none",
            "calibration_weight": 0.0,
            "prior_probability": 0.0,
            "embedding_learning_rate": 5e-3,
        },
    },
    "emoji": {
        "disendiff": {},
        "custom_diffusion": {"calibration_weight": 0.0},
        "dreambooth": {
            "trained": "unet",
            "calibration_weight": 0.0,
            "prior_probability": 0.1,
            "flip_probability": 0.0,
        },
        "textual_inversion": {"trained": "none", "calibration_weight": 0.0, "prior_probability": 0.0},
    },
}

# What a choice of TRAINED changes in turn: a LoRA takes larger steps than whole weights. On the embedded model and two
# pairs that are not among the ten, 1e-3 reached a sum (see emoji_world.check.tune) of 2.41 and 3e-3 one of 2.33; the
# paper's preset has the same ratio to its own rate.
PER_TRAINED = {"paper": {"lora": {"learning_rate": 2.5e-4}}, "emoji": {"lora": {"learning_rate": 1e-3}}}

# The rates were found with emoji_world.check.tune, on pairs that are not among the ten; the model card has the table.
EMOJI = {
    "resolution": 64,
    "steps": 600,  # half as many of twice the batch cost the same and learn much less of an individual
    "batch_size": 2,
    "gradient_accumulation": 1,
    "learning_rate": 3e-4,
    "embedding_learning_rate": 3e-2,
    "lr_scheduler": "cosine",  # at constant rates what is kept depends on the last few samples
    "augment": False,  # at 64 px the random scales leave too little of a picture to learn from: the model card compares
    "prior_probability": 0.25,  # so that of so few samples more show the concepts
    "prior_images": 32,
    "prior_batch": 16,
    "inference_steps": 25,
    "guidance_scale": 3.0,  # prompts are followed as well as with 4.5 or 6, and learned colours are not exaggerated
}
