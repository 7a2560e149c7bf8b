"""Networks of Hugging Face transformers, of pairs of texts or of images.

Pairs pass one network, each text is the mean over its tokens or its first token, and the pair is compared as that of the
BiLSTM, `[u; v; |u - v|; u * v]`. A data set has texts as the words of its own vocabulary; each word is cut into the tokens
of the network once, so that neither a text nor the tokenizer is needed while training. Departure from a tokenizer of whole
texts: spaces before punctuation are kept as the data set's words have them.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dirtune import batch, manifest
from dirtune.errors import Fault, InputError
from dirtune.models.encoders import backbone
from dirtune.models.encoders.encoder import Encoder, make_input_error
from dirtune.models.encoders.pair_mlp import compare_pair
from dirtune.process import silence_loggers

FIRST, SECOND = "first", "second"
_PADDING = 0
_MOST_TOKENS = 512


class Transformers(backbone.ImageBackboneSpec):
    """Network of transformers; reads two token inputs with one vocabulary, `first` and `second`, or one image input."""

    reads_vocabulary: ClassVar[bool] = True

    name: Literal["transformers"] = "transformers"
    pooling: Literal["mean", "first"] = "mean"
    """Embedding of a text or image: the mean over its tokens, or its first token."""

    def build(self, inputs: dict[str, manifest.InputSpec], vocabulary: Sequence[str] | None = None) -> Encoder:
        """Return the encoder, initialized from torch's global generator or the weights.

        Args:
            inputs: the data set's inputs.
            vocabulary: its tokens by id, needed for texts.

        Raises:
            InputError: the inputs do not fit, transformers is not installed, or the network is not on this machine.
        """
        pair = [inputs[name] for name in (FIRST, SECOND) if name in inputs]
        is_text = len(pair) == 2 and all(each.kind == "tokens" for each in pair)
        if not is_text and not any(each.kind == "image" for each in inputs.values()):
            raise make_input_error(self.name, "two token inputs of one vocabulary, or one image input", inputs)
        if is_text and pair[0].vocabulary != pair[1].vocabulary:
            raise make_input_error(self.name, "two token inputs of one vocabulary", inputs, (FIRST, SECOND))
        return self._build_pair(pair[0].vocabulary or 0, vocabulary) if is_text else self._build_image(inputs)

    def find_weights(self) -> Sequence[Path]:
        """Return the files of the weights, and of the tokenizer, which decides what they mean; none for random ones.

        Raises:
            InputError: they are not on this machine.
        """
        if not self.pretrained:
            return []
        files = sorted(self._find_folder().glob("*.safetensors"))
        if not files:
            rule = "has no weights as .safetensors"
            raise InputError(Fault(where="model.encoder.model", rule=rule, got=self.model))
        return [*files, *sorted(self._find_folder().glob("tokenizer*"))]

    def hash_weights(self) -> str | None:
        """Return the hash of configuration and weights: unlike in other libraries, also the configuration is a file."""
        files = [*sorted(self._find_folder().glob("*.json")), *self.find_weights()]
        return backbone.hash_files(tuple(str(path) for path in dict.fromkeys(files)))

    def _build_pair(self, size: int, vocabulary: Sequence[str] | None) -> Encoder:
        library, folder = _import_transformers(), self._find_folder()
        network = self._build_network(folder)
        if backbone.is_meta():
            return _PairEncoder(self, network, torch.zeros(size, 1, dtype=torch.long), (), (), 1)
        if vocabulary is None or len(vocabulary) != size:
            rule = f"needs the data set's vocabulary of {size} tokens; tokens given"
            raise InputError(Fault(where="model.encoder", rule=rule, got=len(vocabulary or ())))
        tokenizer = library.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        unknown = [] if tokenizer.unk_token_id is None else [tokenizer.unk_token_id]
        words = [tokenizer.encode(word, add_special_tokens=False) or unknown for word in vocabulary]
        words[_PADDING] = []
        table = torch.full((size, max(1, *map(len, words))), -1)
        for row, tokens in enumerate(words):
            table[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
        # What the tokenizer adds before and after a text
        marked, mark = tokenizer.encode("a"), tokenizer.encode("a", add_special_tokens=False)
        start = next((at for at in range(len(marked)) if marked[at : at + len(mark)] == mark), 0)
        longest = min(_MOST_TOKENS, getattr(network.config, "max_position_embeddings", _MOST_TOKENS))
        return _PairEncoder(self, network, table, tuple(marked[:start]), tuple(marked[start + len(mark) :]), longest)

    def _build_image(self, inputs: dict[str, manifest.InputSpec]) -> Encoder:
        reads, folder = backbone.find_image(self.name, inputs), self._find_folder()
        network = self._build_network(folder)
        processor = folder / "preprocessor_config.json"
        about = json.loads(processor.read_text(encoding="utf-8")) if processor.is_file() else {}
        own_size: int = getattr(network.config, "image_size", 224)
        size = self.image_size or own_size
        mean, deviation = about.get("image_mean", backbone.IMAGENET[0]), about.get("image_std", backbone.IMAGENET[1])
        built = _ImageEncoder(
            self, reads, network, size=(size, size), dim=_get_dim(network), mean=mean, deviation=deviation
        )
        built.pooling = self.pooling
        return built

    def _build_network(self, folder: Path) -> Any:
        library = _import_transformers()
        config = library.AutoConfig.from_pretrained(folder, local_files_only=True)
        # Some networks have no pooling layer that could be left out.
        for options in ({"add_pooling_layer": False}, {}):
            try:
                if self.find_weights() and not backbone.is_meta():
                    return self._load_network(library, folder, options)
                return library.AutoModel.from_config(config, **options)
            except TypeError:
                continue
        raise InputError(Fault(where="model.encoder.model", rule="cannot be built by transformers", got=self.model))

    def _load_network(self, library: Any, folder: Path, options: dict[str, bool]) -> Any:
        library.utils.logging.disable_progress_bar()
        # It reports weights that are not used, such as those of the pooling layer.
        with silence_loggers("transformers"):
            network, info = library.AutoModel.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                **options,
            )
        if missing := sorted([*info["missing_keys"], *map(str, info["mismatched_keys"])]):
            rule = f"its file of weights lacks {len(missing)} of the network's, such as {missing[0]}"
            raise InputError(Fault(where="model.encoder.model", rule=rule, got=self.model))
        return network

    def _find_folder(self) -> Path:
        """Return the folder of the network: a local one, or that of the hub's cache."""
        _import_transformers()
        local = Path(os.path.expanduser(self.model))
        if (local / "config.json").is_file():
            return local
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            found = try_to_load_from_cache(self.model, "config.json")
        except HFValidationError:
            found = None
        if not isinstance(found, str):
            rule = f"is no folder with a config.json, and not in the cache of the hub; fetch it once by `hf download {self.model}`"
            raise InputError(Fault(where="model.encoder.model", rule=rule, got=self.model))
        return Path(found).parent


