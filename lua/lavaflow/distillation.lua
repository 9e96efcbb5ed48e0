-- lf.distill and s:distill: a training whose loss asks teachers too.
local core = require "lavaflow.core"
local options = require "lavaflow.options"
local rules = require "lavaflow.rules"
local training = require "lavaflow.training"

local distillation = {}

local LAYER = { "text", required = true, expected = "the name of a layer" }
local hint_rules = options.declare("lf.distill: hints",
  { student = LAYER, teacher = LAYER, weight = { "number", above = 0, default = 1.0 } })
local HINT = { "options", rules = hint_rules, expected = "a table of student, teacher and weight" }
local TEMPERATURE = 4.0

local distill_rules = options.declare("lf.distill", options.merge(options.without(training.rules, "model"), {
  student = rules.MODEL,
  teacher = { "model" },
  teachers = { "array", of = rules.MODEL, least = 1, expected = "an array of models" },
  temperature = { "number", above = 0 },
  alpha = { "number", min = 0, max = 1, default = 0.7 },
  cache = { "either", of = { { "boolean" }, rules.PATH }, expected = "true, false or a path" },
  hints = { "array", of = HINT, least = 1, expected = "an array of tables" },
}))

--- @class lavaflow.distill_hints_options
--- @field student string layer of the student, "relu_1"
--- @field teacher string layer of the teacher
--- @field weight? number of its part of the loss, 1

--- @class lavaflow.distill_options: lavaflow.training_options
--- @field student lavaflow.model
--- @field teacher? lavaflow.model either this or
--- @field teachers? lavaflow.model[] several, which count by the mean of what they say
--- @field temperature? number cross_entropy: T, 4
--- @field alpha? number part of the teachers in the loss, 0.7
--- true: what the teachers say is computed once and kept in memory (the default); a path: in that file, for other
--- trainings too; false: they run at every step, as they do with hints.
--- @field cache? boolean|string
--- @field hints? lavaflow.distill_hints_options[] layers of the student that learn to match layers of the teacher

local function has_layer(model, name)
  local names = {}
  for i, layer in ipairs(options.call(model.layers, model)) do
    names[i] = layer.name
    if layer.name == name then return true end
  end
  return false, table.concat(options.nearest(name, names), ", ", 1, math.min(5, #names))
end

local function check_hints(where, t)
  if #t.teachers ~= 1 then
    options.fail("%s: hints: expected exactly one teacher with them, got %d", where, #t.teachers)
  end
  if t.cache then
    options.fail("%s: cache: expected false or nothing with hints, whose teacher runs at every step; got %s", where,
      options.show(t.cache))
  end
  for i, hint in ipairs(t.hints) do
    for name, model in pairs { student = t.student, teacher = t.teachers[1] } do
      local there, nearest = has_layer(model, hint[name])
      if not there then
        options.fail("%s: hints[%d]: %s: the %s has no layer %s; nearest: %s", where, i, name, name,
          options.show(hint[name]), nearest)
      end
    end
  end
end

local function check(where, given, bound)
  local t = training.check(where, distill_rules, given, bound, "student")
  if (t.teacher == nil) == (t.teachers == nil) then
    options.fail("%s: teacher: expected either teacher, a model, or teachers, an array of them; got %s", where,
      t.teacher and "both" or "neither")
  end
  t.teachers = t.teachers or { t.teacher }
  options.only_with(where, t, "temperature", t.loss == "cross_entropy", 'loss "cross_entropy"', options.show(t.loss))
  if t.loss == "cross_entropy" then t.temperature = t.temperature or TEMPERATURE end
  if t.hints then check_hints(where, t) end
  t.live = t.cache == false or t.hints ~= nil
  t.cache_file = type(t.cache) == "string" and t.cache or nil
  t.cache = nil
  return t
end

--- Trains a student on the targets and on what teachers say of the same rows.
--- @param where string
--- @param given lavaflow.distill_options
--- @param bound lavaflow.context
--- @return lavaflow.history
function distillation.distill(where, given, bound)
  return training.start(where, check(where, given, bound), bound)
end

--- The step programs of distillation.distill, in words.
--- @return string
function distillation.explain(where, given, bound)
  return options.call(core.explain, check(where, given, bound))
end

return distillation
