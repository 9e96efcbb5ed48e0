-- lf.predict, s:predict and model:predict.
local core = require "lavaflow.core"
local context = require "lavaflow.context"
local evaluation = require "lavaflow.evaluation"
local layers = require "lavaflow.layers"
local options = require "lavaflow.options"
local rules = require "lavaflow.rules"

local prediction = {}

local predict_rules = options.declare("lf.predict", options.merge(rules.device, {
  model = rules.MODEL, data = { "part" }, x = { "table", expected = "an array of rows" }, batch = evaluation.BATCH,
  as = { "choice", of = { "logits", "probabilities", "sigmoid", "classes", "values" }, default = "logits" },
  output = rules.PATH,
}))
local method_rules = options.declare("model:predict", options.without(predict_rules, "model", "data", "x"))

--- @class lavaflow.model_predict_options: lavaflow.device_options
--- @field batch? integer rows of a step, 256
--- The outputs as they are ("logits", the default, and "values"), their softmax ("probabilities"), 1 / (1 + exp(-z)) of
--- each ("sigmoid"), or the number of the largest ("classes").
--- @field as? "logits"|"probabilities"|"sigmoid"|"classes"|"values"
--- @field output? string HDF5 file for /prediction, instead of a table

--- @class lavaflow.predict_options: lavaflow.model_predict_options
--- @field model lavaflow.model
--- @field data? lavaflow.part either this or
--- @field x? number[][] rows

-- A choice among the outputs needs some to choose from.
local function check_as(where, t)
  local outputs = rules.outputs(t.model)
  if (t.as == "probabilities" or t.as == "classes") and outputs < 2 then
    options.fail('%s: as: expected a model of at least 2 outputs with %q, got %d; as = "sigmoid" gives the probability '
      .. "of a single one", where, t.as, outputs)
  end
end

--- The model's outputs for each row of a part or of an array of rows.
--- @param where string the function's name in messages
--- @param given lavaflow.predict_options
--- @param bound lavaflow.context
--- @return number[][]|integer[]|{ rows: integer, outputs: integer, path: string }
---   (rows, outputs); (rows) with "classes"; with `output` what the file holds
function prediction.predict(where, given, bound)
  local t = options.check(where, predict_rules, given)
  if (t.data == nil) == (t.x == nil) then
    options.fail("%s: expected either data, a part of a data set, or x, an array of rows; got %s", where,
      t.data and "both" or "neither")
  end
  check_as(where, t)
  context.choose_device(where, t, bound)
  context.check_outputs(where, t, bound, { { "output", t.output } })
  local outputs = options.call(core.predict, t)
  context.drain_log(bound)
  return outputs
end

--- model:predict(rows or part, options?)
function layers.methods.predict(model, rows, given)
  local t = options.merge(options.check("model:predict", method_rules, given), { model = model })
  t[options.kind(rows) == "table" and "x" or "data"] = rows
  return prediction.predict("model:predict", t, {})
end

return prediction
