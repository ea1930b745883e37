"""Which names a ResNet's tensors have in the checkpoints of other code, and where in them it is.

There are four ways to name a ResNet's tensors (`DIALECTS`). Everything else is a prefix before
them, or a dictionary around them, and these are found rather than listed:

    module.encoder_q. (MoCo)          module.base_encoder. (MoCo v3)    encoder_q.0. (mmselfsup)
    backbone. (solo-learn, lightly)   module. (SwAV, DDP)               module.backbone. (VICReg)
    teacher: backbone. (DINO)         model: module.backbone. (Barlow Twins)
    module.encoder. (PIRL, SimSiam)   classy_state_dict: base_model: model: trunk:
    resnet. (Hugging Face)                _feature_blocks. (VISSL)

What wraps modules anywhere (torch.compile, FSDP) leaves marks in names, which are passed over.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

Shape = tuple[int, ...]

_CHILDREN = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
_WRAPPERS = re.compile(r"(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_FOLLOWER = re.compile(r"(?:^|[._])(?:encoder_k|momentum|target|key)(?:[._]|$)")
_MOCO = re.compile(r"(?:^|[._])(?:encoder_q|encoder_k)\.")
_MOCO_V3 = re.compile(r"(?:^|\.)(base_encoder|momentum_encoder)\.")
_CLASSIFIER = re.compile(r"(?:^|\.)(?:fc|classifier(?:\.\d+)?)\.weight$")
EMBEDDING = 128  # what MoCo v1 and its contemporaries map to, by a layer that is called `fc` too


@dataclass(frozen=True)
class Dialect:
    """A way to name the tensors of a ResNet.

    Attributes:
        name: Whose it is.
        anchor: Matches a tensor of a stage's first block, without what comes before.
        translate: Returns torchvision's name, or None for what lies beside the encoder.
    """

    name: str
    anchor: str
    translate: Callable[[str], str | None]


def _torchvision(name: str) -> str | None:
    return name if re.match(r"(?:conv|bn|layer)\d", name) else None


def _detectron2(name: str) -> str | None:
    """Translate detectron2's name: stages 2 to 5, and norms that belong to convolutions."""
    stem, _, part = name.partition(".")
    if stem == "stem":
        if part.startswith("fc."):
            return None  # the authors' converter keeps it there
        prefix = ""
    elif stage := re.fullmatch(r"res([2-5])\.(\d+)\.(.+)", name):
        prefix, part = f"layer{int(stage[1]) - 1}.{stage[2]}.", stage[3]
    else:
        return None
    part = re.sub(r"^shortcut\.norm\.", "downsample.1.", part)
    part = re.sub(r"^shortcut\.", "downsample.0.", part)
    return prefix + re.sub(r"^conv(\d)\.norm\.", r"bn\1.", part)


def _hugging_face(name: str) -> str | None:
    """Translate the name of Hugging Face's ResNetModel: stages, layers and convolutions from 0."""
    kind, _, part = name.partition(".")
    if kind == "embedder":
        part = re.sub(r"^embedder\.convolution\.", "conv1.", part)
        return re.sub(r"^embedder\.normalization\.", "bn1.", part)
    block = re.fullmatch(r"encoder\.stages\.(\d)\.layers\.(\d+)\.(.+)", name)
    if block is None:
        return None
    part = re.sub(r"^shortcut\.convolution\.", "downsample.0.", block[3])
    part = re.sub(r"^shortcut\.normalization\.", "downsample.1.", part)
    if layer := re.fullmatch(r"layer\.(\d)\.(convolution|normalization)\.(.+)", part):
        kind = "conv" if layer[2] == "convolution" else "bn"
        part = f"{kind}{int(layer[1]) + 1}.{layer[3]}"
    return f"layer{int(block[1]) + 1}.{block[2]}.{part}"


DIALECTS = (
    Dialect("torchvision", r"layer[1-4]\.0\.conv[12]\.weight", _torchvision),
    Dialect("detectron2", r"res[2-5]\.0\.conv[12]\.weight", _detectron2),
    Dialect(
        "Hugging Face",
        r"encoder\.stages\.[0-3]\.layers\.0\.layer\.[01]\.convolution\.weight",
        _hugging_face,
    ),
)
SEQUENTIAL = r"\d+\.0\.conv[12]\.weight"
"""An `nn.Sequential` of a ResNet's children numbers them; which number is which is counted."""


