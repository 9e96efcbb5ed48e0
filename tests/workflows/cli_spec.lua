-- Commands, wrong usage and wrong scripts: messages and exit statuses.
local cjson = require "cjson"
local helper = require "helper"
local tables = require "lavaflow.tables"

local folder
setup(function()
  folder = helper.folder()
  helper.fixtures(folder)
  helper.write(folder .. "/flow.lua", [[
local lf = require "lavaflow"
local P = lf.params { data = "good.h5", lr = 1e-2, epochs = 2, fast = false }
local train = lf.step "train" {
  input = { data = P.data }, output = { model = "out/model.h5" }, params = P,
  run = function(s)
    local model = lf.mlp { 4, 8, 3 }
    s:train { model = model, data = lf.dataset(s.input.data).train, epochs = P.epochs, device = "cpu" }
    model:save(s.output.model)
  end,
}
lf.step "report" { input = { model = train.output.model }, run = function(s) s:metric("rate", P.lr) end }
]])
end)
teardown(function() helper.remove(folder) end)

local function lavaflow(...)
  return helper.cli(folder, ...)
end

local function refused(code, part, ...)
  local before = table.concat(helper.files(folder), "\n")
  local result = lavaflow(...)
  helper.has(result.err, part)
  assert.equal(code, result.code)
  assert.equal(before, table.concat(helper.files(folder), "\n"))
  return result
end

