-- Checks what scripts give: the only place that knows types, ranges, defaults and how a misuse is worded.
-- The public functions of the package call this; each holds a table of rules, one per option.
local options = {}

--- Rules by the function that takes the options: "lf.train". The reference is held against them.
--- @type table<string, table<string, table>>
options.declared = {}

local package_source = debug.getinfo(1, "S").source:match "^(.*)options%.lua$"

--- Calls a function of a script. `position` looks no further out.
function options.script(fn, ...)
  fn(...)
  return true -- so that the call above is no tail call, which would leave no trace of this one
end

local function place(info, line)
  return ("%s:%d: "):format(info.source:match "^@(.*)" or info.short_src, line)
end

--- "FILE:LINE: " of the script's line that is being run: the innermost frame of Lua outside this package. A script's
--- function that ended in a tail call has no frame; then it is the line where the function begins.
--- @return string # empty when there is none
function options.position()
  local level = 2
  while true do
    local info = debug.getinfo(level, "Slf")
    if not info then return "" end
    if info.func == options.script then
      local _, fn = debug.getlocal(level, 1)
      local begun = debug.getinfo(fn, "S")
      return place(begun, math.max(begun.linedefined, 1))
    end
    if info.what ~= "C" and info.source:sub(1, #package_source) ~= package_source then
      return place(info, info.currentline)
    end
    level = level + 1
  end
end

--- Raises a misuse at the script's line.
function options.fail(format, ...)
  error(options.position() .. format:format(...), 0)
end

local function has_position(message)
  return type(message) ~= "string" or message:find "^[^:\n]+:%d+: " ~= nil
end

--- Calls a function of the plugin; its errors, which have no position, get the script's.
function options.call(fn, ...)
  local results = table.pack(pcall(fn, ...))
  if results[1] then return table.unpack(results, 2, results.n) end
  local message = results[2]
  if message == nil then message = "an error that is nil" end
  error(has_position(message) and message or options.position() .. message, 0)
end

--- For xpcall around options.script: an error as a text with the script's position.
function options.locate(message)
  if type(message) ~= "string" then message = "an error that is " .. options.show(message) end
  return has_position(message) and message or options.position() .. message
end

-- Edits that turn one name into the other: insert, delete, replace, and swap of neighbours.
local function distance(a, b)
  local before, row = {}, {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local last = row
    row = { [0] = i }
    for j = 1, #b do
      local same = a:byte(i) == b:byte(j)
      row[j] = math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (same and 0 or 1))
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        row[j] = math.min(row[j], before[j - 2] + 1)
      end
    end
    before = last
  end
  return row[#b]
end

--- The names, nearest to `name` first.
--- @param name string
--- @param names string[]
--- @return string[]
function options.nearest(name, names)
  local sorted, distances = table.move(names, 1, #names, 1, {}), {}
  for _, other in ipairs(names) do distances[other] = distance(name:lower(), other:lower()) end
  table.sort(sorted, function(a, b)
    if distances[a] ~= distances[b] then return distances[a] < distances[b] end
    return a < b
  end)
  return sorted
end

--- The keys of a table that are text, sorted.
--- @return string[]
function options.names(t)
  local names = {}
  for name in pairs(t) do
    if type(name) == "string" then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

local described = {
  ["lavaflow.model"] = "a model", ["lavaflow.part"] = "a part of a data set", ["lavaflow.dataset"] = "a data set",
  ["lavaflow.layer"] = "a layer", ["lavaflow.optimizer"] = "an optimizer",
}

--- The `__name` of a handle, a layer or an optimizer, or the Lua type.
function options.kind(value)
  local meta = (type(value) == "userdata" or type(value) == "table") and getmetatable(value)
  return type(meta) == "table" and meta.__name or type(value)
end

--- How a value stands in a message.
function options.show(value)
  local kind = options.kind(value)
  if kind == "nil" then return "nothing" end
  if value ~= value then return "nan" end
  if kind == "number" or kind == "boolean" then return tostring(value) end
  if kind == "string" then return #value <= 60 and '"' .. value .. '"' or '"' .. value:sub(1, 57) .. '…"' end
  return described[kind] or "a " .. kind
end

-- Each takes the value, its rule, and the names of function and argument for messages about what is inside the value.
-- It gives the value to use, or nil and what was expected.
local types = {}

function types.whole(value, rule)
  local whole = math.type(value) and math.tointeger(value)
  if whole and rule.max and whole > rule.max then return nil, "a whole number of at most " .. rule.max end
  if whole and whole >= (rule.min or math.mininteger) then return whole end
  return nil, "a whole number" .. (rule.min and " of at least " .. rule.min or "")
end

-- As the plugin computes with it, in 32 bits.
local function narrow(value) return (string.unpack("<f", string.pack("<f", value))) end

local function fits(value)
  local single = narrow(value)
  return single - single == 0 and (single ~= 0 or value == 0)
end

function types.number(value, rule)
  local finite = type(value) == "number" and value - value == 0
  if finite and not fits(value) then return nil, "a number that 32 bits hold" end
  local below = finite and rule.below and narrow(value) >= rule.below
  if finite and not below and value >= (rule.min or -math.huge) and value > (rule.above or -math.huge)
    and value < (rule.below or math.huge) and value <= (rule.max or math.huge) then
    return value
  end
  local range = {}
  if rule.min then range[#range + 1] = "of at least " .. rule.min end
  if rule.above then range[#range + 1] = "above " .. rule.above end
  if rule.below then range[#range + 1] = "below " .. rule.below end
  if rule.max then range[#range + 1] = "at most " .. rule.max end
  return nil, #range > 0 and "a number " .. table.concat(range, " and ") or "a finite number"
end

function types.boolean(value)
  if type(value) == "boolean" then return value end
  return nil, "true or false"
end

function types.text(value, rule)
  if type(value) == "string" and value ~= "" and not value:find "\0" then return value end
  return nil, rule.expected or "a text"
end

function types.name(value)
  if type(value) == "string" and value:find "^[%w_-]+$" then return value end
  return nil, "a name of letters, digits, _ and -"
end

function types.choice(value, rule)
  for _, name in ipairs(rule.of) do
    if name == value then return value end
  end
  return nil, "one of " .. table.concat(rule.of, ", ")
end

types["function"] = function(value)
  if type(value) == "function" then return value end
  return nil, "a function"
end

function types.table(value, rule)
  if type(value) == "table" then return value end
  return nil, rule.expected or "a table"
end

--- The highest whole number among a table's keys; holes below it count.
function options.length(t)
  local last = 0
  for key in pairs(t) do
    if math.type(key) == "integer" and key > last then last = key end
  end
  return last
end

-- `of`: the rule of each element; `least`, `most`: how many.
function types.array(value, rule, where, name)
  if options.kind(value) ~= "table" then return nil, rule.expected end
  local others = {}
  for key in pairs(value) do
    if math.type(key) ~= "integer" or key < 1 then others[#others + 1] = options.show(key) end
  end
  table.sort(others)
  if others[1] then
    options.fail("%s: %s: expected %s, got a table with %s", where, name, rule.expected, others[1])
  end
  local count, checked = options.length(value), {}
  if count < (rule.least or 0) or count > (rule.most or math.huge) then
    options.fail("%s: %s: expected %s, %s %d of them, got %d", where, name, rule.expected,
      count < (rule.least or 0) and "at least" or "at most", count < (rule.least or 0) and rule.least or rule.most,
      count)
  end
  for i = 1, count do checked[i] = options.value(where, ("%s[%d]"):format(name, i), rule.of, rawget(value, i)) end
  return checked
end

-- A table of options by itself; `rules` are theirs.
function types.options(value, rule, where, name)
  if options.kind(value) ~= "table" then return nil, rule.expected end
  return options.check(("%s: %s"):format(where, name), rule.rules, value)
end

-- `of`: rules, of which the value has to keep one.
function types.either(value, rule, where, name)
  for _, one in ipairs(rule.of) do
    local checked = types[one[1]](value, one, where, name)
    if checked ~= nil then return checked end
  end
  return nil, rule.expected
end

function types.model(value)
  if options.kind(value) == "lavaflow.model" then return value end
  return nil, "a model"
end

function types.part(value)
  if options.kind(value) == "lavaflow.part" then return value end
  return nil, "a part of a data set, such as data.train"
end

function types.schedule(value)
  if type(value) == "string" or type(value) == "table" then return value end
  return nil, 'a schedule, such as "cosine" or { "step", every = 10 }'
end

function types.optimizer(value)
  if options.kind(value) == "lavaflow.optimizer" then return value end
  return nil, "an optimizer, such as lf.adam { lr = 1e-3 }"
end

--- Checks one value. `where` is the function's name in messages, `name` the argument's.
function options.value(where, name, rule, value)
  local checked, expected = types[rule[1]](value, rule, where, name)
  if checked == nil then options.fail("%s: %s: expected %s, got %s", where, name, expected, options.show(value)) end
  return checked
end

--- Refuses an option that says nothing beside what else was given: `expected` names what would give it a meaning, `got`
--- what is there instead.
function options.only_with(where, t, name, holds, expected, got)
  if t[name] ~= nil and not holds then
    options.fail("%s: %s: expected %s with it, got %s", where, name, expected, got)
  end
end

--- Names a function's rules.
--- @param where string the function: "lf.train", "model:predict"
--- @param rules table<string, table>
--- @return table<string, table>
function options.declare(where, rules)
  options.declared[where] = rules
  return rules
end

--- Rules of several tables in one; those of later ones count.
--- @param ... table<string, table>
--- @return table<string, table>
function options.merge(...)
  local merged = {}
  for _, rules in ipairs { ... } do
    for name, rule in pairs(rules) do merged[name] = rule end
  end
  return merged
end

--- The rules without some.
--- @param rules table<string, table>
--- @param ... string
--- @return table<string, table>
function options.without(rules, ...)
  local rest = options.merge(rules)
  for _, name in ipairs { ... } do rest[name] = nil end
  return rest
end

--- Checks a table of options against its rules and gives a new table with defaults filled in.
--- A rule is { type, … }: `required`, `default`, and the type's own: min, max, above, below, of, expected.
--- @param where string the function's name in messages
--- @param rules table<string, table>
--- @param given table|nil
--- @return table
function options.check(where, rules, given)
  if given == nil then given = {} end
  if options.kind(given) ~= "table" then
    options.fail("%s: expected a table of options, got %s", where, options.show(given))
  end
  for name in pairs(given) do
    if not rules[name] then
      local names = options.names(rules)
      local near = table.concat(options.nearest(tostring(name), names), ", ", 1, math.min(5, #names))
      options.fail("%s: unknown option %s; nearest: %s", where, options.show(name), near)
    end
  end
  local checked = {}
  for _, name in ipairs(options.names(rules)) do
    local rule, value = rules[name], rawget(given, name)
    if value == nil and not rule.required then
      checked[name] = rule.default
    else
      checked[name] = options.value(where, name, rule, value)
    end
  end
  return checked
end

--- A table whose missing names are errors that list those there are: `what` has no NAME.
function options.strict(t, what)
  return setmetatable(t, { __index = function(_, name)
    local names = options.names(t)
    local list = #names > 0 and table.concat(options.nearest(tostring(name), names), ", ") or "nothing"
    options.fail("%s has no %s; it has %s", what, options.show(name), list)
  end })
end

return options
