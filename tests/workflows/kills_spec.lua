-- Workflows that are killed and stopped at random moments until they are done: the same bits, complete metrics, nothing
-- left over.
local core = require "lavaflow.core"
local helper = require "helper"
local uv = require "luv"

-- LAVAFLOW_TEST_KILLS: fewer, where each takes longer.
local KILLS = math.tointeger(tonumber(os.getenv "LAVAFLOW_TEST_KILLS" or 100))
local STOPS = math.min(20, KILLS)
local seed = math.tointeger(tonumber(os.getenv "LAVAFLOW_TEST_SEED") or os.time())

local folder
setup(function()
  folder = helper.folder()
  assert(uv.fs_symlink(helper.source .. "/datasets", folder .. "/datasets"))
  assert(uv.fs_symlink(helper.source .. "/workflows", folder .. "/workflows"))
end)
teardown(function() helper.remove(folder) end)

-- A step that tells all the while: between trainings, and from their callbacks.
local telling = [[
local lf = require "lavaflow"
lf.step "train" {
  input = { data = "datasets/digits.h5" },
  output = { model = "results/digits.h5" },
  run = function(s)
    local data = lf.dataset(s.input.data)
    s:metric("begun", 1)
    local big = lf.mlp { 64, 24, 10 }
    s:train { name = "teacher", model = big, data = data.train, validation = data.valid, epochs = 3, ema = 0.9,
              on_epoch = function(epoch, logs) s:metric("told", epoch + logs.val_loss) end }
    s:metric("told", 100)
    local small = lf.mlp { 64, 8, 10 }
    local history = s:distill { teacher = big, student = small, data = data.train, validation = data.valid,
      epochs = 6, on_step_every = 30,
      on_step = function(step, logs) s:metric("steps", step + logs.loss) end,
      on_epoch = function(epoch)
        s:metric("told", -epoch)
        s:evaluate { model = small, data = data.test }
        return epoch < 5
      end }
    s:metric("best", math.max(table.unpack(history.val_accuracy)))
    s:metric("epochs", #history.loss + history.epochs)
    small:save(s.output.model)
  end,
}
]]

local script -- that is run

local function command(...)
  return { helper.lavaflow, "run", script, "--device", "cpu", "-q", "--checkpoint", "0.005", ... }
end

local function scores_of(evaluations)
  local list = {}
  for name, one in pairs(evaluations) do
    if type(one) == "table" then list[name] = { loss = one.loss, accuracy = one.accuracy, model = one["@model"] } end
  end
  return list
end

local function summary(path)
  local all = core.h5_read(folder .. "/" .. path, "/entry", 100000)
  local metrics = {}
  for training, series in pairs(all.metrics) do
    for name, one in pairs(type(series) == "table" and series or {}) do
      if type(one) == "table" then metrics[training .. "." .. name] = { steps = one.step, values = one.value } end
    end
  end
  local digests = {}
  for training, one in pairs(all.digests) do digests[training] = { one.step, one.sha256 } end
  return { status = all.status, digests = digests, metrics = metrics, scores = scores_of(all.evaluations or {}),
    model = all.result.train.model["digest"]["@sha256"] }
end

-- All but what is remembered for the next run, and the run files.
local function leftovers()
  local list = {}
  for _, name in ipairs(helper.files(folder)) do
    local kept = name:find "^%.lavaflow/%w+/%w+%-%x+/done%-%x+%.journal$" or name:find "^%.lavaflow/%w+/%w+%-%x+/lock$"
      or name:find "^%.lavaflow/%w+/%w+%-%x+/done%.json$" or name:find "^%.lavaflow/digests%.json%.?l?o?c?k?$"
      or name == ".lavaflow/.gitignore" or name == "results/digits.h5" or name:find "^%w+%.h5$"
      or name:find "^datasets/" or name:find "^workflows/" or name == "telling.lua"
    if not kept then list[#list + 1] = name end
  end
  return list
end

local function forget()
  helper.remove(folder .. "/.lavaflow")
  helper.remove(folder .. "/results")
end

-- Runs until it is done, ending runs before that with `signal` to the whole process group at random moments of up to
-- `span` milliseconds. Gives how many were ended.
local function ended_again_and_again(signal, times, span)
  local ended = 0
  while true do
    local timer = uv.new_timer()
    local result = helper.run(command("--record", "again.h5"), {
      cwd = folder, detached = true,
      on_start = function(process)
        if ended >= times then return end
        local group = -process:get_pid()
        timer:start(math.random(5, span), 0, function() uv.kill(group, signal) end)
      end,
    })
    timer:close()
    uv.run()
    -- A signal that comes when all is done stops nothing.
    local late = result.code == 0 and result.err:find "stopping after a checkpoint"
    if result.signal ~= 0 or result.code == 75 or late then
      ended = ended + 1
    else
      assert.same({ 0, "" }, { result.code, result.err })
      if ended >= times then return ended end
      assert.same({}, leftovers())
      forget() -- done before it was ended often enough: once more
    end
  end
end

-- Runs a workflow once, then again with that many ends: both must tell the same.
local function survives(name, signal, times)
  script = name
  local start = uv.hrtime()
  local result = helper.run(command("--record", "whole.h5"), { cwd = folder })
  local seconds = (uv.hrtime() - start) / 1e9
  assert.same({ 0, "" }, { result.code, result.err })
  local whole = summary "whole.h5"
  forget()
  local ended = ended_again_and_again(signal, times, math.ceil(seconds * 1100))
  print(("%s: a whole run takes %.2f s; %d times %s"):format(name, seconds, ended, signal))
  assert.equal(times, ended)
  assert.same(whole, summary "again.h5")
  assert.same({}, leftovers())
  forget()
end

describe("a run", function()
  setup(function()
    math.randomseed(seed)
    print("seed", seed)
    helper.write(folder .. "/telling.lua", telling)
  end)

  it("killed_at_random_moments_gives_the_bits_of_one_that_was_not", function()
    survives("workflows/digits.lua", "sigkill", KILLS)
  end)

  it("stopped_at_random_moments_gives_them_too", function()
    survives("workflows/digits.lua", "sigterm", STOPS)
  end)

  it("that_tells_from_callbacks_tells_everything_once", function()
    survives("telling.lua", "sigkill", math.min(40, KILLS))
    survives("telling.lua", "sigterm", STOPS)
  end)

  it("that_fails_after_short_trainings_tells_everything_once", function()
    helper.write(folder .. "/gap.lua", [[
local lf = require "lavaflow"
local P = lf.params { fail = true }
lf.step "train" {
  input = { data = "datasets/digits.h5" }, checkpoint = { steps = 60 },
  run = function(s)
    for i = 1, 2 do
      s:train { model = lf.mlp { 64, 8, 10 }, data = lf.dataset(s.input.data).train, batch = 64, epochs = 10,
                on_epoch = function(epoch) s:metric("ep", 100 * i + epoch) end }
    end
    if os.getenv "FAIL" then error "on purpose" end
  end,
}
]])
    script = "gap.lua"
    assert.equal(1, helper.run(command(), { cwd = folder, env = { FAIL = "1" } }).code)
    assert.equal(0, helper.run(command("--record", "gap.h5"), { cwd = folder }).code)
    local told = core.h5_read(folder .. "/gap.h5", "/entry/metrics/train/ep", 1000)
    assert.equal(20, #told.step)
    for i = 1, 20 do assert.same({ i, i <= 10 and 100 + i or 190 + i }, { told.step[i], told.value[i] }) end
    forget()
  end)
end)
