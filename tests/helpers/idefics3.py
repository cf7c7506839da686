"""A tiny random Idefics3 of transformers' with its processor, saved as a folder: what a SmolVLM's looks like."""

import tokenizers
import transformers
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from helpers.vision_cases import tiny_vision_language_config
from nano_llama import Tokenizer
from nano_llama.formats.vision_config import vision_language_to_hf

# In the manner of SmolVLM's: a message is a list of parts, and one that begins with an image has no space before it.
TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{{ ':' if message['content'][0]['type'] == 'image' else ': ' }}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% elif part['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
AROUND = ["<fake_token_around_image>", "<image>", "<global-img>", "<end_of_utterance>", "<|im_start|>"]
TILES = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
TEXT = "User: Assistant: System: what colour is the shape?\n\nred or blue.\n<|endoftext|>"


def tokenizer(folder):
    """transformers', with Idefics3's tokens; a byte-level BPE in which two line ends are one token."""
    Tokenizer.train_bpe([TEXT] * 3, 300).save_pretrained(folder)
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    new = [tokenizers.AddedToken(token, special=True, normalized=False) for token in (*AROUND, *TILES)]
    library.add_special_tokens(new)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=library, bos_token="<|im_start|>", eos_token="<end_of_utterance>", pad_token="<|endoftext|>"
    )


def save_idefics3(folder, *, split=True, longest_edge=24, context=512, seed=0):
    """Images of 8 x 8 pixels, 4 tokens each -> (model, processor)."""
    made = tokenizer(folder.parent / f"{folder.name}-tokenizer")
    images = Idefics3ImageProcessorPil(
        size={"longest_edge": longest_edge}, max_image_size={"longest_edge": 8}, do_image_splitting=split
    )
    processor = transformers.Idefics3Processor(images, made, image_seq_len=4, chat_template=TEMPLATE)
    config = tiny_vision_language_config(std=0.2)
    text = config.text_config.replace(vocab_size=len(made), max_position_embeddings=context)
    raw = vision_language_to_hf(config.replace(text_config=text, image_token_id=made.convert_tokens_to_ids("<image>")))
    shape = {key: raw[key] for key in ("image_token_id", "scale_factor", "text_config", "vision_config")}
    transformers.set_seed(seed)
    shape = transformers.Idefics3Config(**shape, tie_word_embeddings=False, pad_token_id=made.pad_token_id)
    model = transformers.Idefics3ForConditionalGeneration(shape).eval()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor
