import colorsys
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from components.core.config import parse_config
from components.core.errors import ConfigError
from components.datasets.check import check_data
from components.datasets.imagenet import digits as imagenet
from components.datasets.inaturalist import digits as inaturalist
from components.datasets.inaturalist.digits import COMMONNESS, long_tail
from components.digits import STAGE, DigitsConfig
from components.rendering.scenes import render_scene
from components.rendering.source import real_digits
from components.vision.decoding import read_image
from tests.datasets.readers import read_image_set

SMALL = DigitsConfig(train_scenes=120, val_scenes=40)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_training_and_validation_digits_never_mix_and_are_all_there() -> None:
    train, val = real_digits("train"), real_digits("val")
    assert len(train.labels) == 1400
    assert len(val.labels) == 397
    assert len(set(train.sources) | set(val.sources)) == 1797
    for digits in (train, val):
        shares = np.bincount(digits.labels) / len(digits.labels)
        assert np.all(np.abs(shares - 0.1) < 0.01)


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for layout in (imagenet, inaturalist):
        written = []
        for name, config in (
            ("one", SMALL),
            ("two", SMALL),
            ("other", SMALL.derive(seed=1)),
        ):
            folder = tmp_path / layout.__name__ / name
            folder.mkdir(parents=True)
            layout.write(config, folder)
            written.append(contents(folder))
        assert written[0] == written[1]
        assert written[0] != written[2]


def test_no_layout_has_faults(tmp_path: Path) -> None:
    for kind, layout in (("imagenet", imagenet), ("inaturalist", inaturalist)):
        (tmp_path / kind).mkdir()
        layout.write(SMALL.derive(companions=2), tmp_path / kind)
        findings = check_data(kind, tmp_path / kind, decode=True)
        assert findings.faults == []
        assert findings.counts["train images"] == 120
        assert findings.counts["val images"] == 40


def test_the_class_of_an_image_is_its_main_digit(tmp_path: Path) -> None:
    imagenet.write(DigitsConfig(train_scenes=10, val_scenes=10), tmp_path)
    digits = real_digits("train")
    train = read_image_set("imagenet", tmp_path, "train")
    by_number = {
        int(train.files[index].split("_")[1].split(".")[0]): train.label(index)
        for index in range(len(train))
    }
    assert [by_number[number] for number in range(1, 11)] == digits.labels[:10].tolist()


def test_scenes_are_light_on_dark_nearly_grey_and_hold_the_digit(tmp_path: Path) -> None:
    digits = real_digits("train")
    for main in range(30):
        scene = render_scene(DigitsConfig(), digits, main, np.random.default_rng(main))
        (instance,) = scene.instances
        left, top, width, height = instance.box
        assert instance.label == digits.labels[main]
        assert left >= 0 and top >= 0 and left + width <= 48 and top + height <= 48
        assert height >= 24
        ink, ground = instance.ink > 0.7, instance.ink < 0.05
        assert scene.pixels[ink].mean() > scene.pixels[ground].mean() + 60
        assert np.ptp(scene.pixels.mean((0, 1))) < 20


def test_a_coloured_ground_has_one_of_few_hues_behind_a_light_digit() -> None:
    config = DigitsConfig(colours=4)
    digits = real_digits("train")
    hues: Counter[int] = Counter()
    for main in range(60):
        scene = render_scene(config, digits, main, np.random.default_rng(main))
        (instance,) = scene.instances
        ink = scene.pixels[instance.ink > 0.95].mean(0)
        ground = scene.pixels[instance.ink == 0].mean(0)
        hue, saturation, _ = colorsys.rgb_to_hsv(*ground)
        place = 4 * hue
        assert abs(place - round(place)) < 0.15
        assert saturation > 0.8
        assert np.ptp(ink) < 30
        assert ink.mean() > ground.mean() + 60
        hues[round(place) % 4] += 1
    assert set(hues) == {0, 1, 2, 3}
    assert max(hues.values()) < 30


def test_companions_are_fainter_and_smaller_than_the_main_digit() -> None:
    config = DigitsConfig(companions=3, texture=0)
    digits = real_digits("train")
    scenes = [render_scene(config, digits, 0, np.random.default_rng(i)) for i in range(40)]
    assert {len(scene.instances) for scene in scenes} == {1, 2, 3, 4}
    for scene in scenes:
        main, *others = scene.instances
        assert all(other.box[3] < main.box[3] for other in others)


def test_inaturalist_is_long_tailed_in_training_and_even_in_validation(tmp_path: Path) -> None:
    inaturalist.write(DigitsConfig(train_scenes=1000, val_scenes=397), tmp_path)
    train = Counter(read_image_set("inaturalist", tmp_path, "train").labels.tolist())
    val = Counter(read_image_set("inaturalist", tmp_path, "val").labels.tolist())
    assert [label for label, _ in train.most_common()] == list(COMMONNESS)
    assert 8 < train[COMMONNESS[0]] / train[COMMONNESS[-1]] < 12
    assert max(val.values()) <= 1.1 * min(val.values())
    document = json.loads((tmp_path / "train2018.json").read_text())
    assert {c["supercategory"] for c in document["categories"]} == {"Round", "Straight", "Mixed"}


@pytest.mark.parametrize("imbalance", [1, 10, 100])
def test_a_long_tail_divides_every_scene(imbalance: float) -> None:
    counts = long_tail(4200, imbalance)
    assert counts.sum() == 4200
    assert counts[0] / counts[-1] == pytest.approx(imbalance, rel=0.05)


def test_sizes_that_do_not_ascend_are_refused() -> None:
    with pytest.raises(ConfigError, match="digit_size"):
        parse_config(DigitsConfig, {"digit_size": [0.9, 0.5]})


def test_the_stage_runs_from_its_command_line(tmp_path: Path) -> None:
    small = SMALL.derive(pictures={"train": 20, "val": 20})
    outputs = {port: str(tmp_path / port) for port in STAGE.outputs}
    subprocess.run([sys.executable, *STAGE.argv(small, {}, outputs)], check=True, timeout=120)
    for port, folder in outputs.items():
        assert (Path(folder) / "manifest.json").is_file()
        assert check_data(port, Path(folder)).faults == []
    for port in ("imagenet", "inaturalist"):
        folder = outputs[port]
        images = read_image_set(port, Path(folder), "train")
        assert read_image(images.path(0)).shape == (48, 48, 3)


def test_declaring_the_stage_imports_neither_numpy_nor_torch() -> None:
    program = (
        "import sys, components.digits, components.vision.config; "
        "sys.exit(bool({'numpy', 'torch', 'cv2', 'sklearn'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
