"""Files that lavaflow writes are read by h5py, and files that h5py writes by lavaflow. Argument: the peer program."""
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time

try:
  import h5py
  import numpy as np
except ImportError as missing:
  print(f"skipped: {missing}")
  sys.exit(77)

peer = sys.argv[1]


def run(*arguments, fails=False):
  done = subprocess.run([peer, *arguments], stdout=subprocess.PIPE, text=True)
  assert (done.returncode != 0) == fails, f"{arguments}: exit {done.returncode}: {done.stdout}"
  return done.stdout


def text(value):
  return value.decode() if isinstance(value, bytes) else value


def digest(tensors):
  """As model_file.h defines it."""
  sha = hashlib.sha256()
  for name in sorted(tensors):
    values = tensors[name]
    sha.update(name.encode() + b"\0" + struct.pack(f"<{1 + values.ndim}Q", values.ndim, *values.shape))
    sha.update(values.astype("<f4").tobytes())
  return sha.hexdigest()


def tensors_below(group):
  found = {}
  group.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
  return found


def a_model_file_holds_what_the_design_says(folder):
  with h5py.File(f"{folder}/model.h5") as f:
    assert text(f.attrs["format"]) == "lavaflow-model"
    assert list(f.attrs["format_version"]) == [1, 0]
    assert text(f.attrs["creator"]) == "lavaflow"
    assert f.attrs["complete"] == 1
    assert json.loads(f["model"].attrs["definition"]) == {"layers": ["größe"]}
    kernel = f["model/linear_1/kernel"]
    assert kernel.dtype == np.dtype("<f4") and kernel.shape == (2, 3)
    assert (kernel[()] == [[1, 2, 3], [4, 5, 6]]).all()
    assert f["model/linear_1/bias"].shape == (3,)
    assert text(f["optimizer"].attrs["kind"]) == "adam" and f["optimizer"].attrs["step"] == 7
    assert f["optimizer/linear_1/bias/m"].shape == (3,)
    state = f["train_state"].attrs
    assert (state["epoch"], state["step"], state["position"], state["seed"]) == (1, 7, 64, 2**64 - 1)
    assert np.isnan(state["best"]) and text(state["options"]) == "{}"
    assert state["monitor_best"] == .25 and state["monitor_epoch"] == 1
    assert f["train_state/rows"].dtype == np.dtype("<u8") and list(f["train_state/rows"]) == [5, 0, 9]
    assert text(f["digest"].attrs["sha256"]) == digest(tensors_below(f["model"]))
  assert run("model", f"{folder}/model.h5").strip() == digest(
    {"linear_1/kernel": np.array([[1, 2, 3], [4, 5, 6]]), "linear_1/bias": np.array([-1, .5, 0])})


def a_model_file_made_by_h5py_is_read(folder):
  path = f"{folder}/made.h5"
  kernel = np.arange(200, dtype="f4").reshape(20, 10)
  with h5py.File(path, "w") as f:
    f.attrs.update({"format": "lavaflow-model", "format_version": [1, 0], "creator": "h5py", "complete": 1})
    f.create_dataset("model/linear_1/kernel", data=kernel, compression="gzip", chunks=(3, 4))
    f["model"].attrs["definition"] = "{}"
    f.create_group("digest").attrs["sha256"] = digest({"linear_1/kernel": kernel})
  assert run("model", path).strip() == digest({"linear_1/kernel": kernel})
  with h5py.File(path, "r+") as f:
    f["model/linear_1/kernel"][3, 3] += 1
  assert "the weights are damaged" in run("model", path, fails=True)


