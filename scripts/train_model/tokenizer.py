"""A vocabulary of whole words with bytes to fall back on.

llama.cpp's "llama-bpe" pre-tokenizer cuts text into pieces (a word with the space before it, a number of up to three digits,
a run of punctuation) and takes a piece that is in the vocabulary as one token, without going through merges. A piece
that is not in the vocabulary becomes its bytes. So no merges are needed, and every word of the tasks is one token.
"""
import re

SPECIAL_TOKENS = ["<|begin|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]

# node-llama-cpp begins every chat with this system prompt unless it is given another. Its words are of no use to the tasks,
# so the whole of it is one token: llama.cpp finds user-defined tokens in a text before it cuts the rest into pieces.
DEFAULT_SYSTEM_PROMPT = (
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible.\n"
    "If a question does not make any sense, or is not factually coherent, explain why instead of answering something "
    "incorrectly. If you don't know the answer to a question, don't share false information."
)

# The same cuts as in llama.cpp, for Python's `re`, which has no \p{L} and \p{N}.
PIECE = re.compile(
    r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
    r"|(?:[^\r\n\w]|_)?[^\W\d_]+|\d{1,3}| ?(?:[^\s\w]|_)+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_characters():
    """GPT-2's printable stand-in for each byte: llama.cpp stores the tokens of such vocabularies in it."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    characters = {byte: chr(byte) for byte in plain}
    for byte in range(256):
        if byte not in characters:
            characters[byte] = chr(256 + len(characters) - len(plain))
    return characters


BYTE_CHARACTERS = byte_characters()


def stored_form(piece):
    return "".join(BYTE_CHARACTERS[byte] for byte in piece.encode("utf-8"))


class Tokenizer:
    def __init__(self, words):
        """`words`: pieces of text that get a token of their own beside the single bytes."""
        single_bytes = [BYTE_CHARACTERS[byte] for byte in range(256)]
        longer = sorted({stored_form(word) for word in words} - set(single_bytes))
        self.tokens = SPECIAL_TOKENS + single_bytes + longer + [DEFAULT_SYSTEM_PROMPT]
        self.default_system_prompt = len(self.tokens) - 1
        self.ids = {token: index for index, token in enumerate(self.tokens)}
        self.begin, self.end, self.user, self.assistant, self.system = range(len(SPECIAL_TOKENS))
        self._bytes_of_character = {character: byte for byte, character in BYTE_CHARACTERS.items()}
        self._cache = {}

    @staticmethod
    def pieces(text):
        return PIECE.findall(text)

    def _encode_piece(self, piece):
        form = stored_form(piece)
        whole = self.ids.get(form)
        return [whole] if whole is not None else [self.ids[character] for character in form]

    def encode(self, text):
        ids = []
        for piece in self.pieces(text):
            known = self._cache.get(piece)
            if known is None:
                known = self._cache[piece] = self._encode_piece(piece)
            ids.extend(known)
        return ids

    def decode(self, ids):
        characters = "".join(self.tokens[index] for index in ids if index >= len(SPECIAL_TOKENS))
        return bytes(self._bytes_of_character[character] for character in characters).decode("utf-8", "replace")

    def encode_chat(self, question, reply=None):
        """One turn in the form of the chat template; without a reply, up to where the model goes on."""
        ids = [self.user, *self.encode(question), self.end, self.assistant]
        if reply is not None:
            ids += [*self.encode(reply), self.end]
        return ids
