"""The sentence-pair encoder of the STS-B-DIR baselines: word vectors, a bidirectional LSTM, max-pooling, comparison.

Both sentences pass the same word vectors and the same LSTM; each is max-pooled over its tokens, and the pair becomes
`[u; v; |u - v|; u * v]`. Sentences are packed, so that the LSTM never reads padding in either direction.

Source: Wang et al., "GLUE", ICLR 2019 (BiLSTM baseline), as used by Yang et al., ICML 2021 (YyzHarry/
imbalanced-regression, `sts-b-dir/models.py`): 300-dimensional GloVe vectors, two layers of 1500 units per direction,
dropout 0.2 on word vectors and LSTM outputs. Departures: 1. word vectors are trained unless `train_vectors` is off
(officially frozen); 2. `word_dropout` is the project's own, to make two views of a sentence differ by whole words; 3. a
sentence without tokens is a vector of zeros instead of infinities.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from dirtune import batch, manifest
from dirtune.errors import Fault, InputError
from dirtune.frozen import Frozen
from dirtune.models.encoders.encoder import Encoder, make_input_error
from dirtune.models.encoders.pair_mlp import compare_pair

FIRST, SECOND = "first", "second"
_PADDING = 0


class BiLSTM(Frozen):
    """Reads two token inputs with one vocabulary, `first` and `second`; `embedding_dim = 8 * hidden`."""

    reads_vocabulary: ClassVar[bool] = True

    name: Literal["bilstm"] = "bilstm"
    vector_size: int = Field(default=300, gt=0)
    """Size of a word vector."""
    hidden: int = Field(default=1500, gt=0)
    """LSTM units in each direction."""
    layers: int = Field(default=2, gt=0)
    """LSTM layers."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of values set to zero in training, in word vectors and in LSTM outputs."""
    word_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of tokens whose whole vector is set to zero in training; the paper has none."""
    vectors_file: str | None = None
    """Word vectors as text, one `token v1 v2 ...` per line (GloVe). Words not in it, or all if None, start from N(0, 1)."""
    train_vectors: bool = True
    """Train the word vectors; the paper keeps them frozen."""

    def build(self, inputs: dict[str, manifest.InputSpec], vocabulary: Sequence[str] | None = None) -> Encoder:
        """Return the encoder, initialized from torch's global generator and the vectors file.

        Args:
            inputs: the data set's inputs.
            vocabulary: its tokens by id, needed with a vectors file.

        Raises:
            InputError: the inputs do not fit, or the vectors file cannot be used.
        """
        pair = [inputs[name] for name in (FIRST, SECOND) if name in inputs]
        # One table of word vectors serves both sentences, so that an id must mean the same token in both.
        ids = {spec.vocabulary for spec in pair if spec.kind == "tokens"}
        size = ids.pop() if len(pair) == 2 and len(ids) == 1 else None
        if size is None or any(spec.kind != "tokens" for spec in pair):
            raise make_input_error(self.name, "two token inputs of one vocabulary", inputs, (FIRST, SECOND))
        encoder = _BiLSTM(self, size)
        if self.vectors_file is not None:
            if vocabulary is None or len(vocabulary) != size:
                rule = f"vectors_file needs the data set's vocabulary of {size} tokens; tokens given"
                raise InputError(Fault(where="model.encoder", rule=rule, got=len(vocabulary or ())))
            known = read_vectors(Path(self.vectors_file), vocabulary, self.vector_size)
            with torch.no_grad():
                for token, vector in known.items():
                    encoder.vectors.weight[token] = vector
        return encoder


class _BiLSTM(Encoder):
    def __init__(self, spec: BiLSTM, vocabulary: int) -> None:
        super().__init__()
        self.vectors = nn.Embedding(vocabulary, spec.vector_size, padding_idx=_PADDING)
        self.vectors.weight.requires_grad_(spec.train_vectors)
        self.lstm = nn.LSTM(spec.vector_size, spec.hidden, spec.layers, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(spec.dropout)
        self.word_dropout = spec.word_dropout
        self.embedding_dim = 8 * spec.hidden

    def forward(self, inputs: batch.Inputs) -> Float[Tensor, "batch embedding_dim"]:
        return compare_pair(self._encode_sentence(inputs[FIRST]), self._encode_sentence(inputs[SECOND]))

    def _encode_sentence(self, tokens: Int[Tensor, "batch time"]) -> Float[Tensor, "batch dim"]:
        # A comparison of the number of rows would fix it in an exported program.
        if not torch.compiler.is_exporting() and len(tokens) == 0:
            # A rank may have no row of a short last batch; packing refuses that, so one empty sentence is used instead.
            return self._encode_sentence(tokens.new_zeros((1, tokens.shape[1])))[:0]
        # One past each row's last token that is not padding
        positions = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
        lengths = ((tokens != _PADDING) * positions).amax(dim=1)
        if torch.compiler.is_exporting():
            return self._encode_padded(self.vectors(tokens), lengths)
        vectors = self.dropout(self._drop_words(self.vectors(tokens)))
        # Packing refuses empty sentences too: they enter with one padding token and are zeroed below.
        packed = pack_padded_sequence(vectors, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
        outputs, _ = self.lstm(packed)
        dropped = outputs._replace(data=self.dropout(outputs.data))
        padded, _ = pad_packed_sequence(dropped, batch_first=True, padding_value=-torch.inf)
        return torch.where((lengths > 0)[:, None], padded.amax(dim=1), 0.0)

    def _encode_padded(
        self, vectors: Float[Tensor, "batch time size"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch dim"]:
        """Return the same without packing, which exported programs do not have, for evaluation."""
        batch, time, _ = vectors.shape
        steps = torch.arange(time, device=vectors.device)
        # A sentence backwards from its last token; what comes after its first one is not read.
        backwards = (lengths[:, None] - 1 - steps).clamp(min=0)[..., None]
        state = vectors.new_zeros(1, batch, self.lstm.hidden_size)
        for layer in range(self.lstm.num_layers):
            outputs = []
            for suffix in ("", "_reverse"):
                names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                weights = [getattr(self.lstm, f"{name}_l{layer}{suffix}") for name in names]
                order = backwards.expand(-1, -1, vectors.shape[2])
                read = vectors.gather(1, order) if suffix else vectors
                output, _, _ = torch.lstm(read, (state, state), weights, True, 1, 0.0, False, False, True)
                outputs.append(output.gather(1, backwards.expand(-1, -1, output.shape[2])) if suffix else output)
            vectors = torch.cat(outputs, dim=2)
        inside = (steps < lengths[:, None])[..., None]
        return torch.where((lengths > 0)[:, None], torch.where(inside, vectors, -torch.inf).amax(dim=1), 0.0)

    def _drop_words(self, vectors: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time dim"]:
        if not self.training or self.word_dropout == 0:
            return vectors
        kept = torch.rand(vectors.shape[:2], device=vectors.device) >= self.word_dropout
        return vectors * kept[..., None]


def read_vectors(path: Path, vocabulary: Sequence[str], size: int) -> dict[int, Tensor]:
    """Read the vectors of a vocabulary's tokens from a word-vector file, by token id.

    A line is split at its first space. GloVe 840B also has entries that contain spaces; they have too many fields, are no
    token of any vocabulary here, and are skipped.

    Args:
        path: text file, one `token v1 v2 ...` per line.
        vocabulary: tokens by id.
        size: numbers per line.

    Raises:
        InputError: the file cannot be read, a token's line has too few numbers or a field that is no number, or the file
            has none of the tokens.
    """
    ids = {token: index for index, token in enumerate(vocabulary) if index != _PADDING}
    found: dict[int, Tensor] = {}
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                token, _, rest = line.rstrip("\n").partition(" ")
                if token in ids and len(fields := rest.split()) <= size:
                    found[ids[token]] = _parse_vector(fields, size, where=f"{path}:{number}")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Fault(where=str(path), rule=f"cannot be read ({error})")) from None
    if not found:
        raise InputError(Fault(where=str(path), rule="holds no token of the vocabulary"))
    return found


def _parse_vector(fields: list[str], size: int, *, where: str) -> Float[Tensor, " size"]:
    try:
        values = [float(field) for field in fields]
    except ValueError as error:
        raise InputError(Fault(where=where, rule=f"must hold numbers ({error})")) from None
    if len(values) != size:
        rule = f"must hold {size} numbers (model.encoder.vector_size)"
        raise InputError(Fault(where=where, rule=rule, got=len(values)))
    return torch.tensor(values)
