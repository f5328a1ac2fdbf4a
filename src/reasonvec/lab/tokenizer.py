"""The lab's tokenizer: an ordinary Qwen2 tokenizer, byte-level, with one token for each word, number and sign.

One token per number is what makes arithmetic learnable in a minute: with one token per digit a model twice the size
was still at 1-3 % after three minutes. It must be Qwen2's own class: for `model_type` qwen2 transformers 5 builds
that class whatever the checkpoint's tokenizer.json says, so any other kind would come back as garbage, silently.
"""

from tokenizers import AddedToken
from tokenizers.pre_tokenizers import ByteLevel
from transformers import Qwen2Tokenizer

PAD, END, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"

# a space before every text, so that a word is the same token wherever it stands
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'user' %}<|user|> {{ message.content }}"
    "{% elif message.role == 'assistant' %}<|assistant|> {{ message.content }}<|end|>"
    "{% else %}{{ raise_exception('only user and assistant speak here, not ' + message.role) }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def build_tokenizer(*, words: list[str], signs: list[str], largest_number: int) -> Qwen2Tokenizer:
    """A tokenizer in which `words` and 0..`largest_number` are one token with the space before them, `signs` without.

    Any other text is spelt in bytes, so every text comes back from its ids unchanged. Padding is on the left, for
    generation.
    """
    numbers = [str(number) for number in range(largest_number + 1)]
    tokens = [*(f" {word}" for word in [*words, *numbers]), *signs]
    if len(set(tokens)) != len(tokens):
        raise ValueError(f"{len(tokens) - len(set(tokens))} tokens are listed twice; each needs one id.")
    alphabet = sorted(ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([PAD, END, USER, ASSISTANT, *alphabet])}
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=[],
        unk_token=None,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens=[USER, ASSISTANT],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in tokens])
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
