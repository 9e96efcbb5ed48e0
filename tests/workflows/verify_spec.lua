-- `lavaflow verify`: a run file proves itself, and says where it was changed.
local core = require "lavaflow.core"
local helper = require "helper"

local folder
before_each(function()
  folder = helper.folder()
  helper.fixtures(folder)
  helper.write(folder .. "/part.lua", [[
local lf = require "lavaflow"
return { model = function(hidden) return lf.mlp { 4, hidden, 3, activation = "relu" } end }
]])
  helper.write(folder .. "/flow.lua", [[
local lf = require "lavaflow"
local part = require "part"
local P = lf.params { data = "good.h5", hidden = 8, lr = 1e-2, epochs = 4, flag = true, note = "a = b" }
local train = lf.step "train" {
  input = { data = P.data }, output = { model = "out/m.h5" }, params = P, checkpoint = { steps = 4, keep = 100 },
  run = function(s)
    if not s.params.flag then error "the flag is lost" end
    local data = lf.dataset(s.input.data)
    local model = part.model(s.params.hidden)
    s:train { name = "first", model = lf.mlp { 4, 3 }, data = data.train, batch = 16, epochs = 1 }
    s:train { model = model, data = data.train, validation = data.test, batch = 8, epochs = s.params.epochs, seed = 3,
              optimizer = lf.adam { lr = s.params.lr, schedule = "cosine" } }
    model:save(s.output.model)
  end,
}
lf.step "evaluate" {
  input = { data = P.data, model = train.output.model },
  run = function(s)
    local scores = s:evaluate { model = lf.load(s.input.model), data = lf.dataset(s.input.data).test }
    s:metric("test", scores.accuracy)
  end,
}
]])
  local result = helper.cli(folder, "run", "flow.lua", "lr=0.0123", "--device", "cpu", "-q", "--record", "run.h5")
  assert.same({ 0, "" }, { result.code, result.err })
end)
after_each(function() helper.remove(folder) end)

local function verify(...) return helper.cli(folder, "verify", "run.h5", ...) end

local function python(code)
  local result = helper.run({ helper.python, "-c", "import h5py\n" .. code }, { cwd = folder, plain = true })
  assert.equal(0, result.code, result.err)
end

-- The run file differs, and it is said where.
local function differs(...)
  local result = verify()
  assert.equal(4, result.code, result.err)
  for _, part in ipairs { ... } do helper.has(result.err, "lavaflow: run.h5: " .. part) end
  helper.has(result.out, "run.h5: differs in ")
end

