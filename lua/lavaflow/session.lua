-- What a step's `run` is given: its paths and parameters, and lf.train and its like with the step's device, metrics and
-- progress bound in.
local options = require "lavaflow.options"
local training = require "lavaflow.training"

local session = {}

--- @class lavaflow.session
--- @field name string of the step
--- @field input table<string, string>
--- @field output table<string, string>
--- @field params table
local Session = {}
Session.__index = Session

--- @param step lavaflow.step
--- @param bound { device: string?, record: lavaflow.record, reporter: lavaflow.reporter }
--- @return lavaflow.session
function session.create(step, bound)
  return setmetatable({ name = step.name, input = step.input, output = step.output, params = step.params,
    bound = bound, unnamed = 0, counts = {} }, Session)
end

local function context(self, name)
  local bound = self.bound
  return { device = bound.device, record = bound.record, reporter = bound.reporter, name = name }
end

-- A training's name in the metrics: "train", "train.2", …; with a name "train.teacher".
local function training_name(self, name)
  if name then return self.name .. "." .. name end
  self.unnamed = self.unnamed + 1
  return self.unnamed == 1 and self.name or ("%s.%d"):format(self.name, self.unnamed)
end

local function train_as(self, where, train, given)
  local name = type(given) == "table" and given.name
  if name then options.value(where, "name", { "name" }, name) end
  return train(where, given, context(self, training_name(self, name)))
end

--- lf.train for this step; `name` tells several trainings of a step apart.
--- @return lavaflow.history
function Session:train(given) return train_as(self, "s:train", training.train, given) end

--- lf.distill for this step.
--- @return lavaflow.history
function Session:distill(given) return train_as(self, "s:distill", training.distill, given) end

--- lf.evaluate for this step.
function Session:evaluate(given)
  return training.evaluate("s:evaluate", given, context(self))
end

--- lf.predict for this step.
function Session:predict(given)
  return training.predict("s:predict", given, context(self))
end

local of_training = { step_loss = true, loss = true, accuracy = true, val_loss = true, val_accuracy = true, lr = true }

--- Records one value of the step's own metric, and prints it. Values of one name count from 1.
--- @param name string letters, digits, _ and -
--- @param value number
function Session:metric(name, value)
  options.value("s:metric", "name", { "name" }, name)
  if of_training[name] then options.fail("s:metric: name: %s is written by s:train; choose another name", name) end
  if type(value) ~= "number" then
    options.fail("s:metric: %s: expected a number, got %s", name, options.show(value))
  end
  self.counts[name] = (self.counts[name] or 0) + 1
  self.bound.record:metric(self.name, name, self.counts[name], value)
  self.bound.reporter:say(("%s  %s %.6g"):format(self.name, name, value))
end

return session
