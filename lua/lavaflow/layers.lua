-- Layers and the models made of them.
local cjson = require "cjson"
local core = require "lavaflow.core"
local options = require "lavaflow.options"

--- @class lavaflow.layers
--- @field relu fun(given?: lavaflow.name_options): lavaflow.layer max(0, x)
--- @field gelu fun(given?: lavaflow.name_options): lavaflow.layer x·Φ(x), with the error function
--- @field silu fun(given?: lavaflow.name_options): lavaflow.layer x·sigmoid(x)
--- @field tanh fun(given?: lavaflow.name_options): lavaflow.layer
--- @field sigmoid fun(given?: lavaflow.name_options): lavaflow.layer 1 / (1 + exp(-x))
--- @field softplus fun(given?: lavaflow.name_options): lavaflow.layer log(1 + exp(x))
--- x, or alpha·x below 0; alpha 0.01.
--- @field leaky_relu fun(alpha?: number|lavaflow.name_options, given?: lavaflow.name_options): lavaflow.layer
--- x, or alpha·(exp(x) - 1) below 0; alpha 1.
--- @field elu fun(alpha?: number|lavaflow.name_options, given?: lavaflow.name_options): lavaflow.layer
local layers = {}

local Layer = { __name = "lavaflow.layer" }
local WIDTH = { "whole", min = 1, max = 0x7fffffff }
local NAMED = { name = { "name" } }
local DRAWN = {
  init = { "choice", default = "uniform",
    of = { "uniform", "he_normal", "he_uniform", "glorot_normal", "glorot_uniform", "lecun_normal", "lecun_uniform",
      "normal", "constant", "zeros" } },
  init_scale = { "number" },
}
local LINEAR = options.declare("lf.linear", options.merge(NAMED, DRAWN))
local NORMAL_SCALE = 0.05 -- Keras's RandomNormal

--- A layer's definition.
--- @class lavaflow.layer
--- @field kind string
--- @field name? string

--- @class lavaflow.name_options
--- @field name? string instead of kind and ordinal, "linear_1"

--- @alias lavaflow.init
---| "uniform" # ±1/√inputs, kernel and bias; all others set the bias to 0
---| "he_normal" # deviation √(2/inputs)
---| "he_uniform" # ±√(6/inputs)
---| "glorot_normal" # deviation √(2/(inputs + outputs))
---| "glorot_uniform" # ±√(6/(inputs + outputs))
---| "lecun_normal" # deviation √(1/inputs)
---| "lecun_uniform" # ±√(3/inputs)
---| "normal" # deviation init_scale
---| "constant" # init_scale
---| "zeros"

--- @class lavaflow.linear_options: lavaflow.name_options
--- @field init? lavaflow.init "uniform"
--- @field init_scale? number normal: the deviation, 0.05; constant: the value, required

-- How `init_scale` goes with `init`, and what it is when absent.
local function check_init(where, layer)
  local init, scale = layer.init, layer.init_scale
  options.only_with(where, layer, "init_scale", init == "normal" or init == "constant",
    'init "normal" or "constant"', options.show(init))
  if init == "normal" then
    layer.init_scale = options.value(where, "init_scale", { "number", min = 0 }, scale or NORMAL_SCALE)
  elseif init == "constant" and not scale then
    options.fail('%s: init_scale: expected a number with init "constant", got nothing', where)
  end
  return layer
end

--- y = x·kernel + bias, x (batch, inputs), y (batch, outputs), kernel (inputs, outputs), bias (outputs).
--- @param inputs integer at least 1
--- @param outputs integer at least 1
--- @param given? lavaflow.linear_options
--- @return lavaflow.layer
function layers.linear(inputs, outputs, given)
  local layer = check_init("lf.linear", options.check("lf.linear", LINEAR, given))
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
  options.declare(where, NAMED)
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
local LAYER_NORM = options.declare("lf.layer_norm", options.merge(NAMED, { eps = EPS }))
local BATCH_NORM = options.declare("lf.batch_norm", options.merge(LAYER_NORM,
  { momentum = { "number", above = 0, max = 1, default = 0.1 } }))
options.declare("lf.dropout", NAMED)

--- In training, zeroes each value with probability `rate` and multiplies the others by 1 / (1 - rate). Which ones is a
--- function of seed, step and place alone.
--- @param rate number at least 0, below 1
--- @param given? lavaflow.name_options
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

--- @class lavaflow.layer_norm_options: lavaflow.name_options
--- @field eps? number added to the variance, 1e-5

--- @class lavaflow.batch_norm_options: lavaflow.layer_norm_options
--- @field momentum? number weight of the batch in the running statistics, 0.1

