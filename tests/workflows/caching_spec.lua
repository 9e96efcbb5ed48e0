-- What runs again and what does not: each kind of change runs exactly the steps that it concerns.
local core = require "lavaflow.core"
local helper = require "helper"
local uv = require "luv"

-- Three steps: `first` has a helper, a captured value and a parameter; `second` reads the first's output; `other` has
-- its own input.
local script = [[
local lf = require "lavaflow"
local layers = require "layers"
local P = lf.params { epochs = 1, seed = 1, hidden = 8, note = "a" }
local batch = 8
local function model(hidden) return layers.mlp(hidden) end

local first = lf.step "first" {
  input = { data = "good.h5" },
  output = { model = "out/first.h5" },
  params = P,
  run = function(s)
    local net = model(s.params.hidden)
    s:train { model = net, data = lf.dataset(s.input.data).train, epochs = s.params.epochs, batch = batch,
              device = "cpu" }
    net:save(s.output.model)
  end,
}
lf.step "second" {
  input = { model = first.output.model },
  run = function(s) s:metric("layers", #lf.load(s.input.model):layers()) end,
}
lf.step "other" {
  input = { data = "good.h5:/test" },
  output = { text = "out/other.h5" },
  run = function(s)
    lf.mlp { 4, P.seed, 3, seed = 1 }:save(s.output.text)
  end,
}
]]
local modules = [[
local lf = require "lavaflow"
local layers = {}
function layers.mlp(hidden) return lf.mlp { 4, hidden, 3, seed = 1 } end
function layers.unused() return 1 end
return layers
]]

local folder
before_each(function()
  folder = helper.folder()
  helper.fixtures(folder)
  helper.write(folder .. "/flow.lua", script)
  helper.write(folder .. "/layers.lua", modules)
end)
after_each(function() helper.remove(folder) end)

local function cli(...) return helper.cli(folder, ...) end

-- Runs and gives the names of the steps that ran, in order.
local function ran(...)
  local result = cli("run", "flow.lua", "-v", ...)
  assert.same({ 0, "" }, { result.code, result.err }, result.out)
  local names = {}
  for name in result.out:gmatch "([%w]+)  runs: " do names[#names + 1] = name end
  table.sort(names)
  return table.concat(names, " "), result.out
end

local function edit(name, from, to)
  local text, count = helper.read(folder .. "/" .. name):gsub(from:gsub("%p", "%%%0"), (to:gsub("%%", "%%%%")))
  assert.equal(1, count, from)
  helper.write(folder .. "/" .. name, text)
end

-- Files but the digests that are remembered, which a file gets once it is some seconds old.
local function lasting_files()
  local list = {}
  for _, name in ipairs(helper.files(folder)) do
    if not name:find "^%.lavaflow/digests" then list[#list + 1] = name end
  end
  return list
end

local function python(code)
  local result = helper.run({ helper.python, "-c", "import h5py\n" .. code }, { cwd = folder, plain = true })
  assert.equal(0, result.code, result.err)
end

describe("a second run", function()
  before_each(function() assert.equal("first other second", (ran())) end)

  it("executes_nothing_and_writes_nothing", function()
    local before = lasting_files()
    local names, out = ran()
    assert.equal("", names)
    helper.has(out, "nothing to do: 3 steps of flow.lua are up to date")
    assert.same(before, lasting_files())
  end)

  it("does_not_care_for_comments_and_layout", function()
    edit("flow.lua", "    local net = model(s.params.hidden)",
      "    -- the model\n\n    local net =\n      model(s.params.hidden)")
    edit("layers.lua", "function layers.mlp(hidden) return", "--[[ a\nremark ]]\nfunction layers.mlp(hidden)\n  return")
    assert.equal("", (ran()))
  end)

  it("does_not_care_for_dates_and_siblings", function()
    local later = os.time() + 1000
    for _, name in ipairs { "good.h5", "flow.lua", "out/first.h5" } do
      assert(uv.fs_utime(folder .. "/" .. name, later, later))
    end
    assert.equal("", (ran()))
  end)

  it("runs_what_calls_a_helper_that_changed", function()
    edit("layers.lua", "{ 4, hidden, 3, seed = 1 }", "{ 4, hidden, 3, seed = 2 }")
    assert.equal("first second", (ran()))
    assert.equal("", (ran()))
  end)

  it("does_not_care_for_a_function_that_nobody_calls", function()
    edit("layers.lua", "return 1 end", "return 2 end")
    assert.equal("", (ran()))
  end)

  it("runs_what_captures_a_value_that_changed", function()
    edit("flow.lua", "local batch = 8", "local batch = 6")
    assert.equal("first second", (ran()))
  end)

  it("runs_what_reads_a_parameter_that_changed", function()
    assert.equal("first second", (ran "hidden=9"))
    assert.equal("first second", (ran()))
    assert.equal("first second", (ran "epochs=2"))
    assert.equal("first other second", (ran "seed=2")) -- epochs is 1 again
    assert.equal("other", (ran()))
  end)

  it("does_not_care_for_a_parameter_that_nobody_reads", function()
    assert.equal("", (ran "note=b"))
  end)

  it("runs_what_reads_an_element_of_an_input_that_changed", function()
    python [[with h5py.File("good.h5", "r+") as f: f["test/x"][0, 0] += 1]]
    assert.equal("first other", (ran())) -- the first reads the whole file, and gives the same model
    python [[with h5py.File("good.h5", "r+") as f: f["train/x"][0, 0] += 1]]
    assert.equal("first second", (ran())) -- the other reads /test
  end)

  it("runs_what_lost_its_output_or_finds_it_changed", function()
    assert(uv.fs_unlink(folder .. "/out/other.h5"))
    assert.equal("other", (ran()))
    python [[with h5py.File("out/first.h5", "r+") as f: f["model/linear_1/kernel"][0, 0] += 1]]
    assert.equal("first", (ran()))
  end)

  it("is_forced_with_f_and_starts_over_with_fresh", function()
    assert.equal("first", (ran("-f", "first")))
    assert.equal("first other second", (ran "--fresh"))
    local result = cli("run", "flow.lua", "-f", "firts")
    assert.same({ 2, 'lavaflow: flow.lua: has no step "firts"; it has first, other, second\n' },
      { result.code, result.err })
  end)

  it("goes_by_the_outputs_not_by_the_last_run", function()
    edit("flow.lua", '"out/first.h5"', '("out/%d.h5"):format(P.hidden)')
    assert.equal("first second", (ran "hidden=4"))
    assert.equal("first second", (ran "hidden=5"))
    assert.equal("", (ran "hidden=4"))
  end)

  it("takes_the_metrics_of_what_it_does_not_run_into_its_run_file", function()
    edit("flow.lua", "#lf.load", "1 + #lf.load")
    ran("--record", "again.h5")
    local entry = core.h5_read(folder .. "/again.h5", "/entry", 1000)
    assert.equal("up to date", entry.step_1.status)
    assert.equal("completed", entry.step_2.status)
    assert.is_true(#entry.metrics.first.step_loss.value > 0)
    assert.equal(#entry.metrics.first.step_loss.value, #entry.metrics.first.step_loss.step)
    assert.equal(4, entry.metrics.second.layers.value[1])
    assert.is_truthy(entry.step_1.from_run:match "^[%x-]+$")
    assert.is_table(entry.result.first.model.model)
  end)
end)

-- Workflows of one step whose code is `run`; `before` comes first in the script.
local function one(before, run, more)
  local text = 'local lf = require "lavaflow"\n%s\nlf.step "only" { %s run = function(s) %s end }'
  helper.write(folder .. "/flow.lua", text:format(before, more or "", run))
end

describe("a change runs a step again", function()
  -- Each: what comes before, the run, the text that changes, and what it becomes; other fields of the step.
  local changes = {
    of_a_function_called_run = { "local function run() return 1 end", 's:metric("x", run())', "return 1", "return 2" },
    of_an_element_of_a_list_of_parameters = { "", 's:metric("x", s.params[2])', "32", "99", "params = { 64, 32 }," },
    of_a_parameter_of_a_named_function = { "local function work(s) s:metric('x', s.params.b) end", "work(s)", "b = 1",
      "b = 2", "params = { b = 1 }," },
    of_parameters_that_are_passed_on = { "", 'local p = s.params s:metric("x", p.b)', "b = 1", "b = 2",
      "params = { b = 1 }," },
    of_a_method_behind_a_metatable = {
      "local c = {} c.__index = c function c.v() return 1 end local o = setmetatable({}, c)",
      's:metric("x", o.v())', "return 1", "return 2" },
    of_a_global_by_name = { "K = 1", 's:metric("x", _G["K"])', "K = 1", "K = 2" },
    of_a_library_that_the_script_extends = { "function string.foo() return 1 end", 's:metric("x", string.foo())',
      "return 1", "return 2" },
    of_a_field_with_a_dot_in_its_name = { 'local t = { ["a.b"] = 1, a = { b = 2 } }', 's:metric("x", t.a.b + t["a.b"])',
      "b = 2", "b = 3" },
    of_a_module_that_is_required_in_the_run = { 'local m = require "layers"',
      's:metric("x", require("layers").unused())', "", "" },
  }
  for name, change in pairs(changes) do
    it(name, function()
      one(change[1], change[2], change[5])
      assert.equal("only", (ran()))
      assert.equal("", (ran()))
      if change[3] ~= "" then
        edit("flow.lua", change[3], change[4])
      else
        edit("layers.lua", "return 1 end", "return 2 end")
      end
      assert.equal("only", (ran()))
      assert.equal("", (ran()))
    end)
  end

  it("but_not_of_a_last_comment_or_a_first_line_for_the_shell", function()
    one("", 's:metric("x", 1)')
    ran()
    helper.write(folder .. "/flow.lua", "#!/usr/bin/env lavaflow\n" .. helper.read(folder .. "/flow.lua") .. " -- end")
    assert.equal("", (ran()))
  end)
end)

describe("a step that was forced and interrupted", function()
  it("goes_on_without_being_forced_again", function()
    one("", [[
      s:train { model = lf.mlp { 4, 8, 3 }, data = lf.dataset("good.h5").train, epochs = 4, device = "cpu",
                on_epoch = function(e) if os.getenv "FAIL" and e == 3 then error "on purpose" end end }]],
      "checkpoint = { steps = 1 },")
    ran()
    local failed = helper.run({ helper.lavaflow, "run", "flow.lua", "-q", "-f", "only" },
      { cwd = folder, env = { FAIL = "1" } })
    assert.equal(1, failed.code)
    local result = cli("run", "flow.lua", "-v")
    assert.equal(0, result.code, result.err)
    helper.has(result.out, "only  goes on: was forced, and interrupted")
    assert.equal("", (ran()))
  end)
end)

describe("a step whose `run` is a function of its own name", function()
  it("runs_again_when_a_parameter_changes", function()
    helper.write(folder .. "/flow.lua", [[
local lf = require "lavaflow"
local P = lf.params { lr = 1 }
local function train(s)
  s:metric("x", s.params.lr)
  lf.mlp { 4, 3, seed = 1 }:save(s.output.m)
end
lf.step "only" { params = P, output = { m = "m.h5" }, run = train }
]])
    assert.equal("only", (ran()))
    helper.has(cli("explain", "flow.lua", "lr=2").out, "parameter lr: 1 -> 2")
    assert.equal("only", (ran "lr=2"))
  end)
end)

describe("a step", function()
  it("gets_its_parameters_as_a_table_like_any_other", function()
    one("", [[
      local count = 0
      for _ in pairs(s.params) do count = count + 1 end
      assert(next(s.params) and count == 3 and #s.params == 2 and rawget(s.params, "a") == 5)
      local x, y = table.unpack(s.params)
      for i, value in ipairs(s.params.list) do assert(value == i) end
      s:metric("x", x + y)]], "params = { 7, 8, a = 5, list = { 1, 2 } },")
    edit("flow.lua", "count == 3", "count == 4")
    assert.equal("only", (ran()))
  end)

  it("does_not_take_parameters_that_cannot_be_compared", function()
    local function refused(before, more, part)
      one(before, "", more)
      local result = cli("run", "flow.lua")
      assert.equal(2, result.code)
      helper.has(result.err, part)
    end
    refused("local p = {} p.p = p", "params = p,",
      'step "only": params.p: expected a table that does not contain itself')
    refused("", "params = { f = print },",
      'step "only": params.f: expected a number, a text, true or false, or a table')
  end)

  it("cannot_save_a_model_over_its_input", function()
    local before = helper.read(folder .. "/good.h5")
    one("", "lf.mlp { 4, 3, seed = 1 }:save(s.input.data)", 'input = { data = "good.h5" },')
    local result = cli("run", "flow.lua", "-q")
    assert.equal(1, result.code)
    helper.has(result.err, "model:save: good.h5 would replace input data")
    assert.equal(before, helper.read(folder .. "/good.h5"))
  end)

  it("is_as_if_it_had_not_run_when_what_is_remembered_is_damaged", function()
    one("", 's:metric("x", 1)')
    ran()
    for _, name in ipairs(helper.files(folder)) do
      if name:find "done%.json$" then helper.write(folder .. "/" .. name, '{"facts":{},"outputs":{},"journal":"x"}') end
    end
    assert.equal("only", (ran()))
    for _, name in ipairs(helper.files(folder)) do
      if name:find "%.journal$" then helper.write(folder .. "/" .. name, "garbage garbage garbage") end
    end
    local broken = cli("run", "flow.lua", "--record", "run.h5")
    assert.equal(1, broken.code)
    helper.has(broken.err, 'step "only": what is remembered of its last run is damaged, and now forgotten: run again')
    assert.equal("only", (ran()))
  end)
end)

describe("the plan", function()
  it("says_what_would_run_and_why_in_old_and_new_values", function()
    local function lines(...) return cli(...).out end
    helper.has(lines("run", "flow.lua", "-n"), "first  runs: has not run yet\n")
    helper.has(lines("run", "flow.lua", "-n"), "second  waits: after step first, if what it reads of it changes\n")
    helper.has(lines("run", "flow.lua", "-n"), "3 of 3 steps would run")
    assert.is_false(helper.exists(folder .. "/out"))
    ran()
    helper.has(lines("run", "flow.lua", "-n"), "0 of 3 steps would run")
    helper.has(lines("run", "flow.lua", "-n", "hidden=9"), "first  runs: parameter hidden: 8 -> 9\n")
    edit("flow.lua", "local batch = 8", "local batch = 6")
    helper.has(lines("explain", "flow.lua", "first"), "first: runs\n  value batch: 8 -> 6\n  last run: ")
    edit("layers.lua", "{ 4, hidden, 3, seed = 1 }", "{ 4, hidden, 3, seed = 2 }")
    helper.has(lines("explain", "flow.lua", "first"), "code model/layers.mlp: … seed = 1 } end … -> … seed = 2 } end …")
    local status = lines("status", "flow.lua")
    helper.has(status, "first   runs")
    helper.has(status, "other   up to date")
    python [[with h5py.File("good.h5", "r+") as f: f["test/x"][0, 0] += 1]]
    assert.is_truthy(lines("explain", "flow.lua", "other"):find "input data: good.h5:/test: content %x+ %-> %x+\n")
    assert(uv.fs_unlink(folder .. "/out/other.h5"))
    helper.has(lines("explain", "flow.lua", "other"), "output text: out/other.h5: is missing")
  end)

  it("of_a_step_without_outputs_compares_with_its_run_with_other_values", function()
    helper.write(folder .. "/flow.lua", [[
local lf = require "lavaflow"
local P = lf.params { lr = 1e-3 }
lf.step "only" { params = P, run = function(s) s:metric("rate", s.params.lr) end }
]])
    ran()
    helper.has(cli("explain", "flow.lua", "lr=0.01").out, "parameter lr: 0.001 -> 0.01")
    assert.equal("only", (ran "lr=0.01"))
    assert.equal("", (ran()))
    assert.equal("", (ran "lr=0.01"))
  end)
end)

describe("fifty steps", function()
  it("that_are_up_to_date_are_left_alone", function()
    helper.write(folder .. "/flow.lua", [[
local lf = require "lavaflow"
for i = 1, 50 do
  lf.step("step" .. i) {
    input = { data = "good.h5" }, output = { model = ("out/%d.h5"):format(i) },
    run = function(s) lf.mlp { 4, i, 3, seed = i }:save(s.output.model) end,
  }
end
]])
    local first = cli("run", "flow.lua", "-q", "-j", "4", "--device", "cpu")
    assert.same({ 0, "" }, { first.code, first.err })
    local before = lasting_files()
    local again = cli("run", "flow.lua")
    helper.has(again.out, "nothing to do: 50 steps")
    assert.same(before, lasting_files())
  end)
end)
