-- lf.train and s:train: what they take, and what happens around the plugin's loop. distillation.lua adds teachers.
local core = require "lavaflow.core"
local context = require "lavaflow.context"
local files = require "lavaflow.files"
local options = require "lavaflow.options"
local optimizers = require "lavaflow.optimizers"
local progress = require "lavaflow.progress"
local ranks = require "lavaflow.ranks"
local results = require "lavaflow.results"
local rules = require "lavaflow.rules"
local runfile = require "lavaflow.runfile"

local training = {}

local COUNT = { "whole", min = 1 }
local PATH = rules.PATH
local SHARDS_MAX = 256

--- @type table<string, table>
training.rules = options.declare("lf.train", options.merge(rules.loss, rules.device, {
  model = rules.MODEL,
  data = { "part", required = true },
  validation = { "part" },
  optimizer = { "optimizer" },
  batch = { "whole", min = 1, max = rules.BATCH_MAX, default = 64 },
  accumulate = { "whole", min = 1, max = rules.BATCH_MAX, default = 1 },
  epochs = { "whole", min = 1, max = 0x7fffffff, default = 10 },
  max_steps = COUNT,
  seed = { "whole", default = 0 },
  shuffle = { "boolean", default = true },
  ema = { "number", above = 0, below = 1 },
  patience = COUNT,
  monitor = { "choice", of = { "loss", "accuracy", "val_loss", "val_accuracy" } },
  min_delta = { "number", min = 0 },
  restore_best = { "boolean" },
  best = PATH,
  checkpoint = PATH,
  checkpoint_every = COUNT,
  checkpoint_seconds = { "number", above = 0 },
  keep = COUNT,
  resume = PATH,
  replay = PATH,
  on_epoch = { "function" },
  on_step = { "function" },
  on_step_every = COUNT,
  digest_every = COUNT,
  shards = { "whole", min = 1, max = SHARDS_MAX },
  precision = { "choice", of = { "f32", "tf32" }, default = "f32" },
  balance = { "choice", of = { "speed", "even" }, default = "speed" },
  reduce = { "choice", of = { "exact", "fast" }, default = "exact" },
  name = { "name" },
  progress = { "boolean", default = false },
  record = PATH,
}))

--- @class lavaflow.loss_options
--- @field loss? "cross_entropy"|"binary_cross_entropy"|"mse"|"mae"|"huber" "cross_entropy"
--- @field label_smoothing? number cross_entropy: part of the target that is spread over all classes, 0
--- @field delta? number huber: where the parabola ends, 1
--- @field class_weights? number[] cross_entropy: weight of the rows of each class

--- @class lavaflow.device_options
--- @field device? string "auto", "cpu", "vulkan:0", "vulkan:NAME-PART", a UUID; the step's or "auto"
--- @field devices? string[]|"all" several that train together; one may stand several times; "all": those of the step,
---   or every GPU. What is no training uses the first
--- @field window? number MiB of rows that lie on the device at a time; larger data is streamed

--- @class lavaflow.training_options: lavaflow.loss_options, lavaflow.device_options
--- @field data lavaflow.part
--- @field validation? lavaflow.part evaluated after every epoch
--- @field optimizer? lavaflow.optimizer lf.adam {}
--- @field batch? integer rows of a step, 64
--- @field accumulate? integer batches whose gradients share one update, 1
--- @field epochs? integer 10
--- @field max_steps? integer ends the training sooner
--- @field seed? integer of weights, order and dropout, 0
--- @field shuffle? boolean another order of the rows in each epoch, true
--- @field ema? number decay of the moving average of the weights, which validation uses and the model holds afterwards
--- @field patience? integer epochs without a better value before the training ends
--- @field monitor? "loss"|"accuracy"|"val_loss"|"val_accuracy" which value; "val_loss" with validation, else "loss"
--- @field min_delta? number better means by more than this, 0
--- @field restore_best? boolean the model ends with the weights of the best epoch; true with patience
--- @field best? string model file, written at each better epoch
--- @field checkpoint? string file written after every epoch and when stopped
--- @field checkpoint_every? integer steps; written then too
--- @field checkpoint_seconds? number written too when so much time has passed since the last one
--- @field keep? integer so many of the last checkpoints stay beside it as STEM-STEP.h5
--- @field resume? string checkpoint to go on from; the path of `checkpoint` may not exist yet
--- @field replay? string checkpoint of the step before a loss that is not finite, with the rows of its batch
--- @field on_epoch? fun(epoch: integer, logs: lavaflow.epoch_logs): boolean? false stops
--- @field on_step? fun(step: integer, logs: { loss: number, lr: number, epoch: integer }): boolean? false stops
--- @field on_step_every? integer every so many steps, 1
--- @field digest_every? integer steps between digests of the weights in the run file
--- @field shards? integer parts of a batch, a power of two, on which the result depends; it does not on the devices
---   that they are divided among. The least that is not below the number of devices; 1 for one
--- @field precision? "f32"|"tf32" "tf32" lets large products round what they multiply to 11 bits, "f32"
--- @field balance? "speed"|"even" how the shards are divided among devices, "speed"
--- @field reduce? "exact"|"fast" "fast" adds up what devices exchange in whatever order is fastest, so that the result
---   depends on the devices, "exact"
--- @field name? string in metrics and progress, "train"
--- @field progress? boolean prints how it goes; false outside a workflow
--- @field record? string run file of this training; outside a workflow

