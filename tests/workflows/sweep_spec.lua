-- --sweep: a workflow once for each combination of values.
local core = require "lavaflow.core"
local helper = require "helper"

local folder
before_each(function()
  folder = helper.folder()
  helper.fixtures(folder)
  helper.write(folder .. "/flow.lua", [[
local lf = require "lavaflow"
local P = lf.params { lr = 1e-2, hidden = 8, epochs = 2 }
local train = lf.step "train" {
  input = { data = "good.h5" }, output = { model = "out/m.h5" }, params = P,
  run = function(s)
    local data = lf.dataset(s.input.data)
    local model = lf.mlp { 4, s.params.hidden, 3 }
    s:train { model = model, data = data.train, validation = data.test, epochs = s.params.epochs,
              optimizer = lf.adam { lr = s.params.lr }, device = "cpu" }
    model:save(s.output.model)
  end,
}
lf.step "layers" {
  input = { model = train.output.model },
  run = function(s) s:metric("tensors", #lf.load(s.input.model):tensors()) end,
}
]])
end)
after_each(function() helper.remove(folder) end)

local function sweep(...) return helper.cli(folder, "run", "flow.lua", "--sweep", ...) end

describe("a sweep", function()
  it("runs_every_combination_into_a_folder_of_its_own_and_ends_with_a_table", function()
    local result = sweep("lr=1e-2,1e-1", "hidden=4,6", "epochs=3")
    assert.same({ 0, "" }, { result.code, result.err })
    local models = {}
    for _, label in ipairs { "lr=1e-2,hidden=4", "lr=1e-2,hidden=6", "lr=1e-1,hidden=4", "lr=1e-1,hidden=6" } do
      local path = ("%s/sweeps/flow/%s/out/m.h5"):format(folder, label)
      models[core.h5_digest(path, "/model")] = true
    end
    local count = 0
    for _ in pairs(models) do count = count + 1 end
    assert.equal(4, count)
    assert.is_false(helper.exists(folder .. "/out"))
    assert.equal(4, #helper.list(folder .. "/runs/flow"))
    assert.is_truthy(result.out:find "hidden +lr +val_accuracy")
    local rows = {}
    for hidden, lr in result.out:gmatch "\n%S+%.h5 .- (%d) +(0%.%d+) +[%d.]+" do rows[hidden .. " " .. lr] = true end
    assert.same({ ["4 0.01"] = true, ["6 0.01"] = true, ["4 0.1"] = true, ["6 0.1"] = true }, rows)
  end)

  it("goes_on_where_it_was_and_adds_what_is_new", function()
    assert.equal(0, sweep("lr=1e-2,1e-1", "-q").code)
    local again = sweep "lr=1e-2,1e-1"
    assert.equal(0, again.code)
    local _, nothing = again.out:gsub("nothing to do: 2 steps", "")
    assert.equal(2, nothing)
    local more = sweep("lr=1e-2,1e-1,1", "-v")
    local _, ran = more.out:gsub("train  runs: ", "")
    assert.equal(1, ran)
    assert.equal(3, #helper.list(folder .. "/runs/flow"))
    local _, rows = more.out:gsub("\n%S+%.h5  ", "")
    assert.equal(3, rows)
  end)

  it("gives_the_bits_of_single_runs_side_by_side_too", function()
    assert.equal(0, sweep("hidden=4,5,6,7", "-q", "-j", "2").code)
    for hidden = 4, 7 do
      assert.equal(0, helper.cli(folder, "run", "flow.lua", "-q", "hidden=" .. hidden).code)
      assert.equal(core.h5_digest(folder .. "/out/m.h5", "/model"),
        core.h5_digest(("%s/sweeps/flow/hidden=%d/out/m.h5"):format(folder, hidden), "/model"))
    end
  end)

  it("runs_a_step_that_all_combinations_share_once", function()
    helper.write(folder .. "/flow.lua", helper.read(folder .. "/flow.lua") ..
      'lf.step "check" { input = { data = "good.h5" }, run = function(s) s:metric("parts", 2) end }\n')
    local result = sweep("hidden=4,5,6", "-v", "-j", "2")
    assert.same({ 0, "" }, { result.code, result.err })
    local _, ran = result.out:gsub("check  runs: ", "")
    local _, not_again = result.out:gsub("check  is up to date", "")
    assert.same({ 1, 2 }, { ran, not_again })
  end)

  it("with_k_goes_on_after_a_combination_that_fails", function()
    local result = sweep("hidden=0,4", "-k")
    assert.equal(1, result.code)
    helper.has(result.err, 'step "train": flow.lua:7: lf.mlp')
    assert.is_true(helper.exists(folder .. "/sweeps/flow/hidden=4/out/m.h5"))
    assert.is_false(helper.exists(folder .. "/sweeps/flow/hidden=0/out"))
  end)

  it("refuses_what_it_cannot_do", function()
    local function refused(part, ...)
      local result = sweep(...)
      helper.has(result.err, part)
      assert.equal(2, result.code)
    end
    refused("hidden=six: expected a whole number", "hidden=4,six")
    refused("two runs of the sweep write the same outputs", "hidden=4,4")
    refused('has no parameter "hiden"', "hiden=4,5")
    helper.write(folder .. "/flow.lua", (helper.read(folder .. "/flow.lua"):gsub('"out/m', '"/tmp/m')))
    refused("output model: /tmp/m.h5: expected a relative path, since each run of a sweep has a folder of its own",
      "hidden=4,5")
  end)
end)
