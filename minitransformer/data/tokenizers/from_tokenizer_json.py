"""Byte-level BPE out of a tokenizer.json, the file of Hugging Face's library `tokenizers`."""

from __future__ import annotations

from .bpe import BPETokenizer

__all__ = ["bpe_from_tokenizer_json"]


def bpe_from_tokenizer_json(file: dict, path) -> BPETokenizer:
    """The tokenizer of a file that was read; `path` begins the message of the ValueError for one of another kind."""

    def wrong(field, wanted, got):
        return ValueError(f"{path}: {field} must be {wanted}, got {got!r}")

    model, added = file.get("model"), file.get("added_tokens", [])
    if not isinstance(model, dict) or model.get("type") != "BPE":
        raise wrong("'model'", "of type BPE", model.get("type") if isinstance(model, dict) else model)
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise wrong(f"model.{key}", "empty to be read", model[key])
    if file.get("normalizer") is not None:
        raise wrong("'normalizer'", "null to be read", file["normalizer"])
    ids, merges = model.get("vocab"), model.get("merges")
    if not isinstance(ids, dict) or not isinstance(merges, list):
        raise ValueError(f"{path}: model.vocab must be an object and model.merges a list")
    ids, special = dict(ids), []
    for token in added if isinstance(added, list) else [None]:
        if not isinstance(token, dict) or not isinstance(token.get("content"), str) or type(token.get("id")) is not int:
            raise wrong("each of 'added_tokens'", "an object with content and id", token)
        if ids.setdefault(token["content"], token["id"]) != token["id"]:
            raise wrong(f"the id of {token['content']!r} in 'added_tokens'", ids[token["content"]], token["id"])
        special.append(token["id"])
    if not all(type(id) is int for id in ids.values()) or sorted(ids.values()) != list(range(len(ids))):
        raise ValueError(f"{path}: model.vocab and added_tokens must give the ids 0..{len(ids) - 1}, each once")
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]  # the older form, and the newer
    if not all(isinstance(pair, list) and len(pair) == 2 and all(isinstance(t, str) for t in pair) for pair in pairs):
        raise ValueError(f"{path}: each of model.merges must be two tokens")
    rule = _rule(file.get("pre_tokenizer"))
    if rule is None:
        raise wrong("'pre_tokenizer'", "that of GPT-2 or SmolLM", file.get("pre_tokenizer"))
    try:
        return BPETokenizer.from_letters(sorted(ids, key=ids.get), [" ".join(pair) for pair in pairs], special, rule)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _rule(parts):
    """The name of our rule for a pre-tokenizer, or None."""
    steps = parts.get("pretokenizers") if isinstance(parts, dict) and parts.get("type") == "Sequence" else [parts]
    if not isinstance(steps, list) or not steps or not all(isinstance(step, dict) for step in steps):
        return None
    last = steps[-1]
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space") or last.get("use_regex", True) is not True:
        return None
    if len(steps) == 1:
        return "gpt2"
    digits = steps[0].get("type") == "Digits" and steps[0].get("individual_digits") is True
    return "smollm" if digits and len(steps) == 2 else None