--- @class lavaflow.train_options: lavaflow.training_options
--- @field model lavaflow.model

--- @class lavaflow.epoch_logs
--- @field loss number
--- @field accuracy? number
--- @field val_loss? number
--- @field val_accuracy? number
--- @field lr number
--- @field step integer

-- What the training watches, when something depends on it.
local function check_monitor(where, t)
  local watches = t.monitor or t.patience or t.restore_best or t.best
  options.only_with(where, t, "min_delta", watches, "patience, restore_best, best or monitor", "none of them")
  if not watches then return end
  t.monitor = t.monitor or (t.validation and "val_loss" or "loss")
  if t.monitor:find "^val_" and not t.validation then
    options.fail("%s: monitor: expected validation with %q, got none", where, t.monitor)
  end
  if t.monitor:find "accuracy$" and not rules.has_accuracy(t.loss) then
    options.fail('%s: monitor: expected loss "cross_entropy" or "binary_cross_entropy" with %q, got %q', where,
      t.monitor, t.loss)
  end
  t.min_delta = t.min_delta or 0.0
  if t.restore_best == nil then t.restore_best = t.patience ~= nil end
end

local function check_shards(where, t)
  local shards = t.shards
  if not shards then return end
  if shards & (shards - 1) ~= 0 then options.fail("%s: shards: expected a power of two, got %d", where, shards) end
  if shards > t.batch then
    options.fail("%s: shards: expected at most %d, the rows of a batch, got %d", where, t.batch, shards)
  end
end

