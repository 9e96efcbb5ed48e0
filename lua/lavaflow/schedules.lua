-- Schedules of the learning rate: checked here, followed by the plugin (plugin/train/schedule.h).
--
-- lf.adam { lr = 1e-3, schedule = "cosine" } or a table whose first element is the kind. t counts updates of the
-- weights, or epochs with per = "epoch", from the end of the warm-up; T is the whole training's length without the
-- warm-up.
local options = require "lavaflow.options"

local NUMBER = { "number", min = 0 }
local GAMMA = { "number", above = 0, default = 0.1 }
local FINAL = { "number", min = 0, default = 0.0 }
local MILESTONES = 16 -- as many as the plugin keeps

local function declare(kind, own)
  return options.declare(("schedule %q"):format(kind), options.merge({
    per = { "choice", of = { "step", "epoch" }, default = "step" },
    warmup = { "number", min = 0, default = 0.0 },
  }, own))
end

local kinds = {
  constant = declare("constant", {}),
  step = declare("step", { every = { "whole", min = 1, required = true }, gamma = GAMMA }),
  multistep = declare("multistep", { gamma = GAMMA,
    milestones = { "array", of = { "whole", min = 0 }, least = 1, most = MILESTONES, required = true,
      expected = "an array of whole numbers" } }),
  exponential = declare("exponential", { gamma = { "number", above = 0, required = true } }),
  cosine = declare("cosine", { final = FINAL }),
  linear = declare("linear", { final = FINAL }),
  one_cycle = declare("one_cycle", { rise = { "number", above = 0, below = 1, default = 0.3 },
    div = { "number", above = 0, default = 25.0 }, final = NUMBER }),
  plateau = declare("plateau", { factor = { "number", above = 0, below = 1, default = 0.1 },
    patience = { "whole", min = 0, default = 10 }, threshold = { "number", min = 0, default = 1e-4 } }),
}
local KIND = { "choice", of = options.names(kinds) }

local schedules = {}

--- @alias lavaflow.schedule_name
---| "constant"
---| "step"
---| "multistep"
---| "exponential"
---| "cosine"
---| "linear"
---| "one_cycle"
---| "plateau"

--- @class lavaflow.schedule
--- @field [1] lavaflow.schedule_name
--- What t counts: updates of the weights ("step", the default) or epochs. plateau always looks at epochs.
--- @field per? "step"|"epoch"
--- @field warmup? number linear rise over as many updates (or epochs) in front, 0
--- @field final? number rate at the end: cosine 0, linear 0, one_cycle lr / div / 10000
--- @field every? integer step, required: lr · gamma^⌊t / every⌋
--- @field milestones? integer[] multistep, required, at most 16: lr · gamma^(milestones at or before t)
--- @field gamma? number step 0.1, multistep 0.1, exponential, required: lr · gamma^t
--- @field rise? number one_cycle: fraction of T up to the top, 0.3
--- @field div? number one_cycle: starts at lr / div, 25
--- @field factor? number plateau: the rate is multiplied by it, 0.1, after more than
--- @field patience? integer plateau: so many epochs, 10, whose loss (the validation's, if there is one) is not below
--- @field threshold? number plateau: best · (1 - threshold), 1e-4

--- What the plugin reads. Raises for an unknown kind or option.
--- @param where string the optimizer's name in messages
--- @param given string|lavaflow.schedule
--- @return table
function schedules.check(where, given)
  where = where .. ": schedule"
  if type(given) == "string" then given = { given } end
  if type(given) ~= "table" then
    options.fail("%s: expected a name or a table, got %s", where, options.show(given))
  end
  local kind = options.value(where, "kind", KIND, given[1])
  local named = {}
  for name, value in pairs(given) do
    if name ~= 1 then named[name] = value end
  end
  local checked = options.check(("%s %q"):format(where, kind), kinds[kind], named)
  checked.kind = kind
  checked.per_epoch = checked.per == "epoch"
  checked.per = nil
  return checked
end

return schedules
