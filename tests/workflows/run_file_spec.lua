-- A run file as other programs see it: h5py opens it and finds the layout of the contract.
local core = require "lavaflow.core"
local helper = require "helper"

local folder
setup(function()
  folder = helper.folder()
  helper.fixtures(folder)
  helper.write(folder .. "/layers.lua", [[
local lf = require "lavaflow"
return function() return lf.mlp { 4, 8, 3 } end
]])
  helper.write(folder .. "/flow.lua", [[
local lf = require "lavaflow"
local new_model = require "layers"
local P = lf.params { data = "good.h5", lr = 1e-2, epochs = 3, note = "a text" }
local train = lf.step "train" {
  input = { data = P.data }, output = { model = "out/model.h5" }, params = P,
  run = function(s)
    local data, model = lf.dataset(s.input.data), new_model()
    local function train(epochs, name)
      s:train { model = model, data = data.train, validation = data.test, epochs = epochs, batch = 8, name = name,
                optimizer = lf.adam { lr = s.params.lr } }
    end
    train(s.params.epochs)
    train(1)
    train(2, "teacher")
    model:save(s.output.model)
  end,
}
lf.step "evaluate" {
  input = { data = P.data .. ":/test/x", model = train.output.model },
  run = function(s)
    local model = lf.load(s.input.model)
    local test = lf.dataset(P.data).test
    s:metric("test_accuracy", s:evaluate({ model = model, data = test }).accuracy)
    s:evaluate { model = model, data = test, top_k = 2 }
    s:evaluate { name = "smooth", model = model, data = test, label_smoothing = 0.1 }
    for i = 1, 3 do s:metric("rows", #s:predict { model = model, x = { { i, 0, 0, 0 } } } + i) end
  end,
}
]])
  local result = helper.cli(folder, "run", "flow.lua", "epochs=4", "--device", "cpu", "--record", "run.h5")
  assert.same({ 0, "" }, { result.code, result.err })
end)
teardown(function() helper.remove(folder) end)

describe("a run file", function()
  it("opens_with_h5py_and_has_the_layout", function()
    local result = helper.run({ helper.python, helper.source .. "/tests/workflows/check_run.py", "run.h5" },
      { cwd = folder, plain = true })
    assert.equal("", result.err)
    assert.equal(0, result.code)
    assert.equal("as it should be\n", result.out)
  end)

  it("holds_the_result_as_the_model_file_has_it", function()
    local file = folder .. "/run.h5"
    assert.equal(core.h5_digest(folder .. "/out/model.h5", "/model"),
      core.h5_digest(file, "/entry/result/train/model/model"))
    local entry = core.h5_read(file, "/entry", 1000)
    assert.equal(core.sha256(helper.read(folder .. "/flow.lua")), entry["script@sha256"])
    assert.equal(core.h5_digest(folder .. "/good.h5", "/"), entry.inputs["1@sha256"])
    assert.equal(core.h5_digest(folder .. "/good.h5", "/test/x"), entry.inputs["2@sha256"])
  end)

  it("holds_scores_as_s_evaluate_gave_them", function()
    local entry = core.h5_read(folder .. "/run.h5", "/entry", 1000)
    local first = entry.evaluations.evaluate
    assert.equal(entry.metrics.evaluate.test_accuracy.value[1], first.accuracy)
    local sum, right = 0, 0
    for i, count in ipairs(first.confusion) do
      sum = sum + count
      if i % 4 == 1 then right = right + count end
    end
    assert.same({ 12, 12 * first.accuracy }, { sum, right })
    assert.equal("good.h5:/test/x", first["@data"])
    assert.equal("cross_entropy", first["@loss"])
    assert.equal(entry.digests.train.sha256[4] ~= first["@model"], true) -- the third training went on from there
    assert.equal(entry.digests["train.teacher"].sha256[2], first["@model"])
  end)

  it("tells_by_code_and_key_what_a_step_depends_on", function()
    local count = 0
    local function steps(script, ...)
      count = count + 1
      local name = ("key%d.h5"):format(count)
      helper.write(folder .. "/flow2.lua", script)
      local result = helper.cli(folder, "run", "flow2.lua", "-q", "--device", "cpu", "--record", name, ...)
      assert.same({ 0, "" }, { result.code, result.err })
      local entry = core.h5_read(folder .. "/" .. name, "/entry", 10)
      return entry.step_1, entry.step_2
    end
    local text = helper.read(folder .. "/flow.lua")
    local train, evaluate = steps(text)
    local again = steps("-- a comment outside the steps\n" .. text)
    assert.same({ train.code, train.key }, { again.code, again.key })
    local slower = steps(text, "lr=0.01")
    assert.equal(train.key, slower.key) -- the default, written out
    local faster, scored = steps(text, "lr=0.02")
    assert.equal(train.code, faster.code)
    assert.not_equal(train.key, faster.key)
    assert.equal(evaluate.code, scored.code)
    assert.not_equal(evaluate.key, scored.key) -- it reads another model now
    local edited = steps((text:gsub("train%(1%)", "train(2)")))
    assert.not_equal(train.code, edited.code)
    assert.not_equal(train.key, edited.key)
  end)

  it("is_shown_on_one_screen", function()
    local text = helper.cli(folder, "show", "run.h5").out
    for _, part in ipairs { "run         run.h5", "workflow    flow.lua", "status      completed, exit status 0",
      "parameters  data = good.h5, epochs = 4, lr = 0.01, note = a text", "overrides   epochs=4", "good.h5:/test/x",
      "train  completed in ", "outputs     out/model.h5", "\ntrain.2\n", "\ntrain.teacher\n", "test_accuracy ",
      "\nevaluate.smooth  on good.h5:/test/x\n  accuracy ", "top_k_accuracy " } do
      helper.has(text, part)
    end
    local _, lines = text:gsub("\n", "")
    assert.is_true(lines < 60, lines)
  end)

  it("goes_to_a_new_file_under_runs_each_time", function()
    for count = 1, 2 do
      assert.equal(0, helper.cli(folder, "run", "flow.lua", "-q", "--fresh", "--device", "cpu").code)
      local names = helper.list(folder .. "/runs/flow")
      assert.equal(count, #names)
      assert.is_truthy(names[1]:find "^%d%d%d%d%d%d%d%dT%d%d%d%d%d%dZ%-%x%x%x%x%x%x%x%x%.h5$")
    end
  end)
end)
