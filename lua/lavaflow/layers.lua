-- Layers and the models made of them.
local cjson = require "cjson"
local core = require "lavaflow.core"
local options = require "lavaflow.options"

local layers = {}

local Layer = { __name = "lavaflow.layer" }
local inits = { "uniform", "he_normal", "he_uniform", "glorot_normal", "glorot_uniform", "lecun_normal",
  "lecun_uniform", "zeros" }
local WIDTH = { "whole", min = 1, max = 0x7fffffff }
local NAMED = { name = { "name" } }
local LINEAR = { name = { "name" }, init = { "choice", of = inits } }

--- @class lavaflow.layer: a layer's definition
--- @field kind string
--- @field name string?

--- y = x·kernel + bias, x (batch, inputs), y (batch, outputs), kernel (inputs, outputs), bias (outputs).
--- @param inputs integer at least 1
--- @param outputs integer at least 1
--- @param given { init: string?, name: string? }? init: "uniform" (±1/√inputs, kernel and bias; the default),
---   "he_normal", "he_uniform", "glorot_normal", "glorot_uniform", "lecun_normal", "lecun_uniform", "zeros"
--- @return lavaflow.layer
function layers.linear(inputs, outputs, given)
  local layer = options.check("lf.linear", LINEAR, given)
  layer.kind = "linear"
  layer.inputs = options.value("lf.linear", "inputs", WIDTH, inputs)
  layer.outputs = options.value("lf.linear", "outputs", WIDTH, outputs)
  return setmetatable(layer, Layer)
end

-- By name; those with a parameter take it first and have a rule for it.
local activations = {
  relu = {}, gelu = {}, silu = {}, tanh = {}, sigmoid = {}, softplus = {},
  leaky_relu = { alpha = { "number", default = 0.01 } },
  elu = { alpha = { "number", default = 1.0 } },
}

for kind, rule in pairs(activations) do
  local where = "lf." .. kind
  layers[kind] = function(...)
    local alpha, given = ...
    if not rule.alpha then
      alpha, given = nil, ...
    elseif type(alpha) == "table" then
      alpha, given = nil, alpha
    end
    local layer = options.check(where, NAMED, given)
    layer.kind = kind
    if rule.alpha then
      layer.alpha = alpha == nil and rule.alpha.default or options.value(where, "alpha", rule.alpha, alpha)
    end
    return setmetatable(layer, Layer)
  end
end

local RATE = { "number", min = 0, below = 1 }
local EPS = { "number", above = 0, default = 1e-5 }

--- In training, zeroes each value with probability `rate` and multiplies the others by 1 / (1 - rate). Which ones is a
--- function of seed, step and place alone.
--- @param rate number at least 0, below 1
--- @param given { name: string? }?
--- @return lavaflow.layer
function layers.dropout(rate, given)
  local layer = options.check("lf.dropout", NAMED, given)
  layer.kind = "dropout"
  layer.rate = options.value("lf.dropout", "rate", RATE, rate)
  return setmetatable(layer, Layer)
end

local function norm(kind, width, rules, given)
  local layer = options.check("lf." .. kind, rules, given)
  layer.kind = kind
  layer.inputs = options.value("lf." .. kind, "width", WIDTH, width)
  return setmetatable(layer, Layer)
end

--- Normalises each column by the batch's mean and variance in training, by running ones elsewhere; gamma and beta
--- (width). running = (1 - momentum)·running + momentum·batch's, as PyTorch.
--- @param width integer
--- @param given { eps: number?, momentum: number?, name: string? }? eps 1e-5, momentum 0.1
--- @return lavaflow.layer
function layers.batch_norm(width, given)
  return norm("batch_norm", width,
    { eps = EPS, momentum = { "number", above = 0, max = 1, default = 0.1 }, name = NAMED.name }, given)
end

--- Normalises each row by its own mean and variance; gamma and beta (width).
--- @param width integer
--- @param given { eps: number?, name: string? }? eps 1e-5
--- @return lavaflow.layer
function layers.layer_norm(width, given)
  return norm("layer_norm", width, { eps = EPS, name = NAMED.name }, given)
end

local SEED = { "whole" }
local PATH = { "text", expected = "a path" }

-- `list` is an array with options among its keys: checks those and gives the array alone.
local function split_options(where, rules, list)
  if options.kind(list) ~= "table" then
    options.fail("%s: expected a table, got %s", where, options.show(list))
  end
  local array, named = {}, {}
  local last = 0
  for key, value in pairs(list) do
    if math.type(key) == "integer" then
      array[key] = value
      last = math.max(last, key)
    else
      named[key] = value
    end
  end
  for i = 1, last do
    if array[i] == nil then options.fail("%s: element %d: expected a value, got nothing", where, i) end
  end
  return array, options.check(where, rules, named)
