"""Writes a trained model as GGUF, the file format of llama.cpp (its `ggml/include/gguf.h` describes it)."""
import struct

import torch

from .tokenizer import DEFAULT_SYSTEM_PROMPT, SPECIAL_TOKENS

MAGIC, VERSION, ALIGNMENT = b"GGUF", 3, 32
UINT32, FLOAT32, BOOL, STRING, ARRAY, INT32 = 4, 6, 7, 8, 9, 5  # types of metadata
F32, F16 = 0, 1  # types of tensors
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4  # types of tokens
FILE_TYPE_MOSTLY_F16 = 1

CONTEXT = 512  # the longest rows of training

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def packed_string(text):
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def packed_value(kind, value):
    if kind == STRING:
        return packed_string(value)
    return struct.pack({UINT32: "<I", INT32: "<i", FLOAT32: "<f", BOOL: "<?"}[kind], value)


def token_type(token):
    if token == DEFAULT_SYSTEM_PROMPT:
        return USER_DEFINED
    return CONTROL if token in SPECIAL_TOKENS else NORMAL


def metadata(shape, tokenizer):
    """Key, type, value; a list as value is an array of that type."""
    return [
        ("general.architecture", STRING, "llama"),
        ("general.name", STRING, "reattend-mini"),
        ("general.license", STRING, "mit"),
        ("general.file_type", UINT32, FILE_TYPE_MOSTLY_F16),
        ("llama.vocab_size", UINT32, shape.vocabulary),
        ("llama.context_length", UINT32, CONTEXT),
        ("llama.embedding_length", UINT32, shape.width),
        ("llama.block_count", UINT32, shape.layers),
        ("llama.feed_forward_length", UINT32, shape.feed_forward),
        ("llama.attention.head_count", UINT32, shape.heads),
        ("llama.attention.head_count_kv", UINT32, shape.kv_heads),
        ("llama.attention.layer_norm_rms_epsilon", FLOAT32, shape.norm_epsilon),
        ("llama.rope.dimension_count", UINT32, shape.head_size),
        ("llama.rope.freq_base", FLOAT32, shape.rope_base),
        ("tokenizer.ggml.model", STRING, "gpt2"),
        ("tokenizer.ggml.pre", STRING, "llama-bpe"),
        ("tokenizer.ggml.tokens", STRING, tokenizer.tokens),
        ("tokenizer.ggml.token_type", INT32,
         [token_type(token) for token in tokenizer.tokens]),
        # Whole words are found without merges (see tokenizer.py), but the key has to be there. This pair never meets.
        ("tokenizer.ggml.merges", STRING, ["\u0100 \u0100"]),
        ("tokenizer.ggml.bos_token_id", UINT32, tokenizer.begin),
        ("tokenizer.ggml.eos_token_id", UINT32, tokenizer.end),
        ("tokenizer.ggml.eot_token_id", UINT32, tokenizer.end),
        ("tokenizer.ggml.add_bos_token", BOOL, True),
        ("tokenizer.ggml.add_eos_token", BOOL, False),
        ("tokenizer.chat_template", STRING, CHAT_TEMPLATE),
    ]


def paired_for_llama(weight, heads, size):
    """Our rotary pairs are (i, i + half) within a head, llama.cpp's are neighbours: reorder the rows."""
    return weight.view(heads, 2, size // 2, -1).transpose(1, 2).reshape(heads * size, -1)


def named_tensors(model):
    shape = model.shape
    yield "token_embd.weight", model.embedding
    yield "output_norm.weight", model.norm.weight
    yield "output.weight", model.unembedding
    for index, layer in enumerate(model.layers):
        for name, weight in [
            ("attn_norm", layer.attention_norm.weight),
            ("attn_q", paired_for_llama(layer.query, shape.heads, shape.head_size)),
            ("attn_k", paired_for_llama(layer.key, shape.kv_heads, shape.head_size)),
            ("attn_v", layer.value),
            ("attn_output", layer.output),
            ("ffn_norm", layer.feed_forward_norm.weight),
            ("ffn_gate", layer.gate),
            ("ffn_up", layer.up),
            ("ffn_down", layer.down),
        ]:
            yield f"blk.{index}.{name}.weight", weight


def padding(length):
    return b"\0" * (-length % ALIGNMENT)


@torch.no_grad()
def write(path, model, tokenizer):
    keys = metadata(model.shape, tokenizer)
    head = b""
    for key, kind, value in keys:
        head += packed_string(key)
        if isinstance(value, list):
            head += struct.pack("<IIQ", ARRAY, kind, len(value)) + b"".join(packed_value(kind, item) for item in value)
        else:
            head += struct.pack("<I", kind) + packed_value(kind, value)
    body, count = b"", 0
    for name, weight in named_tensors(model):
        is_matrix = weight.dim() == 2
        data = weight.detach().to(torch.float16 if is_matrix else torch.float32).contiguous().numpy().tobytes()
        sizes = list(reversed(weight.shape))  # GGUF names the fastest dimension first
        head += packed_string(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, F16 if is_matrix else F32, len(body))
        body += data + padding(len(data))
        count += 1
    start = MAGIC + struct.pack("<IQQ", VERSION, count, len(keys)) + head
    with open(path, "wb") as file:
        file.write(start + padding(len(start)) + body)