def a_run_file_is_nexus_and_h5md(folder):
  with h5py.File(f"{folder}/run.h5") as f:
    group = f
    for kind in "NXroot", "NXentry", "NXcollection", "NXcollection", "NXdata":
      assert group.attrs["NX_class"] == kind, group.name
      group = group[group.attrs["default"]] if "default" in group.attrs else group
    assert group.name == "/entry/metrics/train/loss"
    assert list(group[group.attrs["signal"]]) == [3, 2, 1] and list(group[group.attrs["axes"]]) == [1, 2, 3]
    assert list(group["time"]) == [.1, .2, .3] and group["time"].attrs["units"] == "s"
    assert group["step"].dtype == np.dtype("<i8") and group["step"].maxshape == (None,)
    assert group["value"].compression == "gzip"
    entry = f["entry"]
    assert entry["script"].asstr()[()] == "return 1\n"
    assert entry["parameters/lr"][()] == .001 and entry["parameters/batch"][()] == 64
    assert entry["status"].asstr()[()] == "done" and entry["exit_code"][()] == 0
    assert entry["program_name"].attrs["version"].count(".") == 2
    assert entry["log/text"].asstr()[()].tolist() == ["epoch 1 ✓"]
    assert entry["step_1"].attrs["NX_class"] == "NXprocess"
    ranks, confusion = entry["step_1/ranks"], entry["result/train/confusion"]
    assert ranks.dtype == np.dtype("<f8") and ranks.shape == (1, 3, 1) and list(ranks[0, :, 0]) == [3, 2, 1]
    assert confusion.dtype == np.dtype("<i8") and confusion[()].tolist() == [[1, 2, 3]]
    assert entry["digests/train/sha256"][0].decode() == digest(tensors_below(entry["result/train/model/model"]))
    assert len(entry["entry_identifier_uuid"].asstr()[()]) == 36


def a_file_of_rows_holds_its_matrices(folder):
  with h5py.File(f"{folder}/rows.h5") as f:
    head = {name: text(value) for name, value in f.attrs.items() if name not in ("format_version", "complete")}
    assert head.pop("creator_version").count(".") == 2
    assert head == {"format": "lavaflow-predictions", "creator": "lavaflow", "model": "größe.h5"}, head
    assert list(f.attrs["format_version"]) == [1, 0] and f.attrs["complete"] == 1
    logits, classes = f["deep/logits"], f["class"]
    assert logits.dtype == np.dtype("<f4") and logits[()].tolist() == [[1, 2], [3, 4], [5, 6]]
    assert text(logits.attrs["long_name"]) == "logits"
    assert classes.dtype == np.dtype("<u4") and classes[()].tolist() == [2, 1, 2**32 - 1]