end

local function check_layers(where, array)
  for i = 1, #array do
    if options.kind(array[i]) ~= "lavaflow.layer" then
      options.fail("%s: layer %d: expected a layer, such as lf.relu(), got %s", where, i, options.show(array[i]))
    end
  end
  if #array == 0 then options.fail("%s: expected at least one layer, got none", where) end
end

--- The layers one after the other, plus what goes into the first: y = f(x) + x, or f(x) + x·kernel + bias where the
--- widths differ.
--- @param list table layers in order, and `init` of the kernel, `name`
--- @return lavaflow.layer
function layers.residual(list)
  local array, given = split_options("lf.residual", LINEAR, list)
  check_layers("lf.residual", array)
  given.kind, given.layers = "residual", array
  return setmetatable(given, Layer)
end

-- The plugin takes layers in a row; a residual says by `span` how many behind it are inside.
local function flatten(array, flat)
  for _, layer in ipairs(array) do
    local copy = {}
    for key, value in pairs(layer) do copy[key] = value end
    flat[#flat + 1] = copy
    if layer.layers then
      local first = #flat
      copy.layers = nil
      flatten(layer.layers, flat)
      copy.span = #flat - first
    end
  end
  return flat
end

local function new_model(definition, seed)
  local model = options.call(core.model, flatten(definition, {}))
  if seed then model:init(seed) end
  return model
end

--- A model: layers that are applied one after the other.
--- Raises when widths do not fit: "layer 2 (linear_2): expects 128 inputs, but layer 1 (linear_1) gives 64".
--- @param list table layers in order, and `seed`: draws the weights at once; otherwise the training's seed draws them
--- @return lavaflow.model
function layers.sequential(list)
  local array, given = split_options("lf.sequential", { seed = SEED }, list)
  check_layers("lf.sequential", array)
  return new_model(array, given.seed)
end

--- The short form: linear layers of these widths with an activation between each two.
--- `lf.mlp { 784, 128, 10, activation = "relu" }`
--- @param list table widths, and `activation` ("relu"), `init`, `seed`
--- @return lavaflow.model
function layers.mlp(list)
  local widths, given = split_options("lf.mlp", {
    activation = { "choice", of = options.names(activations), default = "relu" },
    init = { "choice", of = inits }, seed = SEED,
  }, list)
  if #widths < 2 then options.fail("lf.mlp: expected at least 2 widths, got %d", #widths) end
  local array = {}
  for i, width in ipairs(widths) do
    options.value("lf.mlp", "width " .. i, WIDTH, width)
    if i > 1 then
      if i > 2 then array[#array + 1] = layers[given.activation]() end
      array[#array + 1] = layers.linear(widths[i - 1], width, { init = given.init })
    end
  end
  return new_model(array, given.seed)
end

local function decode(definition)
  return flatten(cjson.decode(definition).layers, {})
end

--- Reads a model, or a checkpoint's model. Raises when the file is missing, damaged, or no model.
--- @param path string
--- @return lavaflow.model
function layers.load(path)
  return options.call(core.load, options.value("lf.load", "path", PATH, path), decode)
end

-- The methods of every model: the plugin's, to which training.lua adds predict.
local methods = getmetatable(core.model { { kind = "linear", inputs = 1, outputs = 1 } }).__index
local save = methods.save

function methods.save(model, path)
  options.value("model:save", "path", PATH, path)
  if not model:initialised() then
    options.fail "model:save: the model has no weights yet: train it, load it or call model:init(seed)"
  end
  options.call(save, model, path)
end

--- @class lavaflow.model
--- @field definition fun(self): string JSON: layers and their options
--- @field layers fun(self): table[]
--- @field tensors fun(self): { name: string, rows: integer, cols: integer }[]
--- @field weights fun(self, name: string): number[] row-major
--- @field set_weights fun(self, name: string, values: number[])
--- @field param_count fun(self): integer trainable numbers
--- @field init fun(self, seed: integer) draws new weights
--- @field initialised fun(self): boolean weights were drawn, loaded or trained
--- @field digest fun(self): string sha256 of the weights
--- @field save fun(self, path: string) atomically; raises when it cannot be written
--- @field predict fun(self, rows: number[][]|lavaflow.part, given: table?): number[][]
--- @field close fun(self)
layers.methods = methods

return layers