describe("verify", function()
  it("passes_on_a_fresh_run_and_says_what_it_promises", function()
    local before = helper.files(folder)
    local result = verify()
    assert.same({ 0, "" }, { result.code, result.err })
    assert.is_truthy(result.out:find "^run.h5: verified: the same bits on cpu %(.-%): 2 steps, %d+ values, 1 models\n$")
    assert.same(before, helper.files(folder))
  end)

  it("needs_neither_script_nor_state_only_the_data", function()
    for _, name in ipairs { "flow.lua", "part.lua", ".lavaflow", "out" } do helper.remove(folder .. "/" .. name) end
    assert.equal(0, verify().code)
    assert(os.rename(folder .. "/good.h5", folder .. "/elsewhere.h5"))
    local lost = verify()
    assert.equal(1, lost.code)
    helper.has(lost.err, "input data: good.h5: no such file; --input data=FILE says where it is")
    assert.equal(0, verify("--input", "data=elsewhere.h5").code)
  end)

  it("names_the_tensor_of_which_one_bit_was_changed", function()
    python [[
import numpy as np
with h5py.File("run.h5", "r+") as f:
    kernel = f["entry/result/train/model/model/linear_2/kernel"]
    values = kernel[...]; values.view(np.uint32)[2, 1] ^= 1; kernel[...] = values]]
    differs("/entry/result: is not what the run wrote", "result/train/model/model/linear_2/kernel: element 7: ")
  end)

  it("names_the_input_of_which_one_element_was_changed", function()
    python [[with h5py.File("good.h5", "r+") as f: f["train/x"][3, 1] += 1]]
    differs('step "train": input data: good.h5: content ', "metrics/train/step_loss: training step ")
  end)

  it("names_the_first_step_that_a_changed_parameter_changes", function()
    python [[with h5py.File("run.h5", "r+") as f: f["entry/parameters/lr"][()] = 0.0124]]
    differs("/entry/parameters: is not what the run wrote", "metrics/train/step_loss: training step 2: ")
  end)

  it("names_a_metric_and_a_script_that_were_changed", function()
    python [[
with h5py.File("run.h5", "r+") as f:
    f["entry/metrics/train/val_loss/value"][1] += 1e-9
    text = f["entry/script"][()].decode().replace("seed = 3", "seed = 4")
    f["entry/script"][()] = text]]
    differs("/entry/metrics: is not what", "/entry/script: is not what", "script (flow.lua): content ",
      "metrics/train/step_loss: training step 1: ")
  end)

  it("names_a_model_whose_layers_were_changed", function()
    python [[
with h5py.File("run.h5", "r+") as f:
    model = f["entry/result/train/model/model"]
    text = model.attrs["definition"]
    text = text.decode() if isinstance(text, bytes) else text
    assert "relu" in text
    model.attrs["definition"] = text.replace("relu", "tanh", 1)]]
    differs("/entry/result: is not what the run wrote", "result/train/model: is another model")
  end)

  it("checks_the_bound_on_another_device", function()
    if not pcall(core.find_device, "vulkan:0") then pending "vulkan:0 is not there" return end
    local result = verify("--device", "vulkan:0")
    assert.same({ 0, "" }, { result.code, result.err })
    helper.has(result.out, "verified: the bound of another device (the first 100 losses within 0.0001")
  end)

  it("checks_stretches_between_checkpoints", function()
    local all = verify("--segments", "100")
    assert.same({ 0, "" }, { all.code, all.err })
    assert.is_truthy(all.out:find "the same bits on cpu.*: 6 of 6 segments, 24 training steps\n$")
    helper.has(verify("--segments", "2").out, ": 2 of 6 segments, ")
    python [[with h5py.File("run.h5", "r+") as f: f["entry/metrics/train/step_loss/value"][9] += 1e-9]]
    local result = verify("--segments", "100")
    assert.equal(4, result.code)
    helper.has(result.err, "metrics/train/step_loss: training step 10: ")
  end)

  it("keeps_to_the_device_of_each_step", function()
    if not pcall(core.find_device, "vulkan:0") then pending "vulkan:0 is not there" return end
    helper.write(folder .. "/two.lua", [[
local lf = require "lavaflow"
for _, name in ipairs { "a-1", "b" } do
  lf.step(name) {
    input = { data = "good.h5" }, checkpoint = { steps = 200, keep = 2 },
    run = function(s)
      s:train { name = "fold-1", model = lf.mlp { 4, 8, 3 }, data = lf.dataset(s.input.data).train, epochs = 30 }
    end,
  }
end
]])
    local devices = { "--device", "cpu,vulkan:0", "-q", "--checkpoint", "0.001" }
    assert.equal(0, helper.cli(folder, "run", "two.lua", "--record", "two.h5", table.unpack(devices)).code)
    local result = helper.cli(folder, "verify", "two.h5")
    assert.same({ 0, "" }, { result.code, result.err })
    helper.has(result.out, "verified: the same bits on cpu (")
    helper.has(result.out, ", vulkan:0 (")
  end)

  it("makes_again_what_a_step_reads_by_its_literal_path", function()
    helper.write(folder .. "/flow.lua", (helper.read(folder .. "/flow.lua"):gsub("train.output.model", '"out/m.h5"')))
    assert.equal(0, helper.cli(folder, "run", "flow.lua", "--device", "cpu", "-q", "--record", "run.h5").code)
    helper.remove(folder .. "/out")
    local result = verify()
    assert.same({ 0, "" }, { result.code, result.err })
  end)

  it("refuses_what_is_no_completed_run_of_a_workflow", function()
    local function refused(part, code, ...)
      local result = helper.cli(folder, "verify", ...)
      helper.has(result.err, part)
      assert.equal(code, result.code)
    end
    refused("good.h5: expected a run file, but it has no /entry of class NXentry", 1, "good.h5")
    refused("nope.h5: cannot open", 1, "nope.h5")
    helper.write(folder .. "/half.h5", helper.read(folder .. "/run.h5"):sub(1, 20000))
    refused("half.h5: cannot open the HDF5 file", 1, "half.h5")
    refused("--input x: expected NAME=FILE", 2, "run.h5", "--input", "x")
    refused('--device: device "vulkan:77": there is none', 2, "run.h5", "--device", "vulkan:77")
    assert.equal(1, helper.cli(folder, "run", "flow.lua", "flag=false", "-q", "--record", "failed.h5").code)
    refused("failed.h5: expected a run that completed, but its status is failed", 1, "failed.h5")
  end)
end)
