-- The world fails: each failure says what, ends with status 1, and leaves nothing behind but a run file that tells.
local core = require "lavaflow.core"
local helper = require "helper"

local folder
before_each(function()
  folder = helper.folder()
  helper.fixtures(folder)
end)
after_each(function() helper.remove(folder) end)

local SCRIPT = [[
local lf = require "lavaflow"
local P = lf.params { data = "good.h5", out = "out/model.h5", batch = 8, device = "cpu", save = true }
lf.step "train" {
  input = { data = P.data }, output = { model = P.out },
  run = function(s)
    local model = lf.mlp { 4, 8, 3, seed = 1 }
    if P.save then model:save(s.output.model) end
    s:train { model = model, data = lf.dataset(s.input.data).train, epochs = 1, batch = P.batch, device = P.device }
  end,
}
]]

local function run(...)
  helper.write(folder .. "/flow.lua", SCRIPT)
  return helper.cli(folder, "run", "flow.lua", ...)
end

-- Files that were not there before; run files without their name.
local function new_files()
  local known = { ["flow.lua"] = true }
  local fresh = helper.folder()
  helper.fixtures(fresh)
  for _, name in ipairs(helper.files(fresh)) do known[name] = true end
  helper.remove(fresh)
  local found = {}
  for _, name in ipairs(helper.files(folder)) do
    if not known[name] then found[#found + 1] = (name:gsub("^runs/flow/%d+T%d+Z%-%x+%.h5$", "RUN")) end
  end
  return found
end

-- Before anything runs: no files, no folders.
local function refused(part, ...)
  local result = run(...)
  helper.has(result.err, part)
  assert.equal(1, result.code)
  assert.same({}, new_files())
  assert.is_false(helper.exists(folder .. "/out"))
  assert.is_false(helper.exists(folder .. "/runs"))
end

-- What is remembered of steps: locks, and nothing of a run that failed before a checkpoint.
local function without_state(names)
  local rest = {}
  for _, name in ipairs(names) do
    local kept = name:find "^%.lavaflow/%.?%w[%w.]+$" or name:find "^%.lavaflow/flow/%w+%-%x+/lock$"
    if not kept then rest[#rest + 1] = name end
  end
  return rest
end

-- While the step runs: a run file that tells.
local function failed(part, ...)
  local result = run("--record", "run.h5", ...)
  helper.has(result.err, part)
  assert.equal(1, result.code)
  assert.same({ "run.h5" }, without_state(new_files()))
  assert.is_false(helper.exists(folder .. "/out"))
  local entry = core.h5_read(folder .. "/run.h5", "/entry", 1000)
  assert.equal("failed", entry.status)
  assert.equal(1, entry.exit_code)
  helper.has(table.concat(entry.log.text, "\n"), part)
  assert.equal("failed", entry.step_1.status)
end

describe("before anything runs", function()
  it("an_input_that_is_not_there_is_named", function()
    refused('step "train": input data: nope.h5: no such file, and no step makes it', "data=nope.h5")
  end)

  it("an_output_that_cannot_be_written_is_named", function()
    refused('step "train": output model: /proc/model.h5: cannot be written', "out=/proc/model.h5")
    refused('step "train": output model: good.h5/model.h5: good.h5: is not a folder', "out=good.h5/model.h5")
    refused('step "train": output model: /proc/new/model.h5: /proc/new: ', "out=/proc/new/model.h5")
    refused('step "train": output model: .: is a directory, not a file', "out=.")
  end)

  it("a_run_file_that_cannot_be_written_is_named", function()
    refused("run file: nowhere/r.h5: cannot be written: nowhere: no such file or directory", "--record", "nowhere/r.h5")
    refused("run file: /proc/r.h5: cannot be written", "--record", "/proc/r.h5")
    helper.write(folder .. "/runs", "a file where the folder should be")
    local result = run()
    helper.has(result.err, "run file: runs/flow/")
    helper.has(result.err, ": runs: is not a folder")
    assert.equal(1, result.code)
    helper.remove(folder .. "/runs")
    assert.same({}, new_files())
  end)
end)

describe("a step that fails", function()
  it("is_named_with_the_line", function()
    failed('step "train": flow.lua:8: s:train: batch: expected a whole number of at least 1, got 0', "batch=0")
    failed('step "train": flow.lua:8: device "vulkan:99": there is none; this machine has ', "device=vulkan:99")
  end)

  it("names_what_is_wrong_with_the_data", function()
    for name, part in pairs {
      ["not_hdf5.h5"] = "not_hdf5.h5: is not an HDF5 file",
      ["truncated.h5"] = "truncated.h5: cannot open the HDF5 file: truncated file",
      ["nothing.h5"] = "nothing.h5:/train/x: no such object",
      ["text.h5"] = "text.h5:/train/x: holds values of type string",
      ["unequal.h5"] = "unequal.h5:/train/y: has 47 rows",
      ["negative.h5"] = "negative.h5:/train/y: label -1 at row 7",
      ["label.h5"] = "label.h5:/train/y has 12 classes",
      ["nan.h5"] = "nan.h5:/train/x: value nan at row 5, column 0",
      ["inf.h5"] = "inf.h5:/train/x: value inf at row 5, column 0",
      ["empty.h5"] = "empty.h5:/train/x: is empty: 0 rows",
    } do
      failed(part, "data=" .. name)
      helper.remove(folder .. "/run.h5")
    end
  end)

  it("keeps_an_output_that_was_there_before", function()
    helper.write(folder .. "/old.h5", "old")
    local result = run("out=old.h5", "save=false", "batch=0")
    assert.equal(1, result.code)
    assert.equal("old", helper.read(folder .. "/old.h5"))
  end)

  it("fails_for_an_output_that_it_did_not_write", function()
    failed('step "train": output model: out/model.h5 was not written', "save=false")
  end)

  it("stops_those_that_come_after_it", function()
    helper.write(folder .. "/two.lua", [[
local lf = require "lavaflow"
lf.step "first" { run = function() return error "mine" end }
lf.step "second" { run = function(s) s:metric("x", 1) end }
]])
    local result = helper.cli(folder, "run", "two.lua")
    helper.has(result.err, 'step "first": two.lua:2: mine')
    assert.is_nil(result.out:find "second")
  end)
end)

describe("a training in a step", function()
  local function run_step(text, ...)
    helper.write(folder .. "/step.lua", ([[
local lf = require "lavaflow"
lf.step "train" {
  input = { data = "good.h5" },
  run = function(s)
    local data, model = lf.dataset(s.input.data), lf.mlp { 4, 8, 3, seed = 1 }
    %s
  end,
}
]]):format(text))
    return helper.cli(folder, "run", "step.lua", "--device", "cpu", "--record", "run.h5", ...)
  end

  it("leaves_a_replay_beside_the_run_file", function()
    local result = run_step [[s:train { model = model, data = data.train, name = "wild",
      optimizer = lf.sgd { lr = 1e30 } }]]
    helper.has(result.err, "run.train.wild.nan.h5")
    assert.equal(1, result.code)
    assert.same({ "run.h5", "run.train.wild.nan.h5" }, (function()
      local names = {}
      for _, name in ipairs(helper.list(folder)) do
        if name:find "^run" then names[#names + 1] = name end
      end
      return names
    end)())
  end)

  it("replaces_no_input_and_not_the_run_file", function()
    for path, what in pairs { ["good.h5"] = "good.h5 would replace the file of data",
      ["run.h5"] = "run.h5 is the path of the run file too" } do
      local result = run_step(([[s:train { model = model, data = data.train, best = "%s" }]]):format(path))
      helper.has(result.err, "step.lua:6: s:train: best: " .. what)
      assert.equal(1, result.code)
    end
    helper.has(run_step([[s:predict { model = model, data = data.test, output = "good.h5" }]]).err,
      "s:predict: output: good.h5 would replace the file of data")
    helper.has(run_step([[s:predict { model = model, x = { { 1, 2, 3, 4 } }, output = "good.h5" }]]).err,
      "s:predict: output: good.h5 would replace input data")
  end)

  it("uses_a_name_once", function()
    helper.has(run_step([[for _ = 1, 2 do s:evaluate { model = model, data = data.test, name = "a" } end]]).err,
      's:evaluate: name: expected one that this step has not used, got "a" again')
    helper.has(run_step([[for _ = 1, 2 do
      s:train { model = model, data = data.train, name = "a", epochs = 1 }
    end]]).err, 's:train: name: expected one that this step has not used, got "a" again')
    helper.has(run_step([[s:train { model = model, data = data.train, record = "x.h5" }]]).err,
      "s:train: record: expected none, since the run file of the workflow holds this training")
    local result = run_step [[for _, name in ipairs { "2", "3" } do
      s:evaluate { model = model, data = data.test, name = name }
      s:evaluate { model = model, data = data.test }
    end]]
    assert.same({ 0, "" }, { result.code, result.err })
    local names = {}
    for name in pairs(core.h5_read(folder .. "/run.h5", "/entry/evaluations", 100)) do
      if not name:find "@" then names[#names + 1] = name end
    end
    table.sort(names)
    assert.same({ "train", "train.2", "train.3", "train.4" }, names)
  end)

  it("tells_why_it_ended", function()
    local result = run_step [[s:train { model = model, data = data.train, validation = data.test, patience = 2,
      min_delta = 1e9 }]]
    assert.same({ 0, "" }, { result.code, result.err })
    helper.has(result.out, "train  ended: no better val_loss in 2 epochs; best ")
    helper.has(result.out, " in epoch 1\n")
  end)
end)

describe("other commands", function()
  it("name_the_file_that_they_cannot_read_or_write", function()
    for part, command in pairs {
      ["nope.h5: cannot open"] = { "show", "nope.h5" },
      ["not_hdf5.h5: is not an HDF5 file"] = { "show", "not_hdf5.h5" },
      ["good.h5: expected a run file"] = { "show", "good.h5" },
      ["nowhere"] = { "import", "mnist", "nowhere", "-o", "x.h5" },
    } do
      local result = helper.cli(folder, table.unpack(command))
      helper.has(result.err, part)
      assert.equal(1, result.code)
    end
    assert.is_false(helper.exists(folder .. "/x.h5"))
  end)
end)

describe("loading a workflow", function()
  local function wrong(part, text)
    helper.write(folder .. "/load.lua", 'local lf = require "lavaflow"\n' .. text)
    local result = helper.cli(folder, "run", "load.lua", "-n")
    helper.has(result.err, part)
    assert.equal(2, result.code)
    helper.remove(folder .. "/load.lua")
  end

  it("only_declares", function()
    for _, name in ipairs { "train", "distill", "evaluate", "predict", "dataset", "load" } do
      wrong(("load.lua:2: lf.%s: expected in the run of a step, since loading a workflow only declares"):format(name),
        ("lf.%s {}\n"):format(name))
    end
  end)

  it("finds_circles_typos_and_outputs_that_two_steps_write", function()
    local nothing = "run = function() end"
    wrong('load.lua:2: step "a": depends on itself: a <- b <- a',
      ('lf.step "a" { input = { x = "b.h5" }, output = { x = "a.h5" }, %s }\n' ..
        'lf.step "b" { input = { x = "a.h5" }, output = { x = "b.h5" }, %s }\n'):format(nothing, nothing))
    wrong('load.lua:3: step "b": output ./a.h5: step "a" writes it too',
      ('lf.step "a" { output = { x = "a.h5" }, %s }\nlf.step "b" { output = { x = "./a.h5" }, %s }\n'):format(nothing,
        nothing))
    wrong("load.lua:3: step \"a\": output has no \"modle\"; it has model",
      ('local a = lf.step "a" { output = { model = "a.h5" }, %s }\nprint(a.output.modle)\n'):format(nothing))
    wrong('load.lua:2: step "a": unknown option "inptu"; nearest: input',
      ('lf.step "a" { inptu = {}, %s }\n'):format(nothing))
  end)
end)
