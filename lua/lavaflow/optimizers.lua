-- Optimizers: tables that the plugin reads. Defaults are PyTorch's.
local options = require "lavaflow.options"
local schedules = require "lavaflow.schedules"

local Optimizer = { __name = "lavaflow.optimizer" }

local function adam_rules(weight_decay)
  return {
    lr = { "number", min = 0, default = 1e-3 },
    beta1 = { "number", min = 0, below = 1, default = 0.9 },
    beta2 = { "number", min = 0, below = 1, default = 0.999 },
    eps = { "number", above = 0, default = 1e-8 },
    weight_decay = { "number", min = 0, default = weight_decay },
  }
end

local rules = {
  sgd = {
    lr = { "number", min = 0, default = 1e-3 },
    momentum = { "number", min = 0, default = 0.0 },
    nesterov = { "boolean", default = false },
    weight_decay = { "number", min = 0, default = 0.0 },
  },
  adam = adam_rules(0.0),
  adamw = adam_rules(1e-2),
}

for _, of in pairs(rules) do
  of.schedule = { "schedule" }
end

local function make(kind, given)
  local optimizer = options.check("lf." .. kind, rules[kind], given)
  if optimizer.nesterov and optimizer.momentum == 0 then
    options.fail("lf.sgd: nesterov: expected a momentum above 0 with it, got 0")
  end
  if optimizer.schedule then optimizer.schedule = schedules.check("lf." .. kind, optimizer.schedule) end
  optimizer.kind = kind
  return setmetatable(optimizer, Optimizer)
end

local optimizers = {}

--- @class lavaflow.optimizer
--- Every optimizer takes `schedule`: "cosine", or a table as lavaflow.schedule says.

--- Stochastic gradient descent. With momentum: buf = momentum·buf + gradient (dampening 0).
--- @param given { lr: number?, momentum: number?, nesterov: boolean?, weight_decay: number? }?
---   lr 1e-3, momentum 0, nesterov false, weight_decay 0 (added to the gradient)
--- @return lavaflow.optimizer
function optimizers.sgd(given) return make("sgd", given) end

--- Adam; weight decay is added to the gradient.
--- @param given { lr: number?, beta1: number?, beta2: number?, eps: number?, weight_decay: number? }?
---   lr 1e-3, beta1 0.9, beta2 0.999, eps 1e-8, weight_decay 0
--- @return lavaflow.optimizer
function optimizers.adam(given) return make("adam", given) end

--- Adam with decoupled weight decay: the weights themselves shrink by lr·weight_decay a step.
--- @param given { lr: number?, beta1: number?, beta2: number?, eps: number?, weight_decay: number? }?
---   as adam, weight_decay 0.01
--- @return lavaflow.optimizer
function optimizers.adamw(given) return make("adamw", given) end

return optimizers
