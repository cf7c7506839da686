"""transformers' LlamaForCausalLM of the same shape, trained and held the usual way."""

import torch
import transformers

from gpu_sections.measure import wall_seconds
from gpu_sections.report import Place
from nano_llama import LlamaConfig


def their_config(config: LlamaConfig) -> transformers.LlamaConfig:
    shape = {key: value for key, value in config.to_hf_dict().items() if key not in ("architectures", "model_type")}
    return transformers.LlamaConfig(**shape)


def their_model(config: LlamaConfig, device: torch.device) -> transformers.LlamaForCausalLM:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = transformers.LlamaForCausalLM(their_config(config))
    finally:
        torch.set_default_dtype(before)
    return model.eval().requires_grad_(False)


def their_rate(
    place: Place, config: LlamaConfig, batch: int, context: int, steps: int, compiled: bool = False
) -> float:
    """tokens/s of transformers' model: bf16 autocast, fused AdamW, clipping, and no synchronization."""
    device = place.device
    with torch.device(device):
        model = transformers.LlamaForCausalLM(their_config(config)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    run = torch.compile(model) if compiled and not place.rehearse else model
    tokens = torch.randint(config.vocab_size, (batch, context + 1), device=device)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            logits = run(input_ids=tokens[:, :-1]).logits  # (B,T,V)
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(3):
        step()
    return steps * batch * context / wall_seconds(lambda: [step() for _ in range(steps)], device)
