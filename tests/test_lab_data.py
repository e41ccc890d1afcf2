"""The data of the lab: the real loading code on small files, damaged and missing ones included."""

import hashlib
import http.server
import io
import os
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from normviz.lab import DataError, Images, build, cifar10, load_images, preset, train
from normviz.lab.data import DATA, Batches, augment, load_cifar10, load_digits

RECORD = 3073


def records(count, seed=0):
    """Bytes of `count` CIFAR-10 records."""
    rows = np.random.RandomState(seed).randint(0, 256, (count, RECORD)).astype(np.uint8)
    rows[:, 0] %= 10
    return rows.tobytes()


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "cifar"
    place.mkdir()
    (place / "data_batch_1.bin").write_bytes(records(7))
    (place / "data_batch_4.bin").write_bytes(records(5, seed=1))
    (place / "test_batch.bin").write_bytes(records(3, seed=2))
    return place


def archive(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if content is None:  # a link that leads out
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


WHOLE = {f"cifar-10-batches-bin/data_batch_{i}.bin": records(2, seed=i) for i in range(1, 6)}
WHOLE["cifar-10-batches-bin/test_batch.bin"] = records(2, seed=6)


@pytest.fixture
def serve(monkeypatch):
    """serve(content) makes the first source answer 404 and the second one with `content`.

    promised: the length that it announces; a longer one than the content is a connection that breaks off.
    """
    servers = []

    def start(content, sha256=None, promised=None):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                found = self.path == "/second.tar.gz"
                self.send_response(200 if found else 404)
                self.send_header("Content-Length", str((promised or len(content)) if found else 0))
                self.end_headers()
                if found:
                    self.wfile.write(content)

            def log_message(self, *arguments):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        base = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setattr(cifar10, "SOURCES", (f"{base}/first.tar.gz", f"{base}/second.tar.gz"))
        monkeypatch.setattr(cifar10, "SHA256", sha256 or hashlib.sha256(content).hexdigest())
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv(cifar10.VARIABLE, raising=False)


def contents(folder: Path) -> list[str]:
    """The names in a folder, but for the lock, which stays."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_digits_are_whole_and_split_for_good():
    images = load_digits()
    assert images.train_x.shape == (1500, 1, 8, 8) and images.test_x.shape == (297, 1, 8, 8)
    assert images.train_x.dtype == torch.uint8 and images.train_x.max() == 16
    assert images.train_y.bincount().min() > 130  # every class is there in numbers
    standard = images.standardise(images.train_x)
    assert standard.mean().abs() < 1e-5
    assert (standard.var(unbiased=False) - 1).abs() < 1e-5
    assert torch.equal(load_digits().train_y, images.train_y)


def test_folder_by_argument_and_by_variable(folder, monkeypatch):
    images = load_cifar10(folder)
    assert images.train_x.shape == (12, 3, 32, 32) and images.test_x.shape == (3, 3, 32, 32)
    first = np.frombuffer(records(7), np.uint8).reshape(7, RECORD)
    assert images.train_y[:7].tolist() == first[:, 0].tolist()
    # The planes come red, green, blue, row by row
    assert images.train_x[2, 1, 5, 9] == first[2, 1 + 1024 + 5 * 32 + 9]
    expected = images.train_x.double().mean((0, 2, 3))
    torch.testing.assert_close(images.mean.flatten().double(), expected, rtol=1e-6, atol=0)
    expected = images.train_x.double().var((0, 2, 3), unbiased=False).sqrt()
    torch.testing.assert_close(images.std.flatten().double(), expected, rtol=1e-6, atol=0)
    monkeypatch.setenv(cifar10.VARIABLE, str(folder))
    assert torch.equal(load_images("cifar10").train_x, images.train_x)


@pytest.mark.parametrize("size", [0, 1, RECORD - 1, 2 * RECORD + 100])
def test_truncated_file_is_named(folder, size):
    (folder / "data_batch_4.bin").write_bytes(records(3)[:size])
    with pytest.raises(DataError, match=r"data_batch_4\.bin is truncated"):
        load_cifar10(folder)


def test_damaged_file_is_named(folder):
    content = bytearray(records(3))
    content[RECORD] = 77
    (folder / "test_batch.bin").write_bytes(content)
    with pytest.raises(DataError, match=r"test_batch\.bin is damaged: record 1 has label 77"):
        load_cifar10(folder)


@pytest.mark.parametrize("missing", ["test_batch.bin", "data_batch_*.bin"])
def test_folder_without_the_files(folder, missing):
    for path in folder.glob(missing):
        path.unlink()
    with pytest.raises(DataError, match="no CIFAR-10 in"):
        load_cifar10(folder)


def test_download_from_the_second_source_is_verified_and_kept(serve, tmp_path):
    server = serve(archive(WHOLE))
    cache = tmp_path / "cache"
    images = load_cifar10(cache=cache)
    assert images.train_x.shape == (10, 3, 32, 32)
    assert contents(cache) == ["cifar-10-batches-bin"]  # no archive, no half of anything
    server.shutdown()
    server.server_close()
    assert torch.equal(load_cifar10(cache=cache).train_x, images.train_x)  # from the cache, as nobody answers now


def test_wrong_hash_is_refused(serve, tmp_path):
    serve(archive(WHOLE), sha256="0" * 64)
    with pytest.raises(DataError, match="hash") as caught:
        load_cifar10(cache=tmp_path)
    assert all(source in str(caught.value) for source in cifar10.SOURCES)
    assert contents(tmp_path) == []


@pytest.mark.parametrize("sha256", [None, "that of the whole"])
def test_download_that_breaks_off_leaves_nothing(sha256, serve, tmp_path):
    whole = archive(WHOLE)
    serve(whole[: len(whole) // 2], sha256 and hashlib.sha256(whole).hexdigest(), promised=len(whole))
    with pytest.raises(DataError, match="could not be fetched") as caught:
        load_cifar10(cache=tmp_path)
    assert all(source in str(caught.value) for source in cifar10.SOURCES)
    assert contents(tmp_path) == []


def test_archive_that_leads_out_writes_nothing_outside(serve, tmp_path):
    outside = str(tmp_path / "absolute-evil.txt")
    evil = {"../evil.txt": b"x", outside: b"x", "cifar-10-batches-bin/../../evil.txt": b"x"}
    serve(archive(evil | WHOLE))
    cache = tmp_path / "a" / "b"
    load_cifar10(cache=cache)
    assert not list(tmp_path.rglob("*evil*"))
    assert len(list((cache / "cifar-10-batches-bin").iterdir())) == 6


def test_archive_with_a_link_for_a_file_is_refused(serve, tmp_path):
    serve(archive(WHOLE | {"cifar-10-batches-bin/test_batch.bin": None}))
    with pytest.raises(DataError, match=r"lacks cifar-10-batches-bin/test_batch\.bin"):
        load_cifar10(cache=tmp_path)
    assert not (tmp_path / "cifar-10-batches-bin").exists()


def test_offline_names_both_sources_and_the_way_around(serve, tmp_path):
    server = serve(b"")
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError) as caught:
        load_cifar10(cache=tmp_path)
    for part in (*cifar10.SOURCES, "folder=", cifar10.VARIABLE, "digits"):
        assert part in str(caught.value)


def test_cache_that_cannot_be_written(tmp_path):
    # A file where the folder should be stops root, too
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot be kept in .*folder="):
        load_cifar10(cache=tmp_path / "file" / "cache")


def read_only(monkeypatch, folder):
    """Nothing can be made in `folder` any more.  Its mode says so to users; root has to be stopped by hand."""
    folder.chmod(0o555)
    make = os.mkdir

    def mkdir(path, *arguments, **options):
        if Path(os.fsdecode(path)).is_relative_to(folder):
            raise PermissionError(13, "Permission denied", str(path))
        return make(path, *arguments, **options)

    monkeypatch.setattr(os, "mkdir", mkdir)


def test_read_only_cache_that_is_whole_is_used(serve, tmp_path, monkeypatch):
    serve(archive(WHOLE))
    first = load_cifar10(cache=tmp_path)
    read_only(monkeypatch, tmp_path)
    monkeypatch.setattr(cifar10, "SOURCES", ("http://127.0.0.1:9/nobody",) * 2)
    assert torch.equal(load_cifar10(cache=tmp_path).train_x, first.train_x)


def test_read_only_cache_that_is_empty_is_an_error(serve, tmp_path, monkeypatch):
    serve(archive(WHOLE))
    read_only(monkeypatch, tmp_path)
    with pytest.raises(DataError, match=r"cannot be kept in .*folder="):
        load_cifar10(cache=tmp_path)
    assert contents(tmp_path) == []


def test_an_incomplete_folder_in_the_cache_is_completed_and_nothing_else_touched(serve, tmp_path):
    serve(archive(WHOLE))
    place = tmp_path / "cifar-10-batches-bin"
    place.mkdir()
    (place / "notes.txt").write_text("mine")
    (place / "data_batch_2.bin").write_bytes(records(2)[:-100])  # a copy that broke off
    assert load_cifar10(cache=tmp_path).train_x.shape == (10, 3, 32, 32)
    assert (place / "notes.txt").read_text() == "mine"
    assert (place / "data_batch_2.bin").read_bytes() == WHOLE["cifar-10-batches-bin/data_batch_2.bin"]


FILL = """
import sys
from normviz.lab import cifar10
cifar10.SOURCES, cifar10.SHA256 = (sys.argv[1],) * 2, sys.argv[2]
print(len(cifar10.read_cifar10(cache=sys.argv[3])[0]))
"""


def test_processes_that_fill_one_cache_at_once_all_get_it(serve, tmp_path):
    content = archive(WHOLE)
    serve(content)
    line = [sys.executable, "-c", FILL, cifar10.SOURCES[1], hashlib.sha256(content).hexdigest(), str(tmp_path / "c")]
    started = [subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for process in started:
        out, error = process.communicate(timeout=120)
        assert out.strip() == "10", error
    assert contents(tmp_path / "c") == ["cifar-10-batches-bin"]


def test_a_wrong_folder_says_where_it_was_named(folder, monkeypatch):
    monkeypatch.setenv(cifar10.VARIABLE, str(folder / "none"))
    with pytest.raises(DataError, match=r"no CIFAR-10 in .*none \(NORMVIZ_CIFAR10="):
        load_images("cifar10")
    (folder / "test_batch.bin").unlink()
    folder.rename(folder.parent / "cifar-10-batches-bin")
    with pytest.raises(DataError, match=r"it is in .*cifar-10-batches-bin"):
        load_cifar10(folder.parent)


def test_unknown_data_set():
    with pytest.raises(ValueError, match="data='mnist' is unknown; it takes one of digits, cifar10"):
        load_images("mnist")


def test_batches_depend_on_seed_and_step_alone():
    images = load_digits()
    recipe = preset("heavy", seed=3, batch=256)
    forward, backward = Batches(images, recipe), Batches(images, recipe)
    # Eight batches of 256 run over the end of the first epoch of 1,500
    seen = {step: backward[step] for step in reversed(range(8))}
    for step in range(8):
        for a, b in zip(forward[step], seen[step], strict=True):
            assert torch.equal(a, b)
    other = Batches(images, preset("heavy", seed=4, batch=256))[0]
    assert not torch.equal(other[1], forward[0][1])


def test_an_epoch_shows_every_image_once():
    images = load_digits()
    batches = Batches(images, preset("tame", batch=100))
    labels = torch.cat([batches[step][1] for step in range(15)])
    assert torch.equal(labels.bincount(), images.train_y.bincount())
    pixels = sum(batches[step][0].double().sum() for step in range(15))
    torch.testing.assert_close(pixels, images.standardise(images.train_x).double().sum(), rtol=0, atol=1e-2)


def test_jitter_multiplies_whole_images_by_a_lognormal():
    x = torch.randn(4000, 1, 2, 2)
    y = augment(x, sigma=0.5, generator=torch.Generator().manual_seed(0))
    factor = (y / x).flatten(1)
    torch.testing.assert_close(factor, factor[:, :1].expand_as(factor))
    logs = factor[:, 0].log()
    # Four standard errors of the mean and of the deviation of 4,000 normal values
    assert logs.mean().abs() < 4 * 0.5 / 4000**0.5
    assert (logs.std() - 0.5).abs() < 4 * 0.5 / (2 * 4000) ** 0.5


def test_flip_and_crop_move_pixels_and_invent_none():
    x = torch.arange(1.0, 1 + 64 * 3 * 6 * 6).view(64, 3, 6, 6)
    flipped = augment(x, flip=True, generator=torch.Generator().manual_seed(0))
    turned = [torch.equal(a, b.flip(-1)) for a, b in zip(x, flipped, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(x, flipped, strict=True)]
    assert all(a != b for a, b in zip(turned, kept, strict=True))
    assert 15 < sum(turned) < 49  # 64 coins

    shifted = augment(x, crop=2, generator=torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(x, (2,) * 4)
    windows = padded.unfold(2, 6, 1).unfold(3, 6, 1)  # (64, 3, 5, 5, 6, 6)
    same = (windows.permute(0, 2, 3, 1, 4, 5) == shifted[:, None, None]).flatten(3).all(-1)
    assert torch.equal(same.flatten(1).sum(1), torch.ones(64, dtype=torch.long))
    assert same.any(0).sum() > 15  # most of the 25 shifts occur


def test_batch_larger_than_the_data():
    with pytest.raises(ValueError, match="batch=2000 is more than the 1,500 training images"):
        Batches(load_digits(), preset("tame", batch=2000))


def test_standardising_leaves_the_images_alone():
    images = load_images("digits")
    floats = images.test_x[:4].float()
    kept = floats.clone()
    once = images.standardise(floats)
    assert torch.equal(floats, kept) and torch.equal(images.standardise(floats), once)
    assert torch.equal(once, images.standardise(images.test_x[:4]))


# A reader's own images ------------------------------------------------------------------------------------------


def own(n=60, size=16, channels=3, classes=4, dtype=np.uint8):
    rng = np.random.default_rng(0)
    shape = (n, channels, size, size) if channels else (n, size, size)
    return rng.integers(0, 200, shape).astype(dtype), rng.integers(0, classes, n)


@pytest.mark.parametrize("model", ["vit", "conv", "gru"])
def test_a_model_takes_its_shape_from_the_images(model):
    x, y = own(channels=None if model == "gru" else 3)
    images = Images.of(x, y, name="noise")
    recipe = preset("tame", "bn", model=model, depth=1, width=12, steps=2, warmup=1, batch=16, patch=4, probe_every=1)
    history = train(recipe, images=images, device="cpu", progress=False)
    assert len(history.loss) == 2 and history.meta["classes"] == 4 and history.meta["images"] == "noise"
    assert history.chance == pytest.approx(np.log(4))
    assert history.meta["tokens"] == (16 if model == "vit" else 256)
    assert build(recipe, images)(images.standardise(images.test_x)).shape == (10, 4)


def test_a_sixth_is_kept_apart_and_nothing_is_lost():
    x, y = own(62)
    images = Images.of(x, y)
    assert (len(images.train_x), len(images.test_x), images.name, images.classes) == (52, 10, "mine", 4)
    assert torch.equal(Images.of(torch.from_numpy(x), torch.from_numpy(y)).test_x, images.test_x)
    both = torch.cat((images.train_x, images.test_x)).flatten(1).tolist()
    assert sorted(both) == sorted(x.reshape(62, -1).tolist())
    again = Images.of(x[:50], y[:50], x[50:], y[50:])
    assert torch.equal(again.test_x, torch.from_numpy(x[50:]))


def test_numbers_of_any_kind_are_standardised():
    for dtype in (np.uint8, np.float64, np.int32):
        x, y = own(dtype=dtype)
        images = Images.of(x, y)
        standard = images.standardise(images.train_x)
        torch.testing.assert_close(standard.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
        torch.testing.assert_close(standard.var((0, 2, 3), correction=0), torch.ones(3), rtol=0, atol=1e-4)
    flat = Images.of(np.zeros((12, 4, 4)), np.arange(12) % 2)  # a channel that never changes
    assert flat.standardise(flat.train_x).abs().max() == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"x": np.zeros((60, 8, 9))}, r"x is \(60, 1, 8, 9\) of float64; it takes .* H equal to W"),
        ({"x": np.zeros((60, 9))}, r"x is \(60, 9\)"),
        ({"x": [["a"]]}, "x must be an array or a tensor of numbers"),
        ({"x": np.full((60, 4, 4), np.nan)}, "x has values that are not finite"),
        ({"y": np.zeros(59, int)}, r"y is \(59,\) of int64; it takes whole numbers \(60,\), one an image"),
        ({"y": np.zeros(60)}, r"y is \(60,\) of float64; it takes whole numbers"),
        ({"y": np.arange(60) - 1}, "y has labels from -1 to 58; it takes whole numbers from 0"),
        ({"y": np.zeros(60, int)}, "y has labels from 0 to 0"),
        ({"classes": 3}, "y has labels from 0 to 3; it takes whole numbers from 0 to classes - 1 = 2"),
        ({"test_x": np.zeros((2, 3, 16, 16), np.uint8)}, "test_x and test_y go together"),
        ({"test_x": np.zeros((2, 3, 8, 8), np.uint8), "test_y": np.zeros(2, int)}, "test_x is .* only the number"),
        (
            {"test_x": np.zeros((2, 3, 16, 16), np.uint8), "test_y": np.zeros(3, int)},
            r"test_y is \(3,\) of int64; it takes whole numbers \(2,\)",
        ),
    ],
)
def test_images_that_do_not_go_together_are_refused(change, says):
    x, y = own()
    with pytest.raises(ValueError, match=says):
        Images.of(**{"x": x, "y": y} | change)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"patch": 5}, "patch=5 does not divide the image's 16 pixels"),
        ({"model": "gru", "arm": "ln"}, "takes images of one channel"),
        ({"batch": 51}, "batch=51 is more than the 50 training images of noise"),
    ],
)
def test_a_recipe_that_does_not_fit_the_images_says_why(fields, says):
    images = Images.of(*own(), name="noise")
    with pytest.raises(ValueError, match=says):
        train(preset("tame", **{"batch": 16} | fields), images=images, device="cpu", progress=False)


def test_the_declared_shapes_are_those_of_the_data(folder):
    for name, source in DATA.items():
        assert load_images(name, folder=folder).shape == source.shape
