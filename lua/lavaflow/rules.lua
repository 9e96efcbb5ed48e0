-- Rules of options that several functions take, and what options of one kind say about one another.
local options = require "lavaflow.options"

local rules = {}

rules.AUTO = "auto"
rules.ALL = "all"
rules.MODEL = { "model", required = true }
rules.PATH = { "text", expected = "a path" }
rules.BATCH_MAX = 1 << 24

--- Where to compute, and how much of the data is there at a time.
rules.device = {
  device = { "text", expected = 'a device, such as "auto", "vulkan:0" or "cpu"' },
  devices = { "either", expected = 'an array of devices, such as { "vulkan:0", "cpu" }, or "all"', of = {
    { "choice", of = { rules.ALL } },
    { "array", of = { "text", expected = "a device" }, least = 1, expected = "an array of devices" },
  } },
  window = { "number", min = 2^-10 },
}

local DELTA = 1.0
--- What is minimised in training and measured elsewhere.
rules.loss = {
  loss = { "choice", default = "cross_entropy",
    of = { "cross_entropy", "binary_cross_entropy", "mse", "mae", "huber" } },
  label_smoothing = { "number", min = 0, below = 1 },
  delta = { "number", above = 0 },
  class_weights = { "array", of = { "number", min = 0 }, least = 1, expected = "an array of numbers, one a class" },
}

--- Numbers that the model gives for each row.
--- @param model lavaflow.model
--- @return integer
function rules.outputs(model)
  local layers = options.call(model.layers, model)
  return layers[#layers].outputs
end

--- Whether the loss counts hits.
function rules.has_accuracy(loss)
  return loss == "cross_entropy" or loss == "binary_cross_entropy"
end

local function check_class_weights(where, weights, outputs)
  if #weights ~= outputs then
    options.fail("%s: class_weights: expected %d numbers, one for each output of the model, got %d", where, outputs,
      #weights)
  end
  for _, weight in ipairs(weights) do
    if weight > 0 then return end
  end
  options.fail("%s: class_weights: expected a number above 0 among them, got %d zeros", where, #weights)
end

--- Checks the options of the loss against it and the model, and fills `delta`.
--- @param where string
--- @param t table the checked options
--- @param model lavaflow.model
function rules.check_loss(where, t, model)
  local classes, got = t.loss == "cross_entropy", options.show(t.loss)
  options.only_with(where, t, "label_smoothing", classes, 'loss "cross_entropy"', got)
  options.only_with(where, t, "class_weights", classes, 'loss "cross_entropy"', got)
  options.only_with(where, t, "delta", t.loss == "huber", 'loss "huber"', got)
  if t.loss == "huber" then t.delta = t.delta or DELTA end
  if t.class_weights then check_class_weights(where, t.class_weights, rules.outputs(model)) end
end

return rules
