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

local function new_model(definition, seed)
  local model = options.call(core.model, definition)
  if seed then model:init(seed) end
  return model
end

--- A model: layers that are applied one after the other.
--- Raises when widths do not fit: "layer 2 (linear_2): expects 128 inputs, but layer 1 (linear_1) gives 64".
--- @param list table layers in order, and `seed`: draws the weights at once; otherwise the training's seed draws them
--- @return lavaflow.model
function layers.sequential(list)
  local array, given = split_options("lf.sequential", { seed = SEED }, list)
  for i = 1, #array do
    if options.kind(array[i]) ~= "lavaflow.layer" then
      options.fail("lf.sequential: layer %d: expected a layer, such as lf.relu(), got %s", i, options.show(array[i]))
    end
  end
  if #array == 0 then options.fail("lf.sequential: expected at least one layer, got none") end
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
  return cjson.decode(definition).layers
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