describe("the command line", function()
  it("never_replaces_what_it_reads", function()
    local good = helper.read(folder .. "/good.h5")
    refused(2, "good.h5: the run file would replace input data of step \"train\"",
      "run", "flow.lua", "--record", "good.h5")
    refused(2, "./good.h5: the run file would replace input", "run", "flow.lua", "--record", "./good.h5")
    refused(2, "flow.lua: the run file would replace the script", "run", "flow.lua", "--record", "flow.lua")
    assert.equal(0, lavaflow("run", "flow.lua", "--record", "r.h5", "-q").code)
    refused(2, "out/model.h5: the run file would replace", "run", "flow.lua", "--record", "out/model.h5")
    helper.remove(folder .. "/out")
    helper.remove(folder .. "/r.h5")
    assert(require("luv").fs_symlink(folder .. "/good.h5", folder .. "/link.h5"))
    helper.write(folder .. "/same.lua", (helper.read(folder .. "/flow.lua"):gsub("out/model.h5", "link.h5")))
    refused(2, "link.h5: output model of step \"train\" would replace input data of step", "run", "same.lua")
    helper.remove(folder .. "/same.lua")
    helper.remove(folder .. "/link.h5")
    assert.equal(good, helper.read(folder .. "/good.h5"))
  end)

  it("names_a_device_that_is_not_there_before_anything_runs", function()
    refused(2, '--device: device "vulkan:77": there is none; this machine has',
      "run", "flow.lua", "--device", "vulkan:77")
    refused(2, '--device: device "vulkan:77": there is none', "run", "flow.lua", "--device", "cpu,vulkan:77")
  end)

  it("prints_its_version_and_help", function()
    assert.is_truthy(lavaflow("--version").out:find "^lavaflow %d+%.%d+%.%d+\n$")
    for _, command in ipairs { "run", "explain", "devices", "import", "show" } do
      helper.has(lavaflow("--help").out, command)
      assert.equal(0, lavaflow(command, "--help").code)
    end
  end)

  it("lists_every_device_as_text_and_as_json", function()
    local list = cjson.decode(lavaflow("devices", "--json").out)
    local text = lavaflow("devices").out
    local ids = {}
    for _, device in ipairs(list) do
      ids[device.id] = true
      helper.has(text, device.id)
    end
    assert.is_true(ids.cpu)
  end)

  it("says_which_devices_are_one_card", function()
    local function card(id, uuid, unavailable)
      return { id = id, backend = "vulkan", uuid = uuid, unavailable = unavailable, memory = 0, units = 0,
        hardware_gpu = true }
    end
    local list = { card("cuda:0", "a"), card("cuda:1", "b", "too old"), card("vulkan:0", "b"), card("vulkan:1", "a"),
      card("vulkan:2", "c"), card("cpu") }
    local lines, write = {}, tables.write
    tables.write = function(_, line) lines[#lines + 1] = line end
    require("lavaflow.show").devices(list)
    tables.write = write
    local same = {}
    for i, device in ipairs(list) do
      same[i] = device.same_card_as or ""
      assert.equal(lines[i + 1]:match "same card as (%S+)" or "", same[i])
    end
    assert.same({ "", "vulkan:0", "", "cuda:0", "", "" }, same)
    helper.has(lines[3], "unavailable: too old, same card as vulkan:0")
  end)

  it("plans_in_the_order_of_dependencies_and_runs_nothing", function()
    local result = lavaflow("run", "flow.lua", "-n")
    assert.equal(0, result.code)
    assert.is_truthy(result.out:find "train  runs: .*report  waits: .*2 of 2 steps would run")
    helper.has(lavaflow("run", "flow.lua", "-n", "train").out, "1 of 2 steps would run")
    helper.has(lavaflow("run", "flow.lua", "-n", "report").out, "2 of 2 steps would run")
    assert.is_false(helper.exists(folder .. "/out"))
    assert.is_false(helper.exists(folder .. "/runs"))
  end)

  it("explains_the_programs_and_trains_nothing", function()
    local result = lavaflow("explain", "flow.lua", "--program")
    assert.equal(0, result.code)
    assert.is_truthy(
      result.out:find "step train\n.*linear_dw.*adam.*step report: can be explained once there is out/model.h5")
    assert.is_false(helper.exists(folder .. "/out"))
  end)

  it("explains_a_distillation_and_trains_nothing", function()
    helper.write(folder .. "/distill.lua", [[
local lf = require "lavaflow"
lf.step "distilled" {
  input = { data = "good.h5" }, output = { model = "out/student.h5" },
  run = function(s)
    local model = lf.mlp { 4, 8, 3 }
    s:distill { teacher = lf.mlp { 4, 16, 3, seed = 1 }, student = model, data = lf.dataset(s.input.data).train,
      device = "cpu", on_epoch = function() error "it trains" end }
    model:save(s.output.model)
  end,
}
]])
    local result = lavaflow("explain", "distill.lua", "--program")
    assert.same({ 0, "" }, { result.code, result.err })
    assert.is_truthy(result.out:find "step distilled\n.*distill.*linear_dw.*adam")
    assert.is_nil(result.out:find("teacher_1/", 1, true))
    assert.is_false(helper.exists(folder .. "/out"))
    helper.write(folder .. "/hints.lua", (helper.read(folder .. "/distill.lua"):gsub("device =",
      'hints = { { student = "relu_1", teacher = "relu_1" } }, device =')))
    local hinted = lavaflow("explain", "hints.lua", "--program")
    assert.same({ 0, "" }, { hinted.code, hinted.err })
    assert.is_truthy(hinted.out:find "teacher_1/linear_1/kernel.*value_loss")
    helper.remove(folder .. "/hints.lua")
    helper.write(folder .. "/distill.lua", (helper.read(folder .. "/distill.lua"):gsub("16, 3", "16, 2")))
    result = lavaflow("explain", "distill.lua", "--program")
    assert.equal(1, result.code)
    helper.has(result.err, "teacher 1 has 2 outputs, but the student has 3")
    helper.remove(folder .. "/distill.lua")
  end)

  it("updates_one_line_per_training_on_a_terminal", function()
    if not helper.has_terminals() then pending "no terminals here: /dev/pts is not mounted" return end
    local result = helper.run({ helper.python, "-c", "import pty, sys; pty.spawn(sys.argv[1:])", helper.lavaflow, "run",
      "flow.lua", "train", "epochs=5", "--record", "terminal.h5" },
      { cwd = folder, plain = true, env = { TERM = "xterm", LD_PRELOAD = os.getenv "LD_PRELOAD" } })
    local lines = {}
    for line in result.out:gsub("\r\n", "\n"):gmatch "[^\n]+" do lines[#lines + 1] = line end
    assert.equal(2, #lines, result.out)
    helper.has(lines[1], "\rtrain  epoch 1/5  loss ")
    helper.has(lines[1], "\rtrain  epoch 5/5  loss ")
    helper.has(lines[2], "completed: terminal.h5")
    helper.remove(folder .. "/terminal.h5")
    helper.remove(folder .. "/out")
  end)

  it("is_quiet_with_q_and_tells_more_with_v", function()
    local quiet = lavaflow("run", "flow.lua", "-q", "--record", "quiet.h5")
    assert.same({ 0, "", "" }, { quiet.code, quiet.out, quiet.err })
    local loud = lavaflow("run", "flow.lua", "-v", "--fresh", "--record", "loud.h5")
    helper.has(loud.out, "submissions")
    helper.has(loud.out, "train  epoch 2/2  loss ")
    helper.has(lavaflow("show", "loud.h5").out, "parameters  data = good.h5, epochs = 2, fast = 0, lr = 0.01")
    helper.remove(folder .. "/quiet.h5")
    helper.remove(folder .. "/loud.h5")
    helper.remove(folder .. "/out")
  end)
end)

describe("wrong usage", function()
  it("is_exit_status_2", function()
    refused(2, "a command is required")
    refused(2, "unknown command 'rum'", "rum")
    refused(2, "missing argument 'workflow'", "run")
    refused(2, "unknown option '--devise'", "run", "flow.lua", "--devise", "cpu")
    refused(2, "expected a whole number above 0, got '0'", "run", "flow.lua", "-j", "0")
    refused(2, "expected a number above 0, got 'soon'", "run", "flow.lua", "--checkpoint", "soon")
    refused(2, "--record: expected none with --sweep", "run", "flow.lua", "--sweep", "--record", "x.h5")
    refused(2, "mnist", "import", "cifar", ".", "-o", "x.h5")
    refused(2, "missing option '-o'", "import", "mnist", ".")
  end)

  it("lists_the_nearest_parameters_and_steps", function()
    refused(2, 'flow.lua: has no parameter "epohcs"; it has epochs, ', "run", "flow.lua", "epohcs=3")
    refused(2, 'flow.lua: has no step "trian"; it has train, report', "run", "flow.lua", "trian")
  end)

  it("names_the_type_that_a_parameter_has", function()
    refused(2, "epochs=2.5: expected a whole number, as the default 2 is", "run", "flow.lua", "epochs=2.5")
    refused(2, "epochs=x: expected a whole number", "run", "flow.lua", "epochs=x")
    refused(2, "lr=: expected a number, as the default 0.01 is", "run", "flow.lua", "lr=")
    refused(2, "lr=1e999: expected a number", "run", "flow.lua", "lr=1e999")
    refused(2, "fast=1: expected true or false, as the default false is", "run", "flow.lua", "fast=1")
  end)
end)

describe("a wrong script", function()
  local function script(text, part, ...)
    helper.write(folder .. "/wrong.lua", 'local lf = require "lavaflow"\n' .. text)
    refused(2, part, "run", "wrong.lua", ...)
  end

  it("is_exit_status_2_with_file_and_line", function()
    refused(2, "nope.lua: no such file or directory", "run", "nope.lua")
    refused(2, ".: expected a file, got a directory", "run", ".")
    script("x = = 1", "wrong.lua:2: unexpected symbol near '='")
    script("\nlf.sgd.x.y = 1", "wrong.lua:3: attempt to index")
    script("error 'mine'", "wrong.lua:2: mine")
    script("error {}", "wrong.lua:2: an error that is a table")
    script("local x = 1", "wrong.lua: declares no step")
    script("lf.step 'a' {}", 'wrong.lua:2: step "a": run: expected a function, got nothing')
    script("lf.step 'a b' {}", 'lf.step: name: expected a name of letters, digits, _ and -, got "a b"')
    script("lf.step 'a' { rum = 1 }", 'step "a": unknown option "rum"; nearest: run')
    script("lf.step 'a' { input = { x = 1 }, run = print }", 'step "a": input x: expected a path, got 1')
    script("lf.params { a = {} }", "lf.params: a: expected a number, a text, true or false, got a table")
    script("local P = lf.params { alpha = 1 } print(P.alhpa)", 'lf.params has no "alhpa"; it has alpha')
    script("lf.step 'a' { run = print } lf.step 'a' { run = print }", 'step "a": is declared twice')
  end)

  it("has_no_io_and_no_other_programs", function()
    for _, text in ipairs { "io.open('x', 'w')", "os.execute 'true'", "os.remove 'x'", "debug.getregistry()",
      "load 'return 1'", "dofile 'x'", "package.loadlib()" } do
      script(text, "wrong.lua:2: attempt to ")
    end
    script("require 'io'", "wrong.lua:2: require: io: is not for workflows")
    for _, name in ipairs { "lavaflow.core", "lavaflow.files", "luv", "pl.utils", "nope" } do
      script(("require '%s'"):format(name), "and no such package is for workflows")
    end
    script("require('_G').os.execute 'true'", "wrong.lua:2: attempt to call a nil value")
  end)

  it("cannot_harm_the_runner_s_libraries", function()
    script("table.concat = nil string.format = nil", "wrong.lua: declares no step")
  end)

  it("names_a_step_that_depends_on_itself", function()
    script([[lf.step "a" { input = { x = "1" }, output = { y = "2" }, run = print }
lf.step "b" { input = { x = "2" }, output = { y = "./1" }, run = print }]], 'step "a": depends on itself')
  end)

  it("names_two_steps_that_write_one_file", function()
    script([[lf.step "a" { output = { y = "r/../x" }, run = print }
lf.step "b" { output = { y = "x" }, run = print }]], 'step "b": output x: step "a" writes it too')
  end)
end)
