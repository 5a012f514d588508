"""GLIDE (Nichol et al. 2021), the paper's diffusion baseline: model, training, sampling, published weights."""
