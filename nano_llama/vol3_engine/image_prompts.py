"""Prompts and conversations with images, taken apart: the text with its image tokens, and the images in their order.

Not here: what is made of an image (image_reader.py). Tests: tests/vol3/test_images.py.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from nano_llama.core.errors import UserError


def prompt_and_images(prompt: Mapping[str, Any], number: int) -> tuple[Any, list[Any]]:
    """{"prompt": ..., "images": [...]} -> both. Raises UserError for anything else."""
    images = prompt.get("images", [])
    if "prompt" not in prompt or not set(prompt) <= {"prompt", "images"} or not isinstance(images, list | tuple):
        raise UserError(
            f"Prompt {number} is {prompt!r:.80}; it must be a string, a list of token ids, or a dict of prompt and"
            " images.",
            hint='For example {"prompt": "<image>What is this?", "images": ["photo.png"]}.'
            " Use chat for the messages of a conversation.",
        )
    return prompt["prompt"], list(images)


def no_images(number: int) -> UserError:
    return UserError(
        f"Prompt {number} has images, and this model reads text only.",
        hint='Leave "images" out, or load a model with an image encoder: nano_eyes, or an Idefics3 or SmolVLM folder.',
    )


def messages_and_images(messages: Any) -> tuple[Any, list[Any]]:
    """Parts {"type": "image", "image": ...} of messages -> the messages with parts {"type": "image"}, and the images.

    What is not a list of messages with parts comes back as it is: the chat template's own checks say what is wrong.
    """
    images: list[Any] = []

    def part_without(part: Any) -> Any:
        if not isinstance(part, Mapping) or part.get("type") != "image":
            return part
        if set(part) != {"type", "image"}:
            raise UserError(
                f"A part of type 'image' has the keys {', '.join(map(str, part))}.",
                hint='It looks like {"type": "image", "image": a file\'s path, its bytes or an array}.',
            )
        images.append(part["image"])
        return {"type": "image"}

    def message_without(message: Any) -> Any:
        content = message.get("content") if isinstance(message, Mapping) else None
        if not isinstance(content, list | tuple):
            return message
        return {**message, "content": [part_without(part) for part in content]}

    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes):
        return messages, images
    return [message_without(message) for message in messages], images


def joined_parts(messages: Any, image_token: str) -> str:
    """The text of one message, with the image token where an image stands. Raises UserError for several messages."""
    content = messages[0].get("content") if len(messages) == 1 and messages[0].get("role") == "user" else None
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list | tuple) or not parts:
        raise UserError(
            "This model has no chat template: it reads one message, the user's.",
            hint="Send the pictures and the question as parts of one message.",
        )
    return "".join(image_token if _kind(part) == "image" else part["text"] for part in parts)


def _kind(part: Any) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "image" or (kind == "text" and isinstance(part.get("text"), str)):
        return kind
    raise UserError(
        f"Parts of a message are texts and images, not {part!r:.80}.",
        hint='As {"type": "image", "image": "photo.png"} and {"type": "text", "text": "What is this?"}.',
    )
