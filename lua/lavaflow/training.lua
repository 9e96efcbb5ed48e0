-- Data sets, and what is done with a model and a part of one: train, evaluate, predict. lf.train and s:train are the
-- same function here; they differ in the context: what a step binds in.
local core = require "lavaflow.core"
local files = require "lavaflow.files"
local options = require "lavaflow.options"
local layers = require "lavaflow.layers"
local optimizers = require "lavaflow.optimizers"
local progress = require "lavaflow.progress"

local training = {}

--- @class lavaflow.context: what the caller of a training binds in; every field may be absent
--- @field device string? instead of "auto"
--- @field name string? of the training in metrics and progress
--- @field record lavaflow.record? what is done is recorded there
--- @field reporter lavaflow.reporter? tells how it goes

training.losses = { "cross_entropy", "mse" }
local BATCH_MAX = 1 << 24

local MODEL = { "model", required = true }
local DEVICE = { "text", expected = 'a device, such as "auto", "vulkan:0" or "cpu"' }
local DEVICES = { "table", expected = "an array of devices" }
local WINDOW = { "number", above = 0 }
local LOSS = { "choice", of = training.losses, default = "cross_entropy" }

local train_rules = {
  model = MODEL,
  data = { "part", required = true },
  validation = { "part" },
  loss = LOSS,
  optimizer = { "optimizer" },
  batch = { "whole", min = 1, max = BATCH_MAX, default = 64 },
  epochs = { "whole", min = 1, max = 0x7fffffff, default = 10 },
  max_steps = { "whole", min = 1 },
  seed = { "whole", default = 0 },
  shuffle = { "boolean", default = true },
  device = DEVICE, devices = DEVICES, window = WINDOW,
  on_epoch = { "function" },
  checkpoint = { "text", expected = "a path" },
  resume = { "text", expected = "a path" },
  digest_every = { "whole", min = 1 },
  name = { "name" },
  progress = { "boolean" },
  record = { "text", expected = "a path" },
}
local distill_rules = {
  student = MODEL, teacher = { "model" }, teachers = { "table", expected = "an array of models" },
  temperature = { "number", above = 0, default = 4.0 },
  alpha = { "number", min = 0, max = 1, default = 0.7 },
}
for name, rule in pairs(train_rules) do
  if name ~= "model" then distill_rules[name] = rule end
end
local evaluate_rules = {
  model = MODEL, data = train_rules.data, loss = LOSS,
  batch = { "whole", min = 1, max = BATCH_MAX, default = 256 },
  device = DEVICE, devices = DEVICES, window = WINDOW,
}
local predict_rules = {
  model = MODEL, data = { "part" }, x = { "table", expected = "an array of rows" }, batch = evaluate_rules.batch,
  device = DEVICE, devices = DEVICES, window = WINDOW,
}
local dataset_rules = {
  file = { "text", required = true, expected = "a path" },
  x = { "text", expected = "the path of an object" },
  y = { "text", expected = "the path of an object" },
  split = { "table", expected = "a table of fractions" },
  normalize = { "choice", of = { "standard", "minmax" } },
}
local FRACTION = { "number", min = 0 }
local split_rules = { train = FRACTION, valid = FRACTION, test = FRACTION, seed = { "whole", default = 0 } }

--- @class lavaflow.part: rows of a data set
--- @field name string "train", "valid", "test"
--- @field rows integer
--- @field features integer values of a row
--- @field target string "classes", "values" or "none"
--- @field outputs integer values of a row's target; 1 for classes
--- @field classes integer largest label + 1, or the number of names; 0 unless classes
--- @field path string "datasets/mnist.h5:/train/x"
--- @field read fun(self, first: integer, count: integer): number[][], (integer|number[])[] rows count from 0

--- @class lavaflow.dataset
--- @field train lavaflow.part?
--- @field valid lavaflow.part?
--- @field test lavaflow.part?
--- @field file string
--- @field close fun(self)

--- Opens a data set file: /train/x, /train/y, the same under /valid and /test, or the objects that `x` and `y` name.
--- Raises when the file, an object or a label is not as it should be.
--- @param given string|{ file: string, x: string?, y: string?, split: table?, normalize: string? }
---   split: fractions { train =, valid =, test =, seed = } of the rows of x; normalize: "standard" or "minmax"
--- @return lavaflow.dataset
function training.dataset(given)
  if type(given) == "string" then given = { file = given } end
  local spec = options.check("lf.dataset", dataset_rules, given)
  if spec.split then
    if not spec.x then options.fail "lf.dataset: split: expected x with it, the object whose rows are split" end
    local split = options.check("lf.dataset: split", split_rules, spec.split)
    spec.split_seed, split.seed = split.seed, nil
    spec.split = split
  end
  return options.call(core.dataset, spec)
end

