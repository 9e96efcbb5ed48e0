-- lf.evaluate and s:evaluate.
local core = require "lavaflow.core"
local context = require "lavaflow.context"
local options = require "lavaflow.options"
local rules = require "lavaflow.rules"

local evaluation = {}

--- Rows of a step of evaluation and prediction.
evaluation.BATCH = { "whole", min = 1, max = rules.BATCH_MAX, default = 256 }
local TOP_K = 5

local evaluate_rules = options.declare("lf.evaluate", options.merge(rules.loss, rules.device, {
  model = rules.MODEL, data = { "part", required = true }, batch = evaluation.BATCH, top_k = { "whole", min = 1 },
}))
local step_rules = options.declare("s:evaluate", options.merge(evaluate_rules, { name = { "name" } }))

--- @class lavaflow.evaluate_options: lavaflow.loss_options, lavaflow.device_options
--- @field model lavaflow.model
--- @field data lavaflow.part
--- @field batch? integer rows of a step, 256
--- @field top_k? integer cross_entropy: the label is among the so many largest outputs; 5, or the number of classes

--- @class lavaflow.s_evaluate_options: lavaflow.evaluate_options
--- @field name? string of this evaluation in the run file

--- Arrays are by class, in order.
--- @class lavaflow.scores
--- @field loss number mean, weighted where rows or classes have weights
--- @field rows integer
--- @field seconds number
--- @field device string "vulkan:0", "cpu"
--- @field accuracy? number cross_entropy, binary_cross_entropy: 0 to 1
--- @field top_k? integer cross_entropy, as the next seven
--- @field top_k_accuracy? number
--- @field confusion? integer[][] rows by true class, then predicted class
--- @field precision? number[]
--- @field recall? number[]
--- @field f1? number[]
--- @field macro_f1? number mean of f1
--- @field mse? number mse, mae, huber, as the next three
--- @field rmse? number
--- @field mae? number
--- @field r2? number

local function check_top_k(where, t)
  local classes = t.loss == "cross_entropy"
  options.only_with(where, t, "top_k", classes, 'loss "cross_entropy"', options.show(t.loss))
  if not classes then return end
  local outputs = rules.outputs(t.model)
  if t.top_k and t.top_k > outputs then
    options.fail("%s: top_k: expected a whole number of at most %d, the model's outputs, got %d", where, outputs,
      t.top_k)
  end
  t.top_k = t.top_k or math.min(TOP_K, outputs)
end

--- Loss and scores of a model on a part; its weights stay.
--- @param where string the function's name in messages
--- @param given lavaflow.evaluate_options
--- @param bound lavaflow.context with `name`, the scores are recorded
--- @return lavaflow.scores
function evaluation.evaluate(where, given, bound)
  local t = options.check(where, bound.name and step_rules or evaluate_rules, given)
  context.choose_device(where, t, bound)
  rules.check_loss(where, t, t.model)
  check_top_k(where, t)
  local scores = options.call(core.evaluate, t)
  context.drain_log(bound)
  if bound.record then
    bound.record:devices_used({ core.find_device(scores.device) }, { t.device })
    bound.record:evaluated(bound.name, scores, { data = t.data.path, loss = t.loss, model = t.model:digest() })
  end
  return scores
end

return evaluation
