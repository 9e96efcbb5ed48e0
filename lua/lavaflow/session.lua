-- What a step's `run` is given: its paths and parameters, and lf.train and its like with the step's device, metrics and
-- progress bound in.
local distillation = require "lavaflow.distillation"
local evaluation = require "lavaflow.evaluation"
local options = require "lavaflow.options"
local prediction = require "lavaflow.prediction"
local runfile = require "lavaflow.runfile"
local training = require "lavaflow.training"

local session = {}

--- @class lavaflow.session
--- @field name string of the step
--- @field input table<string, string>
--- @field output table<string, string>
--- @field params table
local Session = {}
Session.__index = Session
session.methods = Session

-- With a checkpoint goes what the step had told by itself until then.
local function mark(self, name, at)
  self.bound.record:note { mark = name, at = at, counts = self.counts, evaluations = self.names.evaluation }
end

-- A training goes on from a checkpoint: so does what callbacks have told since its start.
local function go_on(self, name, at)
  local told = at > 0 and self.bound.marks and self.bound.marks[("%s %d"):format(name, at)]
  if not told then return end
  self.names.evaluation, self.counts = told.evaluations, told.counts
end

--- @param step lavaflow.step
--- @param bound lavaflow.context
--- @return lavaflow.session
function session.create(step, bound)
  local self = setmetatable({ name = step.name, input = step.input, output = step.output, params = step.params,
    names = { training = {}, evaluation = {} }, counts = {}, known = {} }, Session)
  self.bound = setmetatable({
    saving = function(name, at) mark(self, name, at) end,
    resumed = function(name, at) go_on(self, name, at) end,
  }, { __index = bound })
  return self
end

-- How many values of a metric earlier processes of the step have told, which tell the same again.
local function known_values(self, name)
  if not self.known[name] then
    local steps = self.bound.earlier and self.bound.earlier:get_series(self.name, name)
    self.known[name] = steps and #steps or 0
  end
  return self.known[name]
end

local function bind(self, name)
  return setmetatable({ input = self.input, name = name }, { __index = self.bound })
end

-- What a training or an evaluation is called in the run file: "train", then "train.2", …; with a name "train.teacher".
local function full_name(self, where, kind, given)
  local taken, name = self.names[kind], options.kind(given) == "table" and rawget(given, "name")
  if name then
    name = self.name .. "." .. options.value(where, "name", { "name" }, name)
    if taken[name] then
      options.fail("%s: name: expected one that this step has not used, got %q again", where, given.name)
    end
  else
    local count = 1
    repeat
      name = count == 1 and self.name or ("%s.%d"):format(self.name, count)
      count = count + 1
    until not taken[name]
  end
  taken[name] = true
  return name
end

--- lf.train for this step; `name` tells several trainings of a step apart.
--- @param given lavaflow.train_options
--- @return lavaflow.history
function Session:train(given)
  return training.train("s:train", given, bind(self, full_name(self, "s:train", "training", given)))
end

--- lf.distill for this step.
--- @param given lavaflow.distill_options
--- @return lavaflow.history
function Session:distill(given)
  return distillation.distill("s:distill", given, bind(self, full_name(self, "s:distill", "training", given)))
end

--- lf.evaluate for this step; the run file keeps all scores as evaluations/STEP, evaluations/STEP.2, … or, with a name,
--- evaluations/STEP.NAME.
--- @param given lavaflow.s_evaluate_options
--- @return lavaflow.scores
function Session:evaluate(given)
  return evaluation.evaluate("s:evaluate", given, bind(self, full_name(self, "s:evaluate", "evaluation", given)))
end

--- lf.predict for this step.
--- @param given lavaflow.predict_options
--- @return number[][]|integer[]|{ rows: integer, outputs: integer, path: string }
function Session:predict(given) return prediction.predict("s:predict", given, bind(self)) end

--- Records one value of the step's own metric, and prints it. Values of one name count from 1.
--- @param name string letters, digits, _ and -
--- @param value number
function Session:metric(name, value)
  options.value("s:metric", "name", { "name" }, name)
  if runfile.of_training[name] then
    options.fail("s:metric: name: %s is written by s:train; choose another name", name)
  end
  if type(value) ~= "number" then
    options.fail("s:metric: %s: expected a number, got %s", name, options.show(value))
  end
  local count = (self.counts[name] or 0) + 1
  self.counts[name] = count
  if count > known_values(self, name) then self.bound.record:metric(self.name, name, count, value) end
  self.bound.reporter:say(("%s  %s %.6g"):format(self.name, name, value))
end

return session
