-- Data sets.
local core = require "lavaflow.core"
local options = require "lavaflow.options"

local data = {}

local OBJECT = { "text", expected = "the path of an object" }
local FRACTION = { "number", min = 0, max = 1 }
local split_rules = options.declare("lf.dataset: split",
  { train = FRACTION, valid = FRACTION, test = FRACTION, seed = { "whole", default = 0 } })
local dataset_rules = options.declare("lf.dataset", {
  file = { "text", required = true, expected = "a path" },
  x = OBJECT, y = OBJECT, w = OBJECT,
  split = { "options", rules = split_rules, expected = "a table of fractions" },
  normalize = { "choice", of = { "standard", "minmax" } },
})

--- Rows of a data set.
--- @class lavaflow.part
--- @field name string "train", "valid", "test"
--- @field rows integer
--- @field features integer values of a row
--- @field stored string type in which x is kept: "u8", "f32"
--- @field target "classes"|"values"|"none"
--- @field outputs integer values of a row's target; 1 for classes
--- @field classes integer largest label + 1, or the number of names; 0 unless classes
--- @field weighted boolean rows have weights
--- @field path string "datasets/mnist.h5:/train/x"
--- @field y_path? string "datasets/mnist.h5:/train/y"
--- @field w_path? string "datasets/mnist.h5:/train/w"
--- @field read fun(self, first: integer, count: integer): number[][], (integer|number[])[] rows count from 0

--- @class lavaflow.dataset
--- @field train? lavaflow.part
--- @field valid? lavaflow.part
--- @field test? lavaflow.part
--- @field file string
--- @field close fun(self)

--- Fractions of the rows, at most 1 together.
--- @class lavaflow.dataset_split_options
--- @field train? number
--- @field valid? number
--- @field test? number
--- @field seed? integer which rows go where, 0

--- @class lavaflow.dataset_options
--- @field file string
--- @field x? string object of the rows, instead of /train/x and its like
--- @field y? string object of their targets; with x
--- @field w? string object of their weights, not negative; with x
--- @field split? lavaflow.dataset_split_options of the rows of x
--- @field normalize? "standard"|"minmax" by the training part: mean 0 and deviation 1, or 0 to 1, of each feature

--- Opens a data set file: /train/x, /train/y, perhaps /train/w, the same under /valid and /test, or the objects that x,
--- y and w name. Raises when the file, an object or a label is not as it should be.
--- @param given string|lavaflow.dataset_options a path, or options
--- @return lavaflow.dataset
function data.dataset(given)
  if type(given) == "string" then given = { file = given } end
  local spec = options.check("lf.dataset", dataset_rules, given)
  for _, name in ipairs { "split", "w" } do
    options.only_with("lf.dataset", spec, name, spec.x, "x", "none")
  end
  if spec.split then spec.split_seed, spec.split.seed = spec.split.seed, nil end
  return options.call(core.dataset, spec)
end

return data