--- Normalises each column by the batch's mean and variance in training, by running ones elsewhere; gamma and beta
--- (width). running = (1 - momentum)·running + momentum·batch's, as PyTorch.
--- @param width integer
--- @param given? lavaflow.batch_norm_options
--- @return lavaflow.layer
function layers.batch_norm(width, given) return norm("batch_norm", width, BATCH_NORM, given) end

--- Normalises each row by its own mean and variance; gamma and beta (width).
--- @param width integer
--- @param given? lavaflow.layer_norm_options
--- @return lavaflow.layer
function layers.layer_norm(width, given) return norm("layer_norm", width, LAYER_NORM, given) end

local SEED = { "whole" }
local PATH = { "text", expected = "a path" }
local SEQUENTIAL = options.declare("lf.sequential", { seed = SEED })
local MLP = options.declare("lf.mlp", options.merge(SEQUENTIAL, DRAWN,
  { activation = { "choice", of = options.names(activations), default = "relu" } }))
local RESIDUAL = options.declare("lf.residual", LINEAR)

-- `list` is an array with options among its keys: checks those and gives the array alone.
local function split_options(where, rules, list)
  if options.kind(list) ~= "table" then
    options.fail("%s: expected a table, got %s", where, options.show(list))
  end
  local array, named = {}, {}
  for key, value in pairs(list) do
    (math.type(key) == "integer" and array or named)[key] = value
  end
  for i = 1, options.length(array) do
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

--- @class lavaflow.residual_options: lavaflow.linear_options
--- @field [integer] lavaflow.layer in order

--- The layers one after the other, plus what goes into the first: y = f(x) + x, or f(x) + x·kernel + bias where the
--- widths differ.
--- @param list lavaflow.residual_options
--- @return lavaflow.layer
function layers.residual(list)
  local array, given = split_options("lf.residual", RESIDUAL, list)
  check_layers("lf.residual", array)
  check_init("lf.residual", given)
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

--- @class lavaflow.sequential_options
--- @field [integer] lavaflow.layer in order
--- @field seed? integer draws the weights at once; without it the training's seed draws them

--- A model: layers that are applied one after the other.
--- Raises when widths do not fit: "layer 2 (linear_2): expects 128 inputs, but layer 1 (linear_1) gives 64".
--- @param list lavaflow.sequential_options
--- @return lavaflow.model
function layers.sequential(list)
  local array, given = split_options("lf.sequential", SEQUENTIAL, list)
  check_layers("lf.sequential", array)
  return new_model(array, given.seed)
end

--- @class lavaflow.mlp_options
--- @field [integer] integer widths: inputs, hidden ones, outputs
--- @field activation? string between each two linear layers, "relu"
--- @field init? lavaflow.init of every kernel, "uniform"
--- @field init_scale? number as lf.linear
--- @field seed? integer as lf.sequential

--- The short form: linear layers of these widths with an activation between each two.
--- `lf.mlp { 784, 128, 10, activation = "relu" }`
--- @param list lavaflow.mlp_options
--- @return lavaflow.model
function layers.mlp(list)
  local widths, given = split_options("lf.mlp", MLP, list)
  check_init("lf.mlp", given)
  if #widths < 2 then options.fail("lf.mlp: expected at least 2 widths, got %d", #widths) end
  local array = {}
  for i, width in ipairs(widths) do
    options.value("lf.mlp", "width " .. i, WIDTH, width)
    if i > 1 then
      if i > 2 then array[#array + 1] = layers[given.activation]() end
      array[#array + 1] = layers.linear(widths[i - 1], width, { init = given.init, init_scale = given.init_scale })
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

-- The methods of every model: the plugin's, to which prediction.lua adds predict.
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
--- @field layers fun(self): table[] each with kind, name, inputs, outputs and what its kind has besides
--- @field tensors fun(self): { name: string, rows: integer, cols: integer }[]
--- @field weights fun(self, name: string): number[] row-major; "linear_1/kernel" is (inputs, outputs)
--- @field set_weights fun(self, name: string, values: number[])
--- @field param_count fun(self): integer trainable numbers
--- @field init fun(self, seed: integer) draws new weights
--- @field initialised fun(self): boolean weights were drawn, loaded or trained
--- @field digest fun(self): string sha256 of the weights
--- @field run fun(self): string? UUID of the run whose file holds their training
--- @field save fun(self, path: string) atomically; raises when it cannot be written
--- As lf.predict.
--- @field predict fun(self, rows: number[][]|lavaflow.part, given?: lavaflow.model_predict_options): number[][]
--- @field close fun(self)
layers.methods = methods

return layers
