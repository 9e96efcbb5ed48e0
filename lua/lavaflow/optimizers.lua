-- Optimizers: tables that the plugin reads. Defaults are PyTorch's where it has the optimizer, else its paper's.
local options = require "lavaflow.options"
local schedules = require "lavaflow.schedules"

local Optimizer = { __name = "lavaflow.optimizer" }

local MOMENTUM = { "number", min = 0, default = 0.0 }

local function beta(default) return { "number", min = 0, below = 1, default = default } end

local function eps(default) return { "number", above = 0, default = default } end

-- The options that all have, with those of one.
local function declare(kind, lr, weight_decay, decay_bias, own)
  return options.declare("lf." .. kind, options.merge({
    lr = { "number", min = 0, default = lr },
    schedule = { "schedule" },
    weight_decay = { "number", min = 0, default = weight_decay },
    decay_bias = { "boolean", default = decay_bias },
    clip_norm = { "number", above = 0 },
    clip_value = { "number", above = 0 },
  }, own))
end

local function adam_betas() return { beta1 = beta(0.9), beta2 = beta(0.999), eps = eps(1e-8) } end

local rules = {
  sgd = declare("sgd", 1e-3, 0.0, true, { momentum = MOMENTUM, nesterov = { "boolean", default = false } }),
  adam = declare("adam", 1e-3, 0.0, true, adam_betas()),
  adamw = declare("adamw", 1e-3, 1e-2, false, adam_betas()),
  rmsprop = declare("rmsprop", 1e-2, 0.0, true, { alpha = beta(0.99), eps = eps(1e-8), momentum = MOMENTUM }),
  lion = declare("lion", 1e-4, 0.0, false, { beta1 = beta(0.9), beta2 = beta(0.99) }),
  lamb = declare("lamb", 1e-3, 0.0, false, { beta1 = beta(0.9), beta2 = beta(0.999), eps = eps(1e-6) }),
}

local function make(kind, given)
  local where = "lf." .. kind
  local optimizer = options.check(where, rules[kind], given)
  if optimizer.nesterov and optimizer.momentum == 0 then
    options.fail("%s: nesterov: expected a momentum above 0 with it, got 0", where)
  end
  if optimizer.clip_norm and optimizer.clip_value then
    options.fail("%s: clip_value: expected either clip_norm or clip_value, got both, %s and %s", where,
      optimizer.clip_norm, optimizer.clip_value)
  end
  if optimizer.schedule then optimizer.schedule = schedules.check(where, optimizer.schedule) end
  optimizer.kind = kind
  return setmetatable(optimizer, Optimizer)
end

--- Made by lf.adam and its like.
--- @class lavaflow.optimizer

--- @class lavaflow.optimizers
local optimizers = {}

-- g: the gradient, clipped; w: the weights; λ: weight_decay. `decay_bias` says whether biases and the parameters of
-- norms decay too.

--- @class lavaflow.optimizer_options
--- @field lr? number learning rate
--- @field schedule? lavaflow.schedule_name|lavaflow.schedule of the learning rate
--- @field weight_decay? number λ
--- @field decay_bias? boolean biases and the parameters of norms decay too
--- @field clip_norm? number longest gradient, all parameters together; a longer one is scaled down to it
--- @field clip_value? number largest size of each number of the gradient; not with clip_norm

--- @class lavaflow.sgd_options: lavaflow.optimizer_options
--- @field lr? number 1e-3
--- @field weight_decay? number 0
--- @field decay_bias? boolean true
--- @field momentum? number 0
--- @field nesterov? boolean false

--- Stochastic gradient descent: g += λ·w; m = momentum·m + g; w -= lr·m (dampening 0).
--- @param given? lavaflow.sgd_options
--- @return lavaflow.optimizer
function optimizers.sgd(given) return make("sgd", given) end

--- @class lavaflow.adam_options: lavaflow.optimizer_options
--- @field lr? number 1e-3
--- @field weight_decay? number 0
--- @field decay_bias? boolean true
--- @field beta1? number 0.9
--- @field beta2? number 0.999
--- @field eps? number 1e-8

--- Adam (Kingma, Ba 2015): g += λ·w.
--- @param given? lavaflow.adam_options
--- @return lavaflow.optimizer
function optimizers.adam(given) return make("adam", given) end

--- @class lavaflow.adamw_options: lavaflow.optimizer_options
--- @field lr? number 1e-3
--- @field weight_decay? number 0.01
--- @field decay_bias? boolean false
--- @field beta1? number 0.9
--- @field beta2? number 0.999
--- @field eps? number 1e-8

--- Adam with decoupled decay (Loshchilov, Hutter 2019): w -= lr·λ·w beside Adam's step.
--- @param given? lavaflow.adamw_options
--- @return lavaflow.optimizer
function optimizers.adamw(given) return make("adamw", given) end

--- @class lavaflow.rmsprop_options: lavaflow.optimizer_options
--- @field lr? number 1e-2
--- @field weight_decay? number 0
--- @field decay_bias? boolean true
--- @field alpha? number 0.99
--- @field eps? number 1e-8
--- @field momentum? number 0

--- RMSProp (Tieleman, Hinton 2012), not centered: g += λ·w; v = alpha·v + (1 - alpha)·g²; d = g / (√v + eps);
--- m = momentum·m + d; w -= lr·m.
--- @param given? lavaflow.rmsprop_options
--- @return lavaflow.optimizer
function optimizers.rmsprop(given)
  local optimizer = make("rmsprop", given)
  optimizer.beta2, optimizer.alpha = optimizer.alpha, nil -- the plugin's name for it
  return optimizer
end

--- @class lavaflow.lion_options: lavaflow.optimizer_options
--- @field lr? number 1e-4
--- @field weight_decay? number 0
--- @field decay_bias? boolean false
--- @field beta1? number 0.9
--- @field beta2? number 0.99

--- Lion (Chen et al. 2023): w -= lr·(sign(beta1·m + (1 - beta1)·g) + λ·w); m = beta2·m + (1 - beta2)·g.
--- @param given? lavaflow.lion_options
--- @return lavaflow.optimizer
function optimizers.lion(given) return make("lion", given) end

--- @class lavaflow.lamb_options: lavaflow.optimizer_options
--- @field lr? number 1e-3
--- @field weight_decay? number 0
--- @field decay_bias? boolean false
--- @field beta1? number 0.9
--- @field beta2? number 0.999
--- @field eps? number 1e-6

--- LAMB (You et al. 2020): d = Adam's direction + λ·w; w -= lr·(‖w‖ / ‖d‖)·d, norms by tensor.
--- @param given? lavaflow.lamb_options
--- @return lavaflow.optimizer
function optimizers.lamb(given) return make("lamb", given) end

return optimizers
