"""Adapters that change something: fresh ones have B = 0."""


def randomize(params, seed=0, only=""):
    """Draw A and B anew, and move magnitudes by a few percent: {name: parameter}, in place."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in params.items():
            if only not in name:
                continue
            noise = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            p.copy_(p.double() * (1 + 0.05 * noise) if p.dim() == 1 else 0.2 * noise)
