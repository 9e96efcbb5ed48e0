-- What watches a training and what it leaves behind: early stopping, best models, checkpoints, replays, callbacks.
local lf = require "lavaflow"
local core = require "lavaflow.core"
local uv = require "luv"
local helper = require "helper"

if not helper.device_present then
  pending("skipped: this machine has no device " .. helper.device)
  return
end

local folder, data
before_each(function()
  folder = helper.folder()
  helper.fixtures(folder)
  data = lf.dataset(folder .. "/good.h5")
end)
after_each(function()
  data:close()
  helper.remove(folder)
end)

-- 6 steps an epoch.
local function train(given, unwatched)
  local t = { model = lf.mlp { 4, 8, 3 }, data = data.train, validation = not unwatched and data.test or nil,
    device = helper.device, epochs = 6, batch = 8, seed = 1, optimizer = lf.sgd { lr = 0.1 } }
  for name, value in pairs(given) do t[name] = value end
  return lf.train(t), t.model
end

-- Names of the files of the training, whose stem is "c".
local function checkpoints()
  local names = {}
  for _, name in ipairs(helper.list(folder)) do
    if name:find "^c[.-]" then names[#names + 1] = name end
  end
  return names
end

describe("patience", function()
  it("ends_a_training_that_becomes_no_better", function()
    local history = train { patience = 2, min_delta = 1e9 }
    assert.same({ "patience", 3, 1 }, { history.stopped, history.epochs, history.best_epoch })
    assert.equal(history.val_loss[1], history.best_value)
    assert.equal(3, #history.loss)
  end)

  it("goes_on_while_the_value_becomes_better", function()
    local history = train { patience = 1, monitor = "loss" }
    assert.is_nil(history.stopped)
    assert.equal(6, history.best_epoch)
    assert.equal(history.loss[6], history.best_value)
  end)

  it("watches_the_validation_where_there_is_one", function()
    local history = train { patience = 6 }
    local best = math.min(table.unpack(history.val_loss))
    assert.equal(best, history.best_value)
    assert.equal(best, history.val_loss[history.best_epoch])
    history = train({ patience = 6 }, "without validation")
    assert.equal(math.min(table.unpack(history.loss)), history.best_value)
  end)

  it("wants_accuracies_to_rise", function()
    for _, name in ipairs { "accuracy", "val_accuracy" } do
      local history = train { monitor = name, epochs = 10 }
      assert.equal(math.max(table.unpack(history[name])), history.best_value)
      assert.equal(history.best_value, history[name][history.best_epoch])
      for epoch = 1, history.best_epoch - 1 do assert.is_true(history[name][epoch] < history.best_value) end
    end
  end)

  it("says_nothing_where_nothing_is_watched", function()
    local history = train {}
    assert.same({}, { history.best_epoch, history.best_value, history.stopped })
  end)

  it("goes_on_counting_after_a_resume", function()
    local path = folder .. "/c.h5"
    train { epochs = 2, patience = 3, min_delta = 1e9, checkpoint = path }
    local history = train { patience = 3, min_delta = 1e9, resume = path }
    assert.same({ "patience", 4, 1 }, { history.stopped, history.epochs, history.best_epoch })
    assert.equal(train({ epochs = 1 }).digest, history.digest)
  end)

  it("leaves_the_validation_to_tell_when_resumed_after_its_end", function()
    local path = folder .. "/c.h5"
    train { patience = 2, min_delta = 1e9, checkpoint = path }
    local history = train { patience = 2, min_delta = 1e9, resume = path }
    assert.same({ "patience", 3, 1 }, { history.stopped, history.epochs, history.best_epoch })
    assert.is_truthy(history.final and history.final.val_loss, "no validation")
  end)
end)

describe("the best epoch", function()
  it("gives_the_model_its_weights_with_patience", function()
    local first = train { epochs = 1 }
    local history, model = train { patience = 2, min_delta = 1e9 }
    assert.equal(first.digest, model:digest())
    assert.equal(first.digest, history.digest)
  end)

  it("does_not_where_restore_best_is_false_and_does_without_patience", function()
    assert.equal(train({ epochs = 3 }).digest, train({ patience = 2, min_delta = 1e9, restore_best = false }).digest)
    local _, model = train { restore_best = true, min_delta = 1e9 }
    assert.equal(train({ epochs = 1 }).digest, model:digest())
    _, model = train { monitor = "val_loss", min_delta = 1e9 }
    assert.equal(train({}).digest, model:digest())
  end)

  it("is_the_average_s_with_one", function()
    local _, model = train { ema = 0.5, patience = 2, min_delta = 1e9 }
    local _, other = train { ema = 0.5, epochs = 1 }
    assert.equal(other:digest(), model:digest())
  end)

  it("is_written_as_a_model_file", function()
    local path, first = folder .. "/best.h5", train { epochs = 1 }
    local history, model = train { best = path, min_delta = 1e9 }
    assert.equal(first.digest, lf.load(path):digest())
    assert.equal(history.digest, model:digest())
    assert.not_equal(first.digest, history.digest)
    history = train { best = path, monitor = "loss" }
    assert.equal(history.digest, lf.load(path):digest())
  end)

  it("stands_in_the_run_file", function()
    local path = folder .. "/run.h5"
    local history = train { patience = 2, min_delta = 1e9, record = path }
    local metrics = core.h5_read(path, "/entry/metrics", 100).train
    assert.same({ "patience", 1, history.best_value, "val_loss" },
      { metrics["@stopped"], metrics["@best_epoch"], metrics["@best_value"], metrics["@monitor"] })
  end)
end)

describe("checkpoints", function()
  it("are_kept_under_names_with_their_step", function()
    local path = folder .. "/c.h5"
    train { checkpoint = path, keep = 2 }
    assert.same({ "c-30.h5", "c-36.h5", "c.h5" }, checkpoints())
    local whole, resumed = train {}, train { resume = folder .. "/c-30.h5" }
    assert.equal(whole.digest, resumed.digest)
  end)

  it("are_written_every_so_many_steps_too", function()
    train { checkpoint = folder .. "/c.h5", keep = 9, checkpoint_every = 4, epochs = 2 }
    assert.same({ "c-12.h5", "c-4.h5", "c-6.h5", "c-8.h5", "c.h5" }, checkpoints())
    for _, step in ipairs { 4, 8 } do
      assert.equal(train({}).digest, train({ resume = folder .. ("/c-%d.h5"):format(step) }).digest)
    end
  end)

  it("are_written_by_the_clock_too_and_change_no_bit", function()
    local path = folder .. "/c.h5"
    local history = train { checkpoint = path, keep = 99, checkpoint_seconds = 1e-9, ema = 0.5, batch = 1 }
    assert.equal(train({ ema = 0.5, batch = 1 }).digest, history.digest)
    assert.is_true(#checkpoints() > 7) -- 6 epochs of 48 steps, of which the first is cut in two by the first submission
    local wrong = { checkpoint_seconds = 1 }
    helper.refused("lf.train: checkpoint_seconds: expected checkpoint, a path, with it, got none", train, wrong)
    helper.refused("lf.train: checkpoint_seconds: expected a number above 0, got 0", train,
      { checkpoint = path, checkpoint_seconds = 0 })
  end)

  it("of_an_earlier_training_do_not_push_out_new_ones", function()
    local path = folder .. "/c.h5"
    train { checkpoint = path, keep = 2 }
    train { checkpoint = path, keep = 2, epochs = 2 }
    local names = table.concat(checkpoints(), " ")
    helper.has(names, "c-12.h5")
    helper.has(names, "c-6.h5")
  end)

  it("resume_with_an_average_and_accumulation_to_equal_bits", function()
    local path = folder .. "/c.h5"
    local given = { ema = 0.9, accumulate = 4, optimizer = lf.lamb { lr = 1e-2 } }
    local whole = train(given)
    given.checkpoint, given.max_steps = path, 13
    train(given)
    given.checkpoint, given.max_steps, given.resume = nil, nil, path
    assert.equal(whole.digest, train(given).digest)
  end)

  it("of_other_options_are_refused", function()
    local path = folder .. "/c.h5"
    train { checkpoint = path, epochs = 1 }
    for name, value in pairs { ema = 0.5, accumulate = 2, label_smoothing = 0.1, class_weights = { 1, 2, 1 },
      optimizer = lf.sgd { lr = 0.1, clip_norm = 1 } } do
      local ok, message = pcall(train, { resume = path, [name] = value })
      assert.is_false(ok, name)
      helper.has(message, "belongs to another training")
    end
  end)
end)

describe("a loss that is not finite", function()
  local wild = { optimizer = lf.sgd { lr = 1e30 } }

  local function fail(given)
    local t = { optimizer = wild.optimizer }
    for name, value in pairs(given) do t[name] = value end
    return helper.message(train, t)
  end

  it("leaves_the_step_before_it_and_the_rows_of_its_batch", function()
    local path = folder .. "/replay.h5"
    helper.has(fail { replay = path }, path)
    local state = core.h5_read(path, "/train_state", 100)
    assert.equal(8, #state.rows)
    local model = lf.load(path)
    for _, value in ipairs(model:weights "linear_1/kernel") do assert.equal(0, value - value) end
    local message = fail { resume = path }
    helper.has(message, "step " .. (state["@step"] + 1))
  end)

  it("goes_beside_the_checkpoint_by_default_and_nowhere_without_one", function()
    local before = #helper.list(folder)
    fail {}
    assert.equal(before, #helper.list(folder))
    fail { checkpoint = folder .. "/c.h5" }
    assert.is_true(helper.exists(folder .. "/c.nan.h5"))
  end)
end)

describe("on_step", function()
  it("sees_every_step", function()
    local path, seen = folder .. "/run.h5", { loss = {}, step = {}, epoch = {}, lr = {} }
    train { epochs = 2, record = path, on_step = function(step, logs)
      seen.step[#seen.step + 1] = step
      for _, name in ipairs { "loss", "epoch", "lr" } do seen[name][step] = logs[name] end
    end }
    local series = core.h5_read(path, "/entry/metrics", 100).train.step_loss
    assert.same({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 }, seen.step)
    for step = 1, 12 do
      assert.equal(series.value[step], seen.loss[step])
      assert.same({ step <= 6 and 1 or 2, 0.1 }, { seen.epoch[step], tonumber(("%.6g"):format(seen.lr[step])) })
    end
  end)

  it("sees_every_so_many_steps_across_epochs", function()
    local seen = {}
    train { epochs = 2, on_step_every = 5, on_step = function(step) seen[#seen + 1] = step end }
    assert.same({ 5, 10 }, seen)
  end)

  it("changes_no_bit", function()
    assert.equal(train({}).digest, train({ on_step = function() end }).digest)
    assert.equal(train({ accumulate = 4 }).digest, train({ accumulate = 4, on_step = function() end }).digest)
  end)

  it("stops_with_false_and_goes_on_with_nil", function()
    local history = train { on_step = function(step) if step == 8 then return false end end }
    assert.same({ "on_step", 8 }, { history.stopped, history.steps })
    assert.equal(train({ max_steps = 8 }).digest, history.digest)
  end)

  it("fails_the_training_with_its_error", function()
    local message = helper.message(train, { on_step = function(step) if step == 3 then error "mine" end end })
    helper.has(message, "mine")
  end)
end)

-- Runs a script that says "ready", which is sent a signal then, in a process of its own. Gives what it printed last.
local function signalled(signal, body, command)
  local path, sent = folder .. "/script.lua", false
  helper.write(path, ([[
local lf, core, uv = require "lavaflow", require "lavaflow.core", require "luv"
local data, device = lf.dataset "good.h5", %q
local function ready() print "ready" io.stdout:flush() end
local function train(given)
  local t = { model = lf.mlp { 4, 8, 3 }, data = data.train, epochs = 100000000, batch = 8, device = device }
  for name, value in pairs(given) do t[name] = value end
  return lf.train(t)
end
local ok, message = pcall(function()
  %s
end)
local name, checkpointed = core.interrupted()
for i = 1, 1000000 do name = name end -- it is told: no more errors
print(ok, message, name, checkpointed)
]]):format(helper.device, body))
  local result = helper.run(command or { helper.lua, path }, {
    cwd = folder,
    on_output = function(text, process)
      if not sent and signal and text:find "ready" then process:kill(signal) end
      sent = sent or text:find "ready" ~= nil
    end,
  })
  assert.equal("", result.err)
  return result.out:match "([^\n]*)\n$"
end

describe("a signal in a worker", function()
  local names = { sigint = "SIGINT", sigterm = "SIGTERM", sigusr1 = "SIGUSR1" }

  for signal, name in pairs(names) do
    it(signal .. "_stops_lua", function()
      local said = signalled(signal, "core.catch_signals() ready() while true do end")
      assert.is_truthy(said:find(("^false\t[^\t]*interrupted by %s\t%s\tfalse$"):format(name, name)), said)
    end)

    it(signal .. "_stops_a_training_with_its_checkpoint", function()
      local said = signalled(signal, [[core.catch_signals()
        train { checkpoint = "c.h5", on_epoch = function(epoch) if epoch == 3 then ready() end end }]])
      helper.has(said, "c.h5 is written, to go on from: interrupted at step ")
      assert.equal(name .. "\ttrue", said:match "[^\t]+\t[^\t]+$")
      assert.is_true(helper.exists(folder .. "/c.h5"))
    end)
  end

  it("that_the_script_catches_comes_again", function()
    local said = signalled("sigterm", [[core.catch_signals()
      pcall(function() ready() while true do end end)
      pcall(function() while true do end end)
      while true do end]])
    helper.has(said, "interrupted by SIGTERM\tSIGTERM\tfalse")
  end)

  it("that_came_before_a_training_stops_it_at_its_first_boundary", function()
    local said = signalled(nil, [[core.catch_signals()
      local model = lf.mlp { 4, 8, 3 }
      pcall(os.execute, "kill -TERM $PPID")
      train { model = model, checkpoint = "c.h5" }]])
    helper.has(said, "c.h5 is written, to go on from: interrupted at step 6 of")
    helper.has(said, "\tSIGTERM\ttrue")
  end)

  it("that_comes_in_a_callback_stops_the_training_behind_it", function()
    local said = signalled(nil, [[core.catch_signals()
      train { checkpoint = "c.h5", on_epoch = function(epoch)
        if epoch == 2 then os.execute "kill -USR1 $PPID" for _ = 1, 1000000 do epoch = epoch + 0 end end
      end }]])
    helper.has(said, "interrupted at step 12 of")
    helper.has(said, "\tSIGUSR1\ttrue")
  end)

  it("in_the_last_submission_of_work_is_heard_behind_it", function()
    local said = signalled(nil, [[core.catch_signals()
      train { checkpoint = "c.h5", epochs = 2, on_epoch = function(epoch)
        if epoch == 2 then os.execute "kill -TERM $PPID" end
      end }
      while true do end]])
    helper.has(said, "interrupted by SIGTERM\tSIGTERM\ttrue")
  end)

  it("is_the_end_of_its_parent_too", function()
    local said = signalled(nil, "core.catch_signals(uv.os_getpid())") -- another one is its parent
    helper.has(said, "interrupted by SIGTERM\tSIGTERM\tfalse")
    said = signalled("sigkill", "core.catch_signals(uv.os_getppid()) ready() while true do end",
      { "/bin/sh", "-c", helper.lua .. " script.lua; true" })
    helper.has(said, "interrupted by SIGTERM\tSIGTERM\tfalse")
  end)
end)

it("SIGUSR1_stops_a_training_in_any_process", function()
  local said = signalled("sigusr1",
    [[train { checkpoint = "c.h5", on_epoch = function(epoch) if epoch == 3 then ready() end end }]])
  helper.has(said, "c.h5 is written, to go on from: interrupted at step ")
  helper.has(said, "\tSIGUSR1\ttrue")
end)

describe("a killed training", function()
  local series = { "step_loss", "loss", "accuracy", "val_loss", "val_accuracy", "lr" }
  local cpu = helper.device == "cpu"
  local epochs = cpu and 2000 or 40

  -- Runs it as a step's process does, with a journal and checkpoints in `place`; killed so many milliseconds after its
  -- first submission, if it still runs then. Gives whether it was, where it began and the digest of its weights.
  local function work(place, milliseconds)
    local script = helper.write(folder .. "/work.lua", ([[
local core, lf = require "lavaflow.core", require "lavaflow"
local data = lf.dataset "good.h5"
local journal = core.journal("%s/journal", "00000000-0000-4000-8000-000000000000", 0)
local bound = { name = "train", checkpoints = { folder = %q, seconds = 0.01 },
  record = setmetatable({ run = journal }, { __index = function() return function() end end }) }
local t = { model = lf.mlp { 4, 8, 3 }, data = data.train, validation = data.test, epochs = %d, batch = 1, ema = 0.9,
  seed = 1, digest_every = 20, device = %q, on_epoch = function() end }
local begin = core.train
core.train = function(options)
  local told = options.on_start
  options.on_start = function(info, step)
    options.first = "from " .. step .. "\n"
    told(info, step)
  end
  options.on_progress = function()
    if options.first then io.stdout:write(options.first):flush() end
    options.first = nil
  end
  return begin(options)
end
print("digest " .. require("lavaflow.training").train("train", t, bound).digest)
]]):format(place, place, epochs, helper.device))
    local timer
    local result = helper.run({ helper.lua, script }, {
      cwd = folder,
      on_output = function(_, process)
        if timer or not milliseconds then return end
        timer = uv.new_timer()
        timer:start(milliseconds, 0, function()
          timer:close()
          if process:is_active() then process:kill "sigkill" end
        end)
      end,
    })
    assert.equal("", result.err)
    return result.signal == 9, tonumber(result.out:match "from (%d+)"), result.out:match "digest (%x+)"
  end

  local function replayed(place)
    local run, path = core.run(), folder .. "/" .. place .. ".h5"
    run:replay(folder .. "/" .. place .. "/journal", 0, 0.0, "train")
    run:save(path, "completed", 0)
    local metrics = {}
    for _, name in ipairs(series) do
      local steps, values = run:get_series("train", name)
      metrics[name] = { step = steps, value = values }
    end
    run:close()
    return metrics, core.h5_read(path, "/entry/digests/train", 1000000)
  end

  it("goes_on_from_any_moment_without_a_gap_or_a_duplicate", function()
    local function begin(place)
      helper.remove(folder .. "/" .. place)
      uv.fs_mkdir(folder .. "/" .. place, 448)
    end
    begin "whole"
    begin "killed"
    local _, _, expected = work "whole"
    local kills, places, different, digest, last, span = 0, {}, 0, nil, nil, cpu and 31 or 101
    for attempt = 1, 200 do
      local enough = kills >= 5 and different >= 4
      local killed, from, done = work("killed", not enough and attempt * 37 % span or nil)
      kills = kills + (killed and 1 or 0)
      if from and not places[from] then places[from], different = true, different + 1 end
      if killed and from == last then span = span + 10 end -- the machine is too slow for a checkpoint in this time
      digest, last = done, from
      if done and enough then break end
      if done then -- before it was killed often enough: once more
        begin "killed"
        last = nil
      end
    end
    assert.is_true(kills >= 5, ("%d kills"):format(kills))
    assert.is_true(different >= 4, ("went on from %d places"):format(different))
    assert.equal(expected, digest)
    local whole, digests = replayed "whole"
    local metrics, others = replayed "killed"
    for step, at in ipairs(metrics.step_loss.step) do assert.equal(step, at) end
    assert.equal(48 * epochs, #metrics.step_loss.step)
    assert.equal(epochs, #metrics.val_loss.step)
    assert.same(whole, metrics)
    assert.same(digests, others)
    assert.is_true(#digests.step > 2 * epochs)
  end)
end)