local function choose_device(where, t, context)
  if t.devices then
    if t.device then options.fail("%s: devices: expected either device or devices, got both", where) end
    if #t.devices ~= 1 then
      options.fail("%s: devices: training on %d devices at once is not supported yet; give one", where, #t.devices)
    end
    t.device = options.value(where, "devices[1]", DEVICE, t.devices[1])
    t.devices = nil
  end
  t.device = t.device or context.device or "auto"
end

--- Passes on what the plugin had to say since the last call.
function training.drain_log(context)
  for _, line in ipairs(core.log_lines()) do
    if context.record then context.record:log(line.level, line.text) end
    local reporter = context.reporter or progress.silent
    reporter:log(line.level, line.text)
  end
end

-- Binds the context's record and reporter to the training's events.
local function bind_events(t, context)
  local told = t.on_epoch
  local reporter = context.reporter or progress.silent
  local line = reporter:training(t.name, t.device)
  function t.on_start(device)
    if context.record then context.record:device(device, t.device) end
    line:started(device)
  end
  function t.on_progress(info)
    training.drain_log(context)
    line:progress(info)
  end
  function t.on_epoch(epoch, logs)
    line:epoch(epoch, logs, t.epochs)
    if told then return told(epoch, logs) end
  end
  return line
end

local function run(t, context)
  t.name = context.name or t.name or "train"
  t.run = context.record and context.record.run
  local line <close> = bind_events(t, context)
  local history = options.call(core.train, t)
  if context.record then context.record:trained(t.name, history, t.teachers or {}) end
  training.drain_log(context)
  line:finished(history)
  return history
end

-- A training by itself that writes a run file.
local function run_recorded(t, context)
  local record = require("lavaflow.record").create()
  local path = t.record
  t.record = nil
  record:training(t)
  local ok, result = pcall(run, t, setmetatable({ record = record }, { __index = context }))
  local saved, failure = pcall(record.finish_training, record, path, ok, result)
  if not ok then error(result, 0) end
  if not saved then error(failure, 0) end
  return result
end

local function check_training(where, rules, given, context)
  local t = options.check(where, rules, given)
  choose_device(where, t, context)
  t.optimizer = t.optimizer or optimizers.adam()
  return t
end

-- Finds out before the training, not after it, whether its files can be written, and that they replace no data.
local function check_files(where, t)
  -- So that one script starts a training and goes on with it: at first there is nothing to resume.
  if t.resume and t.resume == t.checkpoint and not files.is_file(t.resume) then t.resume = nil end
  for _, name in ipairs { "checkpoint", "record" } do
    if t[name] then
      for _, part in ipairs { "data", "validation" } do
        local file = t[part] and files.split_object(t[part].path)
        if file and files.same(file, t[name]) then
          options.fail("%s: %s: %s would replace the file of %s", where, name, t[name], part)
        end
      end
      local ok, message = files.prepare_output(t[name], false)
      if not ok then options.fail("%s: %s: %s", where, name, message) end
    end
  end
end

local function start(where, t, context)
  if t.record and context.record then
    options.fail("%s: record: expected none, since the run file of the workflow holds this training", where)
  end
  check_files(where, t)
  if t.progress and not context.reporter then
    context = setmetatable({ reporter = progress.create {} }, { __index = context })
  end
  t.progress = nil
  return (t.record and run_recorded or run)(t, context)
end

--- Trains a model on a part of a data set; the model holds the new weights afterwards.
--- @param where string the function's name in messages
--- @param given table
--- @param context lavaflow.context
--- @return lavaflow.history
function training.train(where, given, context)
  return start(where, check_training(where, train_rules, given, context), context)
end

local function check_distillation(where, given, context)
  local t = check_training(where, distill_rules, given, context)
  if (t.teacher == nil) == (t.teachers == nil) then
    options.fail("%s: teacher: expected either teacher, a model, or teachers, an array of them; got %s", where,
      t.teacher and "both" or "neither")
  end
  t.teachers = t.teachers or { t.teacher }
  for i, teacher in ipairs(t.teachers) do options.value(where, ("teachers[%d]"):format(i), MODEL, teacher) end
  if #t.teachers == 0 then options.fail("%s: teachers: expected at least one model, got none", where) end
  t.model = t.student
  return t
end

--- Trains a student on the labels and on what teachers say of the same rows.
--- @param where string
--- @param given table
--- @param context lavaflow.context
--- @return lavaflow.history
function training.distill(where, given, context)
  return start(where, check_distillation(where, given, context), context)
end

--- The step programs of training.train, in words.
--- @return string
function training.explain_train(where, given, context)
  return options.call(core.explain, check_training(where, train_rules, given, context))
end

--- The step programs of training.distill, in words.
--- @return string
function training.explain_distill(where, given, context)
  return options.call(core.explain, check_distillation(where, given, context))
end

--- Loss and accuracy of a model on a part, whose weights stay.
--- @return { loss: number, accuracy: number?, rows: integer, seconds: number, device: string }
function training.evaluate(where, given, context)
  local t = options.check(where, evaluate_rules, given)
  choose_device(where, t, context)
  local scores = options.call(core.evaluate, t)
  training.drain_log(context)
  if context.record then context.record:device_by_id(scores.device, t.device) end
  return scores
end

--- The model's outputs (logits) for each row of a part or of an array of rows.
--- @return number[][] (rows, outputs)
function training.predict(where, given, context)
  local t = options.check(where, predict_rules, given)
  if (t.data == nil) == (t.x == nil) then
    options.fail("%s: expected either data, a part of a data set, or x, an array of rows; got %s", where,
      t.data and "both" or "neither")
  end
  choose_device(where, t, context)
  local outputs = options.call(core.predict, t)
  training.drain_log(context)
  return outputs
end

--- model:predict(rows or part, { batch =, device = }?)
function layers.methods.predict(model, rows, given)
  local t = { model = model }
  for name, value in pairs(options.check("model:predict", {
    batch = predict_rules.batch, device = DEVICE, devices = DEVICES, window = WINDOW,
  }, given)) do
    t[name] = value
  end
  t[options.kind(rows) == "table" and "x" or "data"] = rows
  return training.predict("model:predict", t, {})
end

return training
