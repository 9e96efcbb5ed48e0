-- Workflows in several processes that mpirun starts: the same model whatever their number, one run file, one message,
-- and no process that waits for ever for another one.
local core = require "lavaflow.core"
local helper = require "helper"
local ranks = require "lavaflow.ranks"
local uv = require "luv"

local mpirun
for place in os.getenv "PATH":gmatch "[^:]+" do
  mpirun = mpirun or (uv.fs_access(place .. "/mpirun", "X") and place .. "/mpirun") or nil
end

local folder, temporary
before_each(function() folder, temporary = helper.folder(), helper.folder() end)
after_each(function()
  helper.remove(folder)
  helper.remove(temporary) -- what killed processes have left
end)

-- Runs a program in `count` processes. Five minutes are for ever.
local function together(count, command, given)
  given = given or {}
  local line, preload = { mpirun, "-n", tostring(count) }, os.getenv "LD_PRELOAD"
  if preload then table.move({ "-x", "LD_PRELOAD=" .. preload }, 1, 2, #line + 1, line) end
  local result = helper.run(table.move(command, 1, #command, #line + 1, line), {
    cwd = folder, plain = true, on_output = given.on_output, env = { TMPDIR = temporary },
    on_start = function(process)
      local timer = uv.new_timer()
      timer:start(300000, 0, function() process:kill "sigkill" end)
      timer:unref()
    end,
  })
  assert.equal(0, result.signal, "the processes did not end")
  return result
end

local function run(count, arguments, given)
  local command = { helper.lavaflow, "run", "flow.lua", "--device", "cpu", "--record", "run.h5" }
  return together(count, table.move(arguments, 1, #arguments, #command + 1, command), given)
end

local function entry() return core.h5_read(folder .. "/run.h5", "/entry", 10000) end

-- Our own lines of what came on stderr: mpirun tells of a status that is not 0 too.
local function ours(text)
  local lines = {}
  for line in text:gmatch "[^\n]+" do
    if line:find "lavaflow: " then lines[#lines + 1] = line end
  end
  return lines
end

local function children(pid)
  local list = {}
  for number in helper.read(("/proc/%d/task/%d/children"):format(pid, pid)):gmatch "%d+" do
    list[#list + 1] = math.tointeger(number)
  end
  return list
end

-- The process that mpirun started as this number.
local function process_of(pid, number)
  for _, child in ipairs(children(pid)) do
    local environment = helper.read(("/proc/%d/environ"):format(child))
    if environment:find(("\0OMPI_COMM_WORLD_RANK=%d\0"):format(number), 1, true) then return child end
  end
  error("there is no process " .. number)
end

-- Calls `fn` with the mpirun's process number, once, when the training tells of an epoch.
local function at_epoch(epoch, fn)
  local done
  return function(text, process)
    if done or not text:find("epoch " .. epoch .. "/", 1, true) then return end
    done = true
    fn(process:get_pid())
  end
end

-- `wrong` is code that runs before the training, with the number of the process in `me`; `with` are its options.
local function flow(wrong, with)
  helper.write(folder .. "/flow.lua", ([[
local lf = require "lavaflow"
local P = lf.params { data = "%s/datasets/digits.h5", epochs = 6 }
local train = lf.step "train" {
  input = { data = P.data }, output = { model = "out/m.h5" }, params = P, checkpoint = { steps = 30 },
  run = function(s)
    local me = os.getenv "OMPI_COMM_WORLD_RANK"
    print("begins", me ~= nil)
    %s
    local data = lf.dataset(s.input.data)
    local model = lf.sequential { lf.linear(64, 24), lf.batch_norm(24), lf.relu(), lf.dropout(0.2), lf.linear(24, 10) }
    s:train { model = model, data = data.train, validation = data.test, epochs = P.epochs, shards = 4, seed = 3, %s }
    model:save(s.output.model)
  end,
}
lf.step "plain" {
  input = { model = train.output.model }, output = { copy = "out/copy.h5" },
  run = function(s)
    local model = lf.load(s.input.model)
    s:metric("digest_length", #model:digest())
    model:save(s.output.copy)
  end,
}
]]):format(helper.source, wrong or "", with or ""))
end

local function in_processes(name, test)
  it(name, function()
    if not mpirun then return pending "mpirun is not installed" end
    test()
  end)
end

local function digest(epochs)
  local result = helper.cli(folder, "run", "flow.lua", "--device", "cpu", "--record", "one.h5", "--fresh", "-q",
    "epochs=" .. epochs)
  assert.same({ 0, "" }, { result.code, result.err })
  local sha256 = core.h5_digest(folder .. "/out/m.h5", "/model")
  helper.remove(folder .. "/out")
  helper.remove(folder .. "/.lavaflow")
  return sha256
end

describe("a workflow", function()
  in_processes("gives_one_model_and_one_run_file_in_any_number_of_processes", function()
    flow()
    local one = digest(6)
    for _, count in ipairs { 1, 2, 4 } do
      local result = run(count, { "-v" })
      assert.same({ 0, "" }, { result.code, result.err })
      assert.equal(one, core.h5_digest(folder .. "/out/m.h5", "/model"))
      assert.equal(one, core.h5_digest(folder .. "/out/copy.h5", "/model"))
      assert.same({ "copy.h5", "m.h5" }, helper.list(folder .. "/out"))
      assert.same({ ".lavaflow", "flow.lua", "one.h5", "out", "run.h5" }, helper.list(folder))
      local told = entry()
      assert.same({ "completed", count, 4 },
        { told.status, told.metrics.train["@ranks"], told.metrics.train["@shards"] })
      assert.equal(6, #told.metrics.train.loss.value)
      assert.equal(1, #told.metrics.plain.digest_length.value)
      for _, name in ipairs(helper.list(temporary)) do assert.is_falsy(name:find "^lavaflow") end
      local _, begun = result.out:gsub("begins\ttrue", "")
      assert.equal(1, begun)
      local again = run(count, { "-v" }).out
      for _, name in ipairs { "train", "plain" } do helper.has(again, name .. "  is up to date") end
      helper.remove(folder .. "/.lavaflow")
    end
  end)

  in_processes("refuses_several_steps_at_a_time", function()
    flow()
    local result = run(2, { "-j", "2" })
    assert.equal(2, result.code)
    assert.same({ "lavaflow: --jobs: expected 1 with several processes, which run each step together, got 2" },
      ours(result.err))
  end)
end)

describe("an error", function()
  in_processes("of_all_processes_is_told_once", function()
    flow 'error "on purpose"'
    local result = run(3, { "-k" })
    assert.equal(1, result.code)
    assert.same({ 'lavaflow: step "train": flow.lua:8: on purpose' }, ours(result.err))
    assert.same({ "failed", 1 }, { entry().status, entry().exit_code })
    assert.is_false(helper.exists(folder .. "/out"))
  end)

  in_processes("in_the_labels_names_the_same_row_in_any_number_of_processes", function()
    helper.fixtures(folder)
    helper.write(folder .. "/flow.lua", [[
local lf = require "lavaflow"
lf.step "train" { input = { data = "late_negative.h5" }, run = function(s)
  s:train { model = lf.mlp { 4, 3 }, data = lf.dataset(s.input.data).train, epochs = 1, shards = 4 }
end }
]])
    for _, count in ipairs { 1, 2, 4 } do
      local result = run(count, {})
      assert.equal(1, result.code)
      local lines = ours(result.err)
      assert.equal(1, #lines, result.err)
      helper.has(lines[1], "late_negative.h5:/train/y: label -1 at row 40 is outside 0..")
    end
  end)

  in_processes("of_one_process_alone_ends_all", function()
    flow 'if me == "1" then lf.dataset "absent.h5" end'
    local result = run(3, {})
    assert.equal(1, result.code)
    local lines = ours(result.err)
    assert.equal(1, #lines, result.err)
    helper.has(lines[1], 'lavaflow: step "train": process 1: ')
    helper.has(lines[1], "absent.h5")
    assert.same({ "failed", "failed" }, { entry().status, entry().step_1.status })
  end)

  in_processes("of_one_process_that_the_others_do_not_wait_for_fails_the_step_alone", function()
    helper.write(folder .. "/flow.lua", [[
local lf = require "lavaflow"
lf.step "bad" { run = function() if os.getenv "OMPI_COMM_WORLD_RANK" == "1" then error "on purpose" end end }
lf.step "good" { run = function(s) s:metric("it", 1) end }
]])
    local result = run(2, { "-k" })
    assert.equal(1, result.code)
    assert.same({ 'lavaflow: step "bad": process 1: flow.lua:2: on purpose' }, ours(result.err))
    assert.same({ "failed", "completed" }, { entry().step_1.status, entry().step_2.status })
  end)

  in_processes("of_the_first_process_alone_ends_all", function()
    flow 'if me == "0" then error "on purpose" end'
    local result = run(3, {})
    assert.equal(1, result.code)
    assert.same({ 'lavaflow: step "train": flow.lua:8: on purpose' }, ours(result.err))
    assert.equal("failed", entry().status)
  end)

  in_processes("that_a_training_meets_in_one_process_is_told_by_all", function()
    flow("", 'device = me == "2" and "none:0" or "cpu"')
    local result = run(3, {})
    assert.equal(1, result.code)
    local lines = ours(result.err)
    assert.equal(1, #lines, result.err)
    helper.has(lines[1], 'process 2: device "none:0"')
  end)
end)

describe("a process that is killed", function()
  local function goes_on_after(kill)
    flow()
    local one = digest(40)
    local result = run(3, { "epochs=40" }, { on_output = at_epoch(20, kill) })
    assert.is_true(result.code ~= 0)
    local again = run(3, { "epochs=40" })
    assert.equal(0, again.code, again.err)
    assert.is_truthy(again.out:find "train  goes on after step %d+\n")
    assert.equal(one, core.h5_digest(folder .. "/out/m.h5", "/model"))
    assert.equal(40, #entry().metrics.train.loss.value)
    return result
  end

  in_processes("ends_all_which_go_on_from_the_checkpoint", function()
    goes_on_after(function(pid) uv.kill(process_of(pid, 1), "sigkill") end)
  end)

  in_processes("by_the_first_one_s_side_is_told_by_the_runner", function()
    local result = goes_on_after(function(pid) uv.kill(children(process_of(pid, 0))[1], "sigkill") end)
    assert.equal(1, result.code)
    helper.has(result.err, 'lavaflow: step "train": its process was ended by SIGKILL')
  end)
end)

describe("SIGUSR1", function()
  in_processes("to_one_or_all_leads_to_a_checkpoint_and_status_75_of_all", function()
    flow()
    local one = digest(60)
    local function stopped(fn)
      local result = run(3, { "epochs=60" }, { on_output = at_epoch(20, fn) })
      assert.equal(75, result.code, result.err)
      assert.same({ "interrupted", 75 }, { entry().status, entry().exit_code })
      helper.has(result.err, "train.checkpoint.h5 is written, to go on from: interrupted at step ")
    end
    stopped(function(pid) uv.kill(process_of(pid, 2), "sigusr1") end)
    helper.remove(folder .. "/.lavaflow")
    stopped(function(pid) uv.kill(pid, "sigusr1") end)
    local again = run(2, { "epochs=60" })
    assert.equal(0, again.code, again.err)
    assert.is_truthy(again.out:find "train  goes on after step %d+\n")
    assert.equal(one, core.h5_digest(folder .. "/out/m.h5", "/model"))
  end)
end)

describe("another command", function()
  in_processes("is_run_by_the_first_process_alone", function()
    flow()
    local result = together(3, { helper.lavaflow, "status", "flow.lua" })
    assert.equal(0, result.code)
    local _, times = result.out:gsub("has not run yet", "")
    assert.equal(1, times)
    helper.has(together(2, { helper.lavaflow, "run", "--help" }).out, "Usage: lavaflow run")
    run(2, {})
    result = together(2, { helper.lavaflow, "verify", "run.h5" })
    assert.equal(0, result.code, result.err)
    helper.has(result.out, "verified: the same bits on cpu")
  end)
end)

describe("a script by itself", function()
  local function script(count, last)
    helper.write(folder .. "/script.lua", ([[
local lf = require "lavaflow"
local me = os.getenv "OMPI_COMM_WORLD_RANK"
local history = lf.train { model = lf.mlp { 64, 16, 10 }, data = lf.dataset("%s/datasets/digits.h5").train, epochs = 2,
                           shards = 4, device = "cpu" }
print(history.digest)
%s
]]):format(helper.source, last or ""))
    return together(count, { helper.lua, "script.lua" })
  end

  in_processes("ends_in_all_processes", function()
    local one, three = script(1), script(3)
    assert.same({ 0, "" }, { three.code, three.err })
    assert.equal(one.out:rep(3), three.out)
    assert.equal(0, script(2, "os.exit(0)").code)
  end)

  -- What each process has read of a file, and the digest, which is the same for all.
  local function reading(count, options)
    helper.write(folder .. "/script.lua", ([[
local lf = require "lavaflow"
local function read() return tonumber(io.open "/proc/self/io":read "a":match "rchar: (%%d+)") end
require "lavaflow.core".ranks()
local before = read()
local data = lf.dataset { file = "wide.h5", x = "/x", y = "/y", w = "/w", normalize = "standard" }
local history = lf.train { model = lf.mlp { 64, 3 }, data = data.train, epochs = 1, batch = 1000, shards = 4,
                           device = "cpu", %s }
io.write(history.digest, " ", read() - before, "\n")
]]):format(options))
    local result, most, sha256 = together(count, { helper.lua, "script.lua" }), 0, nil
    assert.same({ 0, "" }, { result.code, result.err })
    for own, bytes in result.out:gmatch "(%x+) (%d+)\n" do
      assert.equal(sha256 or own, own)
      sha256, most = own, math.max(most, tonumber(bytes))
    end
    return sha256, most
  end

  in_processes("reads_a_part_of_its_file_in_each_process", function()
    local made = helper.run({ helper.python, "-c", [[
import h5py, numpy as np
random = np.random.default_rng(1)
with h5py.File("wide.h5", "w") as file:
    file["x"] = random.normal(5, 3, (40000, 64)).astype("f4")
    file["y"] = random.integers(0, 3, 40000).astype("u1")
    file["w"] = random.uniform(0, 2, 40000).astype("f4")
]] }, { cwd = folder, plain = true })
    assert(made.code == 0, made.err)
    for _, options in ipairs { "", "window = 4, shuffle = false" } do
      local one, all = reading(1, options)
      for _, count in ipairs { 2, 4 } do
        local sha256, most = reading(count, options)
        assert.equal(one, sha256)
        assert(most < all * 1.15 / count, ("one of %d processes read %d bytes, alone %d"):format(count, most, all))
      end
    end
  end)

  in_processes("that_fails_in_one_process_ends_all", function()
    local result = script(3, 'if me == "1" then error "on purpose" end lf.train { model = lf.mlp { 64, 10 }, '
      .. 'data = lf.dataset("' .. helper.source .. '/datasets/digits.h5").train }')
    assert.equal(1, result.code)
    helper.has(result.err, "script.lua:6: on purpose")
  end)
end)

describe("the devices of a machine", function()
  local function gpu(id, uuid) return { id = id, uuid = uuid, hardware_gpu = true } end
  local devices = { gpu("cuda:0", "a"), gpu("cuda:1", "b"), gpu("cuda:2", "c"), gpu("vulkan:0", "a"),
    { id = "vulkan:1", hardware_gpu = true, unavailable = "why" }, { id = "cpu", hardware_gpu = false } }

  it("are_divided_among_its_processes_where_there_are_enough", function()
    assert.same({ "cuda:0", "cuda:2" }, ranks.share(devices, 0, 2))
    assert.same({ "cuda:1" }, ranks.share(devices, 1, 2))
    assert.same({ "cuda:2" }, ranks.share(devices, 2, 3))
  end)

  it("are_shared_where_there_are_not", function()
    assert.is_nil(ranks.share(devices, 0, 4))
  end)
end)
