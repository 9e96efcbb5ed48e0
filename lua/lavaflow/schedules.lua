-- Schedules of the learning rate: checked here, followed by the plugin (plugin/train/schedule.h).
--
-- lf.adam { lr = 1e-3, schedule = "cosine" } or a table whose first element is the kind. t counts from the end of the
-- warm-up in steps, or epochs with per = "epoch"; T is the whole training's length without the warm-up.
local options = require "lavaflow.options"

local NUMBER = { "number", min = 0 }
local kinds = {
  constant = {},
  step = { every = { "whole", min = 1, required = true }, gamma = { "number", above = 0, default = 0.1 } },
  multistep = { milestones = { "table", required = true, expected = "an array of whole numbers" },
    gamma = { "number", above = 0, default = 0.1 } },
  exponential = { gamma = { "number", above = 0, required = true } },
  cosine = { final = { "number", min = 0, default = 0.0 } },
  linear = { final = { "number", min = 0, default = 0.0 } },
  one_cycle = { rise = { "number", above = 0, below = 1, default = 0.3 }, div = { "number", above = 0, default = 25.0 },
    final = NUMBER },
  plateau = { factor = { "number", above = 0, below = 1, default = 0.1 }, patience = { "whole", min = 0, default = 10 },
    threshold = { "number", min = 0, default = 1e-4 } },
}
local KIND = { "choice", of = options.names(kinds) }
local PER = { "choice", of = { "step", "epoch" }, default = "step" }

local schedules = {}

--- @class lavaflow.schedule
--- @field [1] "constant"|"step"|"multistep"|"exponential"|"cosine"|"linear"|"one_cycle"|"plateau"
--- @field per "step"|"epoch"? what t counts; plateau always looks at epochs
--- @field warmup number? linear rise over as many steps (or epochs) in front
--- @field final number? rate at the end: cosine 0, linear 0, one_cycle lr / div / 10000
--- @field every integer? step: lr · gamma^⌊t / every⌋
--- @field milestones integer[]? multistep: lr · gamma^(milestones at or before t)
--- @field gamma number? step 0.1, multistep 0.1, exponential (lr · gamma^t)
--- @field rise number? one_cycle: fraction of T up to the top, 0.3
--- @field div number? one_cycle: starts at lr / div, 25
--- @field factor number? plateau: the rate is multiplied by it, 0.1, after
--- @field patience integer? plateau: so many epochs, 10, whose loss (the validation's, if there is one) is not below
--- @field threshold number? plateau: best · (1 - threshold), 1e-4

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
  local rules, named = { per = PER, warmup = NUMBER }, {}
  for name, rule in pairs(kinds[kind]) do rules[name] = rule end
  for name, value in pairs(given) do
    if name ~= 1 then named[name] = value end
  end
  local checked = options.check(("%s %q"):format(where, kind), rules, named)
  for i, milestone in ipairs(checked.milestones or {}) do
    options.value(where, ("milestones[%d]"):format(i), { "whole", min = 0 }, milestone)
  end
  checked.kind = kind
  checked.per_epoch = checked.per == "epoch"
  checked.per = nil
  return checked
end

return schedules
