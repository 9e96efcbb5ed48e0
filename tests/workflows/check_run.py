#!/usr/bin/env python3
"""Checks the run file that run_file_spec.lua makes, with h5py alone."""
import hashlib
import re
import sys

import h5py
import numpy as np


def text(value):
    value = value[()] if isinstance(value, h5py.Dataset) else value
    return value.decode() if isinstance(value, bytes) else str(value)


def main(path):
    with h5py.File(path, "r") as file:
        entry = file["entry"]
        assert text(entry.attrs["NX_class"]) == "NXentry"
        assert re.fullmatch(r"[0-9a-f-]{36}", text(entry["entry_identifier_uuid"]))
        assert text(entry["status"]) == "completed" and entry["exit_code"][()] == 0
        assert text(entry["start_time"]) <= text(entry["end_time"])
        assert text(entry["program_name"]) == "lavaflow"
        assert re.fullmatch(r"\d+\.\d+\.\d+", text(entry["program_name"].attrs["version"]))

        for source, name in (entry["script"], "flow.lua"), (entry["modules/1"], "layers.lua"):
            assert text(source.attrs["file_name"]) == name
            with open(name, "rb") as script:
                content = script.read()
            assert text(source).encode() == content
            assert text(source.attrs["sha256"]) == hashlib.sha256(content).hexdigest()

        parameters = entry["parameters"]
        assert text(parameters.attrs["NX_class"]) == "NXparameters"
        assert parameters["epochs"][()] == 4 and parameters["lr"][()] == 1e-2 and text(parameters["note"]) == "a text"
        assert text(parameters.attrs["overrides"]) == "epochs=4"

        inputs = [text(entry["inputs"][key]) for key in sorted(entry["inputs"])]
        assert inputs == ["good.h5:/", "good.h5:/test/x", "out/model.h5:/"], inputs
        assert all(len(text(value.attrs["sha256"])) == 64 for value in entry["inputs"].values())

        system = entry["system"]
        assert text(system["host"]) and text(system["os"])
        assert text(system["device_0/id"]) == "cpu" and len(text(system["device_0/kernels"])) == 64

        for number, name in (1, "train"), (2, "evaluate"):
            step = entry[f"step_{number}"]
            assert text(step.attrs["NX_class"]) == "NXprocess"
            assert text(step["name"]) == name and step["sequence_index"][()] == number
            assert 0 <= step["t_start"][()] <= step["t_end"][()]
            assert text(step["device"]) == "cpu"
            assert re.fullmatch("[0-9a-f]{64}", text(step["code"])) and re.fullmatch("[0-9a-f]{64}", text(step["key"]))
        assert text(entry["step_1/outputs/model"]) == "out/model.h5"

        steps = {"train": (4, 24), "train.2": (1, 6), "train.teacher": (2, 12)}
        assert sorted(entry["metrics"]) == ["evaluate", *steps]
        for name, (epochs, count) in steps.items():
            metrics = entry["metrics"][name]
            assert sorted(metrics) == ["accuracy", "loss", "lr", "step_loss", "val_accuracy", "val_loss"]
            assert 0 < metrics.attrs["submissions"] < metrics.attrs["dispatches"], dict(metrics.attrs)
            for key, series in metrics.items():
                length = count if key == "step_loss" else epochs
                assert series["step"].shape == series["time"].shape == series["value"].shape == (length,), (name, key)
                assert series["step"].dtype == np.int64 and series["value"].dtype == np.float64
                assert np.isfinite(series["value"][()]).all()
                assert (np.diff(series["time"][()]) >= 0).all()
            assert metrics["step_loss/step"][()].tolist() == list(range(1, count + 1))
            assert metrics["loss/step"][()].tolist() == [6 * epoch for epoch in range(1, epochs + 1)]
            assert entry["digests"][name]["sha256"].shape == (epochs,)
        rows = entry["metrics/evaluate/rows"]
        assert rows["step"][()].tolist() == [1, 2, 3] and rows["value"][()].tolist() == [2, 3, 4]

        evaluations = entry["evaluations"]
        assert sorted(evaluations) == ["evaluate", "evaluate.2", "evaluate.smooth"]
        for name, scores in evaluations.items():
            confusion = scores["confusion"]
            assert confusion.shape == (3, 3) and confusion.dtype == np.int64 and confusion[()].sum() == 12
            labels = confusion[()].sum(axis=1)
            with h5py.File("good.h5", "r") as data:
                assert labels.tolist() == np.bincount(data["test/y"][()], minlength=3).tolist()
            recall = confusion[()].diagonal() / labels
            assert np.allclose(scores["recall"][()], recall, rtol=0, atol=1e-12)
            for key in "precision", "recall", "f1":
                assert scores[key].shape == (3,) and scores[key].dtype == np.float64
            assert np.isclose(scores["macro_f1"][()], scores["f1"][()].mean(), rtol=0, atol=1e-12)
            assert scores["rows"][()] == 12 and text(scores["device"]) == "cpu"
            assert scores["top_k"][()] == (2 if name == "evaluate.2" else 3)
        assert evaluations["evaluate.smooth/loss"][()] != evaluations["evaluate/loss"][()]

        log = entry["log"]
        assert log["time"].shape == log["level"].shape == log["text"].shape
        assert any("step train: completed" in text(line) for line in log["text"][()])

        model = entry["result/train/model"]
        assert text(model.attrs["format"]) == "lavaflow-model"
        assert model["model/linear_1/kernel"].shape == (4, 8) and model["model/linear_2/bias"].shape == (3,)
    print("as it should be")


if __name__ == "__main__":
    main(sys.argv[1])
