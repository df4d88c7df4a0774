"""The diffusion that a UNet decodes with: noise schedule, training targets, sampling.

diffusers' DDIM scheduler computes all of it (arXiv 2010.02502), with the terminal signal-to-noise ratio set to zero and
steps counted from the last (arXiv 2305.08891): sampling starts from pure noise, and so must training have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from ...labelers.networks.extras import naming_extras
from .vq_config import VQConfig

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

DEFAULT_STEPS = 25

Denoiser = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Noised images and timesteps int64 (batch,) to what `prediction_type` says."""


def noise_scheduler(config: VQConfig) -> DDIMScheduler:
    """Raises ModuleNotFoundError saying what to install where diffusers is missing."""
    with naming_extras():
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    return DDIMScheduler(
        num_train_timesteps=config.num_train_timesteps,
        beta_schedule=config.beta_schedule,
        prediction_type=config.prediction_type,
        clip_sample=config.clip_sample,
        thresholding=config.thresholding,
        rescale_betas_zero_snr=config.zero_terminal_snr,
        timestep_spacing="trailing",
    )


def noised(
    scheduler: DDIMScheduler, clean: torch.Tensor, generator: torch.Generator | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A training step's noised images, their timesteps int64 (batch,), and what the network should predict of them.

    clean: float32 (batch, channels, height, width). generator: None draws on the CPU, the same for any device.
    """
    settings: Any = scheduler.config
    device = torch.device("cpu") if generator is None else generator.device
    drawn = torch.randint(settings.num_train_timesteps, (len(clean),), generator=generator, device=device)
    timesteps: Any = drawn.to(clean.device)
    noise = torch.randn(clean.shape, generator=generator, device=device).to(clean.device)
    images: Any = scheduler.add_noise(clean, noise, timesteps)
    if settings.prediction_type == "sample":
        return images, timesteps, clean
    if settings.prediction_type == "epsilon":
        return images, timesteps, noise
    return images, timesteps, scheduler.get_velocity(clean, noise, timesteps)


def sample(scheduler: DDIMScheduler, denoise: Denoiser, start: torch.Tensor, steps: int) -> torch.Tensor:
    """Images float32 (batch, channels, height, width) from the noise `start`, deterministically.

    The timesteps go down from the last at equal distance, which is a whole number: where `steps` doesn't divide the
    timesteps of training, one or a few more than `steps` fit.
    """
    settings: Any = scheduler.config
    distance = settings.num_train_timesteps // steps
    scheduler.set_timesteps(steps)
    images = start
    for timestep in range(settings.num_train_timesteps - 1, -1, -distance):
        timesteps = torch.full((len(images),), timestep, device=images.device)
        predicted: Any = denoise(images, timesteps).float()
        images = scheduler.step(predicted, timestep, images, return_dict=False)[0]
    return images
