"""The codec where the operating system says no: permissions, names, pipes, signals, links, full disks."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jointiq.coding.export import write_export
from jointiq.commands import bdrate, codec, complexity, evaluate, export, report
from jointiq.errors import UserError, run_cli
from jointiq.evaluation.rd import RDCurve, write_rd
from jointiq.files import list_files, write_bytes
from jointiq.runtime import set_threads

ROOT = Path(__file__).parents[2]
NOBODY = 65534


@pytest.fixture
def checkpoint(living, tmp_path):
    write_export(living(), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def run(monkeypatch, capsys):
    """``run(*arguments, module=codec)`` -> exit code, stdout, stderr of a command in this process."""

    def call(*arguments, module=codec):
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            run_cli(module.main)
        output = capsys.readouterr()
        return stop.value.code, output.out, output.err

    return call


def start(*arguments, module="codec", environment=(), stdout=subprocess.PIPE):
    """A command in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", f"src.{module}", *map(os.fsencode, map(str, arguments))]
    variables = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", **dict(environment)}
    return subprocess.Popen(command, cwd=ROOT, env=variables, stdout=stdout, stderr=subprocess.PIPE)


def one_line(err):
    return err.startswith("error: ") and err.count("\n") == 1


def save(path, picture, size=(20, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(*size)).save(path)
    return path


# --- one lister -------------------------------------------------------------------------------------------------------


def test_what_a_folder_is_taken_to_hold(run, checkpoint, picture, tmp_path):
    folder = tmp_path / "in"
    save(folder / "a.PNG", picture)
    save(folder / ".hidden.png", picture)
    save(folder / ".cache" / "b.png", picture)
    (folder / "folder.png").mkdir()
    (folder / "folder.jiq").mkdir()
    options = ("--checkpoint", checkpoint)
    assert run("encode", folder, tmp_path / "out", *options)[0] == 0
    coded = tmp_path / "out" / "a.jiq"
    assert [path for path in (tmp_path / "out").rglob("*")] == [coded]
    data = coded.read_bytes()
    coded.rename(tmp_path / "out" / "A.JIQ")
    # What a killed encoder may leave, and a folder that looks like a file.
    (tmp_path / "out" / ".unfinished-x.jiq").write_bytes(data)
    (tmp_path / "out" / "folder.jiq").mkdir()
    code, out, err = run("decode", tmp_path / "out", tmp_path / "back", *options)
    assert (code, err) == (0, "") and out.count("\n") == 1
    assert [path.name for path in (tmp_path / "back").rglob("*")] == ["A.png"]


@pytest.mark.parametrize("names", [("a.png", "A.bmp"), ("é.png", "e\u0301.bmp")], ids=["case", "accent"])
def test_two_files_of_one_name_in_another_case(run, checkpoint, picture, tmp_path, names):
    for name in names:
        save(tmp_path / "in" / name, picture)
    code, _, err = run("encode", tmp_path / "in", tmp_path / "out", "--checkpoint", checkpoint)
    assert code == 2 and one_line(err) and "would both be written" in err and not (tmp_path / "out").exists()


# --- originals --------------------------------------------------------------------------------------------------------


def test_originals_are_not_overwritten(run, checkpoint, picture, tmp_path):
    folder, options = tmp_path / "F", ("--checkpoint", checkpoint)
    for name in ("a.png", "b.png"):
        save(folder / name, picture)
    save(folder / "c.bmp", picture)
    before = (folder / "a.png").read_bytes()
    assert run("encode", folder, folder, *options)[0] == 0
    code, out, err = run("decode", folder, folder, *options)
    assert code == 2 and "1 of 3 files done, 2 failed" in out and err.count("is there already") == 2
    assert (folder / "a.png").read_bytes() == before
    code, _, err = run("decode", folder / "a.jiq", folder / "a.png", *options)
    assert code == 2 and "is there already" in err and (folder / "a.png").read_bytes() == before
    # What was decoded here may be decoded again.
    shutil.rmtree(tmp_path / "F2", ignore_errors=True)
    (tmp_path / "F2").mkdir()
    for path in folder.glob("*.jiq"):
        shutil.copy(path, tmp_path / "F2")
    for _ in range(2):
        assert run("decode", tmp_path / "F2", tmp_path / "F2", *options)[0] == 0
    assert run("decode", folder, folder, *options, "--overwrite")[0] == 0
    assert (folder / "a.png").read_bytes() != before


def test_an_output_that_is_a_link(picture, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file.jiq").write_bytes(b"old")
    (tmp_path / "link.jiq").symlink_to(tmp_path / "real" / "file.jiq")
    (tmp_path / "new.jiq").symlink_to(tmp_path / "real" / "new.jiq")
    for name in ("link.jiq", "new.jiq"):
        write_bytes(tmp_path / name, b"data")
        assert (tmp_path / name).is_symlink() and (tmp_path / name).read_bytes() == b"data"
    assert sorted(path.name for path in (tmp_path / "real").iterdir()) == ["file.jiq", "new.jiq"]
    os.mkfifo(tmp_path / "pipe.jiq")
    with pytest.raises(UserError, match="is there and is no file"):
        write_bytes(tmp_path / "pipe.jiq", b"data")


def test_a_checkpoint_is_not_exported_onto_itself(run, checkpoint, tmp_path):
    (tmp_path / "link.safetensors").symlink_to(checkpoint)
    before = checkpoint.read_bytes()
    for target in (checkpoint, tmp_path / "link.safetensors"):
        code, _, err = run(checkpoint, target, module=export)
        assert code == 2 and one_line(err) and "the checkpoint itself" in err
    assert checkpoint.read_bytes() == before


def test_a_picture_that_is_too_large_is_refused_from_its_header(run, checkpoint, picture, tmp_path):
    path = save(tmp_path / "a.bmp", picture)
    data = bytearray(path.read_bytes())
    data[18:26] = (13000).to_bytes(4, "little") * 2
    path.write_bytes(data)
    code, _, err = run("encode", path, tmp_path / "a.jiq", "--checkpoint", checkpoint)
    assert code == 2 and one_line(err) and "13000x13000" in err


# --- the operating system ---------------------------------------------------------------------------------------------


@pytest.fixture
def permitted(run, checkpoint, picture, tmp_path):
    """A folder ``in`` of images, ``a.jiq`` and a folder ``out``, with all of which the commands work."""
    image = save(tmp_path / "in" / "a.png", picture)
    save(tmp_path / "in" / "sub" / "b.png", picture)
    coded, options = tmp_path / "a.jiq", ("--checkpoint", checkpoint)
    assert run("encode", image, coded, *options)[0] == 0
    assert run("decode", coded, tmp_path / "out" / "a.png", *options)[0] == 0
    assert run(checkpoint, tmp_path / "out" / "m.safetensors", module=export)[0] == 0
    (tmp_path / "out").chmod(0o777)
    return tmp_path


@pytest.fixture
def refused(run, permitted):
    """``refused(locked, *arguments)``: run a command without permission for ``locked`` -> stdout, stderr."""
    # Nothing is refused to root, whom tests in a container run as.
    user = os.geteuid()
    for folder in (permitted, *list(permitted.parents)[:-2]):
        if folder.stat().st_uid == user:
            folder.chmod(folder.stat().st_mode | 0o755)

    def call(locked, *arguments, **others):
        mode = locked.stat().st_mode
        locked.chmod(0)
        try:
            if user == 0:
                os.seteuid(NOBODY)
            code, out, err = run(*arguments, **others)
        finally:
            os.seteuid(user)
            locked.chmod(mode)
        assert code == 2 and "Permission denied" in err and str(locked) in err, err
        return out, err

    return call


@pytest.mark.parametrize("locked", ["image", "model"])
@pytest.mark.parametrize("command", ["encode", "verify"])
def test_no_permission_to_read_for_encoding(refused, permitted, checkpoint, command, locked):
    image = permitted / "in" / "a.png"
    files = (image, permitted / "out" / "b.jiq") if command == "encode" else (image,)
    file = {"image": image, "model": checkpoint}[locked]
    assert one_line(refused(file, command, *files, "--checkpoint", checkpoint)[1])


def test_no_permission_to_read_a_coded_file_or_a_model(refused, permitted, checkpoint):
    coded, out = permitted / "a.jiq", permitted / "out"
    assert one_line(refused(coded, "decode", coded, out / "b.png", "--checkpoint", checkpoint)[1])
    assert one_line(refused(coded, "info", coded)[1])
    assert one_line(refused(checkpoint, checkpoint, out / "n.safetensors", module=export)[1])


def test_no_permission_for_folders(refused, permitted, checkpoint):
    images, out, options = permitted / "in", permitted / "out", ("--checkpoint", checkpoint)
    assert one_line(refused(images, "encode", images, out, *options)[1])
    assert one_line(refused(out, "encode", images / "a.png", out / "b.jiq", *options)[1])
    said, _ = refused(images / "sub", "encode", images, out, *options)
    assert "1 of 1 files done, 1 folders cannot be read" in said and (out / "a.jiq").exists()


def test_names_that_are_too_long(run, checkpoint, picture, tmp_path):
    image, long = save(tmp_path / "a.png", picture), tmp_path / (300 * "x" + ".png")
    for arguments in (("encode", long, tmp_path / "a.jiq"), ("encode", image, long.with_suffix(".jiq"))):
        code, _, err = run(*arguments, "--checkpoint", checkpoint)
        assert code == 2 and one_line(err) and "name too long" in err
    for arguments in (("encode", image, tmp_path / "a.jiq", "--checkpoint", long), ("info", long)):
        code, _, err = run(*arguments)
        assert code == 2 and one_line(err) and "name too long" in err


@pytest.mark.parametrize("length", [241, 250, 255])
def test_names_as_long_as_they_can_be(tmp_path, length):
    for name in ((length - 4) * "n" + ".jiq", "a." + (length - 2) * "n"):
        write_bytes(tmp_path / name, b"data")
        assert (tmp_path / name).read_bytes() == b"data"


@pytest.mark.slow
def test_names_that_no_encoding_holds(checkpoint, picture, tmp_path):
    def run(*arguments, environment):
        process = start(*arguments, environment=environment)
        out, err = process.communicate()
        return process.returncode, os.fsdecode(out), os.fsdecode(err)

    folder = Path(os.fsdecode(os.fsencode(tmp_path / "in") + b"\xff\xe9"))
    save(folder / "[bold]a[/].png", picture)
    save(folder / os.fsdecode(b"\xe4.png"), picture)
    save(folder / "日本.png", picture)
    for environment in ({"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}):
        code, out, err = run("encode", folder, tmp_path / "out", "--checkpoint", checkpoint, environment=environment)
        assert code == 0 and "3 of 3 files done" in out and "[bold]a[/].png" in err and "Traceback" not in err
        code, _, err = run("info", folder / os.fsdecode(b"\xe4.png"), environment=environment)
        assert code == 2 and one_line(err)
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_a_full_disk(checkpoint, tmp_path):
    from jointiq.coding.load import load_model
    from jointiq.interop.pth_tar import write_pth_tar

    model = load_model(checkpoint)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"cannot write \S+b\.safetensors: File too large"):
            write_export(model, tmp_path / "b.safetensors")
        with pytest.raises(UserError, match=r"cannot write \S+b\.pth\.tar: File too large"):
            write_pth_tar(model, tmp_path / "b.pth.tar")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == [checkpoint]


NAMES = sorted(path.stem for path in (ROOT / "src").glob("*.py") if path.stem[0] != "_")
HELPS = [pytest.param((name, "--help"), marks=pytest.mark.slow, id=name) for name in NAMES]


@pytest.mark.parametrize("command", [("codec", "info", "tests/golden/full-1x1.jiq"), *HELPS])
def test_a_closed_pipe(command):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        process = start(*command[1:], module=command[0], stdout=closed)
    _, err = process.communicate()
    # argparse keeps it to itself, and ends well.
    assert process.returncode in (0, 128 + signal.SIGPIPE) and err == b""


@pytest.mark.parametrize("count", [0, -1, 100_000, True])
def test_threads(count):
    with pytest.raises(UserError, match="threads=.*is not allowed; allowed: a whole number from 1 to"):
        set_threads(count)


def test_a_pattern_that_meets_a_locked_folder(tmp_path, monkeypatch):
    (tmp_path / "a.png").touch()

    def walk(folder, onerror):
        onerror(PermissionError(13, "Permission denied", str(folder / "sub")))
        return []

    monkeypatch.setattr(os, "walk", walk)
    with pytest.raises(UserError, match="sub: Permission denied"):
        list_files(tmp_path)
    seen = []
    assert list_files(tmp_path, locked=seen.append) == [tmp_path / "a.png"] and len(seen) == 1
    assert list_files(tmp_path, "*.png") == [tmp_path / "a.png"]


WRITER = """
import sys, time
from jointiq.errors import run_cli
from jointiq.files import atomic_path
from jointiq.runtime import ended_by_signals
def main():
    with ended_by_signals(), atomic_path(sys.argv[1]) as path:
        path.write_bytes(b"half")
        print("writing", flush=True)
        time.sleep(60)
run_cli(main)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_a_killed_process_leaves_nothing_that_is_taken_for_a_result(number, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / "a.jiq"], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"writing\n"
    process.send_signal(number)
    process.wait(20)
    process.stdout.close()
    assert list_files(tmp_path) == []
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number
        assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_a_package_is_imported(tmp_path):
    """PyTorch would abort, with a traceback; so would code that takes any error of an import for a missing package."""
    (tmp_path / "slow.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    program = (
        "from jointiq.errors import run_cli\ndef main():\n  try:\n    import slow\n"
        "  except BaseException as error:\n    raise RuntimeError from error\nrun_cli(main)\n"
    )
    variables = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{tmp_path}"}
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20) == ("", "interrupted\n") and process.returncode == 130


def test_an_ignored_signal_stays_ignored(tmp_path):
    program = WRITER.replace("time.sleep(60)", "time.sleep(1)")
    ignoring = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", sys.executable, "-c", program, str(tmp_path / "a.jiq")]
    process = subprocess.Popen(ignoring, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"writing\n"
    process.send_signal(signal.SIGHUP)
    assert process.wait(20) == 0 and (tmp_path / "a.jiq").read_bytes() == b"half"
    process.stdout.close()


@pytest.mark.slow
def test_a_killed_encoder(checkpoint, picture, tmp_path):
    for index in range(40):
        save(tmp_path / "in" / f"{index}.png", picture, (200, 300))
    process = start("encode", tmp_path / "in", tmp_path / "out", "--checkpoint", checkpoint)
    while not list((tmp_path / "out").glob("[!.]*.jiq")):
        time.sleep(0.02)
        assert process.poll() is None
    process.terminate()
    process.communicate()
    left = list((tmp_path / "out").iterdir())
    assert process.returncode == 128 + signal.SIGTERM and 0 < len(left) < 40
    assert all(path.suffix == ".jiq" and path.name[0] != "." for path in left)
    assert np.all([path.stat().st_size > 0 for path in left])


# --- outputs that cannot be written -----------------------------------------------------------------------------------


@pytest.fixture
def full_disk():
    """No file may grow beyond a few bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    yield "File too large"
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def read_only(monkeypatch):
    def refuse(*_, dir, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(dir))

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    return "Read-only file system"


def rd_file(path, name, factor):
    results = {"bpp": tuple(factor * bpp for bpp in (0.1, 0.2, 0.4, 0.8)), "psnr-rgb": (28.0, 31.0, 34.0, 37.0)}
    write_rd(path, RDCurve(name, results))


@pytest.mark.parametrize("disk", ["full_disk", "read_only"])
@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        (codec, ("encode", "a.png", "out/a.jiq", "--checkpoint", "model.safetensors")),
        (codec, ("decode", "a.jiq", "out/a.png", "--checkpoint", "model.safetensors")),
        (export, ("model.safetensors", "out/b.safetensors")),
        (export, ("model.safetensors", "out/b.pth.tar")),
        (bdrate, ("--results", "curves", "--output", "out")),
        (report, ("curves", "--output", "out/report.html")),
        (complexity, ("checkpoint=model.safetensors", "output=out/c.json", "size=16x16", "repeats=0", "device=cpu")),
        (evaluate, ("checkpoint=model.safetensors", "output=out/e.json", "data=folder", "data.test_dir=.",
                    "data.pattern=a.png", "device=cpu", "complexity=none")),
    ],
)  # fmt: skip
def test_an_output_that_cannot_be_written(
    module, arguments, disk, run, checkpoint, picture, tmp_path, monkeypatch, request
):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "a.png", picture)
    run("encode", "a.png", "a.jiq", "--checkpoint", checkpoint)
    rd_file(tmp_path / "curves" / "ours.json", "ours", 1.0)
    rd_file(tmp_path / "curves" / "anchors" / "jpeg.json", "jpeg", 1.2)
    reason = request.getfixturevalue(disk)
    code, _, err = run(*arguments, module=module)
    (line,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert code == 2 and "cannot write out/" in line and reason in line and "Traceback" not in err
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_messages_that_cannot_be_written(checkpoint, tmp_path):
    with open("/dev/full", "wb") as full:
        process = start("info", "tests/golden/full-1x1.jiq", stdout=full)
    assert process.communicate()[1] == b"error: No space left on device\n" and process.returncode == 2
    command = [sys.executable, "-W", "ignore", "-m", "src.codec", "info", tmp_path / "none.jiq"]
    with open("/dev/full", "wb") as full:
        assert subprocess.run(command, cwd=ROOT, stdout=full, stderr=full).returncode == 2
