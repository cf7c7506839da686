"""What a mesh cannot do is refused by the axis' name, with what to do instead."""

import pytest

pytest.importorskip("torch")

from nano_llama.core.errors import UserError
from nano_llama.training.finetune.settings import FinetuneSettings
from nano_llama.training.settings import TrainSettings
from nano_llama.vol2_torch.parallel import ParallelConfig
from nano_llama.vol2_torch.parallel.refusals import check_mesh

TUNE = {"data": "a.jsonl", "init_from": "model"}
REFUSED = [
    ("tp=2", FinetuneSettings(**TUNE), "tp=2 with adapter = 'lora'", "dp and fsdp"),
    ("dp=2,pp=2", FinetuneSettings(**TUNE), "pp=2 with adapter", "--adapter none"),
    ("cp=2", FinetuneSettings(**TUNE), "cp=2 with adapter", "dp and fsdp"),
    ("fsdp=2", FinetuneSettings(**TUNE, base_quantization="int4"), "fsdp=2 with base_quantization", "Over dp"),
    ("fsdp=2", TrainSettings(optimizer="adafactor"), "fsdp=2 with optimizer = 'adafactor'", "adamw"),
    ("tp=2", TrainSettings(optimizer="adafactor"), "tp=2 with optimizer = 'adafactor'", "dp, pp and cp"),
    ("cp=2", TrainSettings(attention="triton"), "cp=2 with attention = 'triton': there the mesh attends", "sdpa"),
    ("fsdp=2,tp=2", TrainSettings(kernels="triton"), "tp=2 with kernels = 'triton'", "--kernels torch"),
    ("pp=2", TrainSettings(precision="fp16"), "pp=2 with precision = 'fp16'", "bf16"),
    ("pp=2", TrainSettings(batch_size=3), "pp=2: a batch of 3 rows", "multiple of 4"),
    ("fsdp=2,pp=2", TrainSettings(batch_size=6), "pp=2: a batch of 3 rows is not enough for 4", None),
    ("cp=2", TrainSettings(document_mask=True), "cp", None),
    ("cp=2", TrainSettings(sliding_window=64), "sliding_window = 64: cp=2 has", "dp and fsdp"),
    ("dp=2,pp=2", TrainSettings(sliding_window=64), "sliding_window = 64: pp=2 has", "dp and fsdp"),
    ("tp=2", TrainSettings(norm_placement="post"), "norm_placement = 'post': tp=2 has", "dp and fsdp"),
    ("tp=2", TrainSettings(hidden_act="relu2"), "hidden_act = 'relu2': tp=2 has", "dp and fsdp"),
]
ALLOWED = [
    ("dp=2", FinetuneSettings(**TUNE, base_quantization="int4")),
    ("dp=2,fsdp=2", FinetuneSettings(**TUNE)),
    ("tp=2,pp=2", TrainSettings(dropout=0.1, batch_size=7)),  # seven microbatches
    ("fsdp=2,tp=2", TrainSettings(optimizer="schedulefree", schedule="constant")),
    ("dp=2,pp=2", TrainSettings(optimizer="adafactor")),
    ("fsdp=2,tp=2,pp=2", TrainSettings(attention="triton")),
    ("dp=2,fsdp=2,cp=2", TrainSettings(kernels="triton")),
    ("fsdp=2,tp=2", TrainSettings(document_mask=True)),
    ("dp=2,fsdp=2", TrainSettings(hidden_act="relu2", sliding_window=64, norm_placement="post")),
]


@pytest.mark.parametrize(("mesh", "settings", "said", "hint"), REFUSED)
def test_refused(mesh, settings, said, hint):
    with pytest.raises(UserError) as told:
        check_mesh(settings, ParallelConfig.parse(mesh))
    assert said in told.value.message and (hint or "") in (told.value.hint or "")


@pytest.mark.parametrize(("mesh", "settings"), ALLOWED)
def test_allowed(mesh, settings):
    check_mesh(settings, ParallelConfig.parse(mesh))
