"""The data of the lab: the real loading code on small files, damaged and missing ones included."""

import hashlib
import http.server
import io
import os
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from normviz.lab import data
from normviz.lab.data import Batches, DataError, augment, load_cifar10, load_digits, load_images
from normviz.lab.recipe import preset

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
        monkeypatch.setattr(data, "CIFAR10_SOURCES", (f"{base}/first.tar.gz", f"{base}/second.tar.gz"))
        monkeypatch.setattr(data, "CIFAR10_SHA256", sha256 or hashlib.sha256(content).hexdigest())
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv(data.CIFAR10_VARIABLE, raising=False)


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
    monkeypatch.setenv(data.CIFAR10_VARIABLE, str(folder))
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
    assert [path.name for path in cache.iterdir()] == [
        "cifar-10-batches-bin"
    ]  # no archive, no half of anything
    server.shutdown()
    server.server_close()
    assert torch.equal(
        load_cifar10(cache=cache).train_x, images.train_x
    )  # from the cache, as nobody answers now


def test_wrong_hash_is_refused(serve, tmp_path):
    serve(archive(WHOLE), sha256="0" * 64)
    with pytest.raises(DataError, match="hash") as caught:
        load_cifar10(cache=tmp_path)
    assert all(source in str(caught.value) for source in data.CIFAR10_SOURCES)
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize("sha256", [None, "that of the whole"])
def test_download_that_breaks_off_leaves_nothing(sha256, serve, tmp_path):
    whole = archive(WHOLE)
    serve(whole[: len(whole) // 2], sha256 and hashlib.sha256(whole).hexdigest(), promised=len(whole))
    with pytest.raises(DataError, match="could not be fetched") as caught:
        load_cifar10(cache=tmp_path)
    assert all(source in str(caught.value) for source in data.CIFAR10_SOURCES)
    assert not list(tmp_path.rglob("*"))


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
    for part in (*data.CIFAR10_SOURCES, "folder=", data.CIFAR10_VARIABLE, "digits"):
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
    monkeypatch.setattr(data, "CIFAR10_SOURCES", ("http://127.0.0.1:9/nobody",) * 2)
    assert torch.equal(load_cifar10(cache=tmp_path).train_x, first.train_x)


def test_read_only_cache_that_is_empty_is_an_error(serve, tmp_path, monkeypatch):
    serve(archive(WHOLE))
    read_only(monkeypatch, tmp_path)
    with pytest.raises(DataError, match=r"cannot be kept in .*folder="):
        load_cifar10(cache=tmp_path)
    assert not list(tmp_path.rglob("*"))


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