class _ImageEncoder(backbone.ImageBackbone):
    pooling = "mean"

    def select(self, output: Any) -> Tensor:
        """Return the mean over the positions of the last layer, or the first position."""
        states: Tensor = output.last_hidden_state
        if states.ndim == 4:
            return states.mean(dim=(-2, -1))
        return states[:, 0] if self.pooling == "first" else states.mean(dim=1)


class _PairEncoder(backbone.Backbone):
    table: Tensor

    def __init__(
        self,
        spec: Transformers,
        network: Any,
        table: Int[Tensor, "words pieces"],
        before: Sequence[int],
        after: Sequence[int],
        longest: int,
    ) -> None:
        super().__init__(spec, network)
        self.before, self.after, self.longest = tuple(before), tuple(after), longest
        self.pooling = spec.pooling
        self.embedding_dim = 4 * _get_dim(network)
        # Not in checkpoints: it follows from the vocabulary and the tokenizer.
        self.register_buffer("table", table, persistent=False)

    def forward(self, inputs: batch.Inputs) -> Float[Tensor, "batch embedding_dim"]:
        return compare_pair(self._embed_text(inputs[FIRST]), self._embed_text(inputs[SECOND]))

    def _embed_text(self, words: Int[Tensor, "batch time"]) -> Float[Tensor, "batch dim"]:
        tokens, mask = self._tokenize(words)
        states = self.network(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        if self.pooling == "first":
            first: Tensor = states[:, 0]
            return first
        shares = mask[..., None].to(states.dtype)
        means: Tensor = (states * shares).sum(dim=1) / shares.sum(dim=1).clamp(min=1)
        return means

    def _tokenize(self, words: Int[Tensor, "batch time"]) -> tuple[Int[Tensor, "batch tokens"], Tensor]:
        """Return the network's tokens of each text, and a mask of those that are not padding."""
        pieces = self.table[words.long()].flatten(1)
        # Stable, so that the pieces stay in order and padding goes last
        order = (pieces < 0).to(torch.uint8).argsort(dim=1, stable=True)
        pieces = pieces.gather(1, order)[:, : self.longest - len(self.before) - len(self.after)]
        lengths = (pieces >= 0).sum(dim=1, keepdim=True)
        before = pieces.new_tensor(self.before).expand(len(pieces), -1)
        tokens = torch.cat([before, pieces, pieces.new_full((len(pieces), len(self.after)), -1)], dim=1)
        for offset, token in enumerate(self.after):
            tokens = tokens.scatter(1, len(self.before) + lengths + offset, token)
        tokens = tokens[:, : int(tokens.ge(0).sum(dim=1).amax()) if len(tokens) else 1]
        mask = tokens >= 0
        return tokens.clamp(min=0), mask


def _get_dim(network: Any) -> int:
    config = network.config
    sizes = getattr(config, "hidden_sizes", None)
    return int(sizes[-1] if sizes else config.hidden_size)


def _import_transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise backbone.make_missing_error("transformers", "transformers") from None
    return transformers