def _sequential(names: Iterable[str]) -> Dialect | None:
    """Return the dialect of numbered children: the four with blocks, and the two before them.

    Numbers in between belong to what has no tensors, a ReLU or a pooling.
    """
    numbered = [name.split(".") for name in names]
    numbers = sorted({int(parts[0]) for parts in numbered if parts[0].isdecimal()})
    blocks = sorted({int(p[0]) for p in numbered if re.match(SEQUENTIAL, ".".join(p))})
    stem = [number for number in numbers if blocks and number < blocks[0]]
    if len(blocks) != 4 or len(stem) != 2:
        return None
    parts = dict(zip([*stem, *blocks], _CHILDREN, strict=True))

    def translate(name: str) -> str | None:
        number, _, rest = name.partition(".")
        part = parts.get(int(number)) if number.isdecimal() else None
        return part and f"{part}.{rest}"

    return Dialect("nn.Sequential", SEQUENTIAL, translate)


@dataclass(frozen=True)
class Candidate:
    """What may be an encoder.

    Attributes:
        container: The dictionary that it is in, by the keys that lead to it, joined by dots.
        prefix: What its names begin with there, without the marks of wrappers.
        dialect: How they go on.
        tensors: Their names in the container, by torchvision's names.
    """

    container: str
    prefix: str
    dialect: str
    tensors: Mapping[str, str] = field(repr=False)

    @property
    def path(self) -> str:
        """The prefix with all that leads to it."""
        return f"{self.container}.{self.prefix}" if self.container else self.prefix

    @property
    def follows(self) -> bool:
        """Whether another encoder is the one that is trained, and this its moving average."""
        return _FOLLOWER.search(self.path) is not None


def unwrapped(name: str) -> str:
    """Leave out of a name what compiling and sharding modules put into it."""
    return _WRAPPERS.sub("", name)


def candidates(containers: Mapping[str, Iterable[str]]) -> list[Candidate]:
    """Find what may be an encoder among tensors' names, by container."""
    return [
        candidate for path, names in containers.items() for candidate in _in_container(path, names)
    ]


def _in_container(container: str, names: Iterable[str]) -> Iterator[Candidate]:
    plain = {unwrapped(name): name for name in names}
    for dialect in (*DIALECTS, None):
        anchor = re.compile(rf"((?:.*\.)?){dialect.anchor if dialect else SEQUENTIAL}")
        matches = (anchor.fullmatch(name) for name in plain)
        for prefix in dict.fromkeys(match[1] for match in matches if match):
            inside = {
                name.removeprefix(prefix): original
                for name, original in plain.items()
                if name.startswith(prefix)
            }
            spoken = dialect or _sequential(inside)
            if spoken is not None:
                named = {spoken.translate(name): original for name, original in inside.items()}
                tensors = {name: original for name, original in named.items() if name is not None}
                yield Candidate(container, prefix, spoken.name, tensors)


def origin_of(candidate: Candidate, shapes: Mapping[str, Shape], trained: int | None) -> str:
    """Say what an encoder was trained by, as far as its container tells.

    Args:
        candidate: The encoder.
        shapes: Of every tensor of its container, by name.
        trained: How many parameters the optimiser's state beside it has, if it is there.

    Returns:
        `moco` beside a query or a key encoder of MoCo; `supervised` with nothing beside it but
        a layer that classifies; otherwise `unknown`.
    """
    plain = {unwrapped(name): shape for name, shape in shapes.items()}
    if any(map(_MOCO.search, plain)):
        return "moco"
    if {match[1] for match in map(_MOCO_V3.search, plain) if match} == {
        "base_encoder",
        "momentum_encoder",
    }:
        return "moco"
    taken = {unwrapped(name) for name in candidate.tensors.values()}
    beside = {name: shape for name, shape in plain.items() if name not in taken}
    width = max(shape[0] for name in taken if (shape := plain[name]))
    heads = [name for name in beside if _CLASSIFIER.search(name)]
    if len(heads) != 1 or beside.keys() != {heads[0], f"{heads[0].removesuffix('weight')}bias"}:
        return "unknown"
    shape = beside[heads[0]]
    if len(shape) != 2 or shape[1] != width or shape[0] == EMBEDDING:
        return "unknown"
    learnt = [name for name in candidate.tensors if name.endswith(("weight", "bias"))]
    return "unknown" if trained is not None and trained < len(learnt) else "supervised"