def dumped(path, *options):
  shown = subprocess.run(["h5dump", *options, path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
  assert shown.returncode == 0, shown.stdout
  return shown.stdout


def a_live_file_is_followed_and_what_a_kill_leaves_is_recovered(folder):
  path, out = f"{folder}/run.live.h5", f"{folder}/recovered.h5"
  writer = subprocess.Popen([peer, "live", path])
  try:
    end = time.time() + 60
    while not os.path.exists(path):
      assert time.time() < end and writer.poll() is None
      time.sleep(.001)
    lengths = set()
    with h5py.File(path, "r", swmr=True) as f:
      assert f["entry/status"].asstr()[()] == "running" and f["entry"].attrs["lock"] == "/locks/1"
      steps, values = f["entry/metrics/train/loss/step"], f["entry/metrics/train/loss/value"]
      while len(lengths) < 20:
        assert time.time() < end and writer.poll() is None
        steps.refresh()
        values.refresh()
        count = len(steps)
        lengths.add(count)
        assert list(steps[:]) == list(range(1, count + 1)), steps[:]
        assert (values[:count] == 1 / np.arange(1, count + 1)).all()
        time.sleep(.005)
  finally:
    writer.kill()
    writer.wait()
  with h5py.File(path, "r", swmr=True) as f:
    left = len(f["entry/metrics/train/loss/step"])
    assert left >= max(lengths)
  run("recover", path, out)
  with h5py.File(out) as f:
    entry = f["entry"]
    assert entry["status"].asstr()[()] == "failed" and entry["exit_code"][()] == 1 and "lock" not in entry.attrs
    assert list(entry["metrics/train/loss/step"]) == list(range(1, left + 1))
    assert entry["metrics/train/loss/value"].compression == "gzip"
    lines = entry["log/text"].asstr()[()].tolist() # written before the values
    assert len(lines) in (left // 10, (left + 1) // 10) and set(lines) == {"✓ 10 more"}, lines
    assert set(f["digest"].attrs) == set(entry)
  if shutil.which("h5dump"):
    assert f" {left}\n" in dumped(out, "-y", "-d", "/entry/metrics/train/loss/step")
    assert '"running"' not in dumped(out) and '"done"' in dumped(f"{folder}/run.h5")
    # HDF5's tools open what a killed writer left once its mark is removed and the file's end noted.
    subprocess.run(["h5clear", "-s", "--increment=0", path], check=True)
    assert f" {left}\n" in dumped(path, "-y", "-d", "/entry/metrics/train/loss/step")
    assert '"running"' in dumped(path)


def weights_made_by_h5py_read_as_their_values(folder):
  path = f"{folder}/weights.h5"
  weights = np.array([0, .5, 2, 1, .25])
  options = [{}, {"chunks": (2,), "compression": "gzip"}]
  for option in options:
    for kind in "<f2", ">f4", "f8", "?", "i8":
      with h5py.File(path, "w") as f:
        f["train/x"] = np.zeros((5, 2), "u1")
        f.create_dataset("train/w", data=weights.astype(kind), **option)
      assert [float(line) for line in run("weights", path).split()] == weights.astype(kind).astype(float).tolist(), kind


def data_sets_made_by_h5py_read_as_their_values(folder):
  path = f"{folder}/data.h5"
  images = (np.arange(7 * 4 * 3) % 251).astype("u1").reshape(7, 4, 3)
  labels = np.arange(7) % 3
  options = [{}, {"chunks": True}, {"chunks": (2, 4, 1), "compression": "gzip", "shuffle": True, "fletcher32": True},
             {"chunks": (7, 4, 3), "compression": "lzf"}, {"maxshape": (None, 4, 3)}, {"compression": "szip"}]
  for option in options:
    for kind in "u1", "<f2", ">f4", "f8", ">i8":
      with h5py.File(path, "w") as f:
        try:
          f.create_dataset("train/x", data=images.astype(kind), **option)
        except ValueError as refused: # this HDF5 cannot write szip, or not for this type
          assert option.get("compression") == "szip", refused
          continue
        if kind == "u1":
          f["train/x"].attrs["scale"] = .5
          f["train/x"].attrs["offset"] = np.full(12, -1, "i2")
        f["train/y"] = labels
      done = subprocess.run([peer, "rows", path], stdout=subprocess.PIPE, text=True)
      if option.get("compression") == "lzf":  # a filter of h5py's own
        assert "needs HDF5 filter 32000 (lzf), which is not installed" in done.stdout, done.stdout
        continue
      assert done.returncode == 0, done.stdout
      got = np.array([line.split() for line in done.stdout.splitlines()], dtype=float)
      want = images.reshape(7, 12) * .5 - 1 if kind == "u1" else images.reshape(7, 12)
      assert (got[:, :-1] == want).all() and (got[:, -1] == labels).all(), (option, kind)


with tempfile.TemporaryDirectory() as place:
  run("write", place)
  for law in (a_model_file_holds_what_the_design_says, a_model_file_made_by_h5py_is_read,
              a_run_file_is_nexus_and_h5md, a_file_of_rows_holds_its_matrices,
              a_live_file_is_followed_and_what_a_kill_leaves_is_recovered,
              weights_made_by_h5py_read_as_their_values, data_sets_made_by_h5py_read_as_their_values):
    law(place)
    print("ok", law.__name__)