-- Where the number of shards was another run's choice, as many devices work as have a shard.
local function repeat_shards(t, bound)
  local shards = not t.shards and bound.shards and bound.shards[t.name]
  if not shards then return end
  t.shards, t.devices = shards, table.move(t.devices, 1, math.min(#t.devices, shards), 1, {})
end

-- "c.h5" as "c" .. ending.
local function beside(path, ending)
  return path:gsub("%.h5$", "") .. ending
end

local function choose_replay(t, bound)
  if t.replay then return t.replay end
  if t.checkpoint then return beside(t.checkpoint, ".nan.h5") end
  return bound.run_file and beside(bound.run_file, (".%s.nan.h5"):format(t.name))
end

--- Checks the options that every training has. `rules_of` are the function's, `model` names the one that is trained.
--- @param where string the function's name in messages
--- @param rules_of table<string, table>
--- @param given table
--- @param bound lavaflow.context
--- @param model string
--- @return table
function training.check(where, rules_of, given, bound, model)
  local t = options.check(where, rules_of, given)
  context.choose_devices(where, t, bound)
  rules.check_loss(where, t, t[model])
  check_monitor(where, t)
  check_shards(where, t)
  for _, name in ipairs { "checkpoint_every", "checkpoint_seconds", "keep" } do
    options.only_with(where, t, name, t.checkpoint, "checkpoint, a path,", "none")
  end
  options.only_with(where, t, "on_step_every", t.on_step, "on_step, a function,", "none")
  t.on_step_every = t.on_step and (t.on_step_every or 1)
  t.model = t[model]
  t.optimizer = t.optimizer or optimizers.adam()
  t.name = bound.name or t.name or "train"
  repeat_shards(t, bound)
  t.replay = choose_replay(t, bound)
  return t
end

-- Binds the context's record and reporter to the training's events.
local function bind_events(t, bound)
  local told = t.on_epoch
  local reporter = bound.reporter or progress.silent
  local line = reporter:training(t.name, table.concat(t.devices, ","))
  function t.on_start(devices, step)
    t.resumed_at = step
    if bound.resumed then bound.resumed(t.name, step) end
    if bound.record then bound.record:devices_used(devices, t.devices) end
    line:started(devices, step)
  end
  function t.on_lost(device, step, why)
    local text = ("%s: device %s is lost at step %d: %s; the others go on"):format(t.name, results.device_name(device),
      step, why)
    if bound.record then bound.record:log("warn", text) end
    reporter:log("warn", text)
  end
  function t.on_saving(step)
    if bound.saving then bound.saving(t.name, step) end
  end
  function t.on_progress(info)
    context.drain_log(bound)
    line:progress(info)
  end
  function t.on_epoch(epoch, logs)
    line:epoch(epoch, logs, t.epochs)
    -- A training of a step that goes on at its end only tells its validation: the script has heard of this epoch.
    local heard = bound.checkpoints and t.resumed_at > 0 and logs.step == t.resumed_at
    if told and not heard then return told(epoch, logs) end
  end
  return line
end

-- Puts the epochs that earlier processes of the step have done before those of this one, so that a script sees one
-- history whether the training was interrupted or not.
local function restore_history(history, t, bound)
  if not bound.earlier or t.resumed_at == 0 then return end
  for _, name in ipairs(runfile.epoch_series) do
    local steps, values = bound.earlier:get_series(t.name, name)
    local all = {}
    for i, step in ipairs(steps or {}) do
      if step <= t.resumed_at then all[#all + 1] = values[i] end
    end
    if #all > 0 then
      local own = history[name] or {}
      -- A training that was at its end has only told its validation again.
      if history.steps > t.resumed_at then table.move(own, 1, #own, #all + 1, all) end
      history[name], history.final[name] = all, all[#all]
    end
  end
end

local function run(t, bound)
  t.run = bound.record and bound.record.run
  local line <close> = bind_events(t, bound)
  local history = options.call(core.train, t)
  restore_history(history, t, bound)
  -- Its checkpoint does not say that the script has ended it: another process of the step starts it over.
  if t.checkpoint_rarely and (history.stopped == "on_epoch" or history.stopped == "on_step") then
    files.remove(t.checkpoint)
  end
  if bound.record then bound.record:trained(t, history) end
  context.drain_log(bound)
  line:finished(history, t)
  return history
end

-- A training by itself that writes a run file.
local function run_recorded(t, bound)
  local record = require("lavaflow.record").create()
  local path = t.record
  t.record = nil
  record:training(t)
  local ok, result = pcall(run, t, setmetatable({ record = record }, { __index = bound }))
  local saved, failure = pcall(record.finish_training, record, path, ok, result)
  if not ok then error(result, 0) end
  if not saved then error(failure, 0) end
  return result
end

-- In a step a training without a checkpoint of its own gets one, so that it can go on after any end of its process.
local function bind_checkpoint(t, bound)
  local own = bound.checkpoints
  if not own or t.checkpoint then return end
  t.checkpoint = ("%s/%s.checkpoint.h5"):format(own.folder, t.name)
  if ranks.is_file(t.checkpoint) or not t.resume then t.resume = t.checkpoint end
  t.checkpoint_rarely, t.checkpoint_seconds, t.checkpoint_every, t.keep = true, own.seconds, own.steps, own.keep
end

-- Runs one stretch of a training, which is all that the process is there for.
local function run_segment(t, bound)
  local segment = bound.segment
  t.resume, t.max_steps, t.checkpoint = segment.resume, segment.stop, segment.checkpoint
  run(t, bound)
  error(context.segment_done, 0)
end

--- Runs a checked training.
--- @param where string
--- @param t table
--- @param bound lavaflow.context
--- @return lavaflow.history
function training.start(where, t, bound)
  if t.record and bound.record then
    options.fail("%s: record: expected none, since the run file of the workflow holds this training; got %s", where,
      options.show(t.record))
  end
  -- So that one script starts a training and goes on with it: at first there is nothing to resume.
  if bound.scratch then
    if t.resume == t.checkpoint then t.resume = nil end
    for _, name in ipairs { "checkpoint", "checkpoint_every", "checkpoint_seconds", "keep", "best", "replay",
      "cache_file" } do
      t[name] = nil
    end
  end
  if bound.segment and bound.segment.training == t.name then return run_segment(t, bound) end
  bind_checkpoint(t, bound)
  if t.resume and t.resume == t.checkpoint and not ranks.is_file(t.resume) then t.resume = nil end
  context.check_outputs(where, t, bound, {
    { "checkpoint", t.checkpoint }, { "best", t.best }, { "replay", t.replay }, { "record", t.record },
    { "cache", t.cache_file },
  })
  if t.progress and not bound.reporter then
    bound = setmetatable({ reporter = progress.create {} }, { __index = bound })
  end
  t.progress = nil
  return (t.record and run_recorded or run)(t, bound)
end

--- Trains a model on a part of a data set; the model holds the new weights afterwards.
--- @param where string the function's name in messages
--- @param given lavaflow.train_options
--- @param bound lavaflow.context
--- @return lavaflow.history
function training.train(where, given, bound)
  return training.start(where, training.check(where, training.rules, given, bound, "model"), bound)
end

--- The step programs of training.train, in words.
--- @return string
function training.explain(where, given, bound)
  return options.call(core.explain, training.check(where, training.rules, given, bound, "model"))
end

return training
