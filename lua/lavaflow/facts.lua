-- What a step depends on, as facts that are compared one by one: its code, the values that it takes from around it, its
-- parameters, the content of its inputs, the plugin's version and, where it says so, its device.
local core = require "lavaflow.core"
local files = require "lavaflow.files"
local options = require "lavaflow.options"
local source = require "lavaflow.source"

local facts = {}

--- @class lavaflow.facts
--- @field version string
--- @field functions table<string, string> as lavaflow.code
--- @field values table<string, string>
--- @field params table<string, string> exact texts
--- @field inputs table<string, { path: string, sha256: string }>
--- @field modules table<string, string> tokens' sha256 of Lua files that were required while it ran, by path
--- @field device string?
--- @field read table<string, boolean>? the parameters that its code reads; nil: perhaps any
--- @field requires boolean its code requires modules

--- Gathers the facts of a step whose inputs are there.
--- @param flow lavaflow.workflow
--- @param step lavaflow.step
--- @param digests lavaflow.digests
--- @param device string? what it will run on
--- @return lavaflow.facts? # nil and a message: an input cannot be read
--- @return string? message
function facts.gather(flow, step, digests, device)
  local code = source.code(flow, step)
  local found = { version = core.version, functions = code.functions, values = code.values, params = {}, inputs = {},
    modules = {}, device = step.on_device and device or nil, read = code.read, requires = code.requires }
  for name, value in pairs(step.params) do found.params[tostring(name)] = facts.exact(value) end
  for _, name in ipairs(options.names(step.input)) do
    local path = step.input[name]
    local sha256, message = digests:of(path)
    if not sha256 then return nil, ("input %s: %s"):format(name, message) end
    found.inputs[name] = { path = path, sha256 = sha256 }
  end
  return found
end

-- A parameter, also one that is a table, as text.
function facts.exact(value)
  if type(value) ~= "table" then return source.exact(value) end
  local parts = {}
  for key, entry in pairs(value) do parts[#parts + 1] = ("[%s]=%s"):format(facts.exact(key), facts.exact(entry)) end
  table.sort(parts)
  return "{" .. table.concat(parts, ",") .. "}"
end

-- Those that the code reads; where the codes differ, the others do not matter any more.
local function only_read(found, read)
  local params = {}
  for name, value in pairs(found.params) do
    if not read or read[name] then params[name] = value end
  end
  return params
end

local function add_sorted(parts, kind, values)
  for _, name in ipairs(options.names(values)) do
    local value = values[name]
    if type(value) == "table" then value = value.path .. " " .. value.sha256 end
    parts[#parts + 1] = ("%s %s = %s"):format(kind, name, value)
  end
end

--- sha256 of the code, and of all facts.
--- @param found lavaflow.facts
--- @return string code
--- @return string key
function facts.keys(found)
  local parts = {}
  add_sorted(parts, "function", found.functions)
  add_sorted(parts, "value", found.values)
  local code = core.sha256(table.concat(parts, "\n"))
  parts = { "version " .. found.version, "code " .. code, "device " .. (found.device or "any") }
  add_sorted(parts, "parameter", only_read(found, found.read))
  add_sorted(parts, "input", found.inputs)
  return code, core.sha256(table.concat(parts, "\n"))
end

-- The words around the first place where two codes differ.
local function first_difference(old, new)
  local a, b = {}, {}
  for word in old:gmatch "%S+" do a[#a + 1] = word end
  for word in new:gmatch "%S+" do b[#b + 1] = word end
  local at = 1
  while a[at] and a[at] == b[at] do at = at + 1 end
  local from = math.max(1, at - 2)
  local function around(words) return table.concat(words, " ", from, math.min(#words, at + 3)) end
  return ("… %s … -> … %s …"):format(around(a), around(b))
end

local function short(sha256) return sha256 and sha256:sub(1, 12) or "nothing" end

-- Adds a line for each name whose values differ.
local function compare(lines, kind, old, new, differs)
  for _, name in ipairs(options.names(options.merge(old, new))) do
    local a, b = old[name], new[name]
    if a ~= b then lines[#lines + 1] = ("%s %s: %s"):format(kind, name, differs(a, b)) end
  end
end

local function arrow(a, b) return ("%s -> %s"):format(a or "not there", b or "not there") end

local function code_arrow(a, b) return a and b and first_difference(a, b) or arrow(a and "there", b and "there") end

--- Whether a table that was read from a file is one of facts.
function facts.valid(found)
  if type(found) ~= "table" or type(found.version) ~= "string" then return false end
  for _, name in ipairs { "functions", "values", "params", "inputs", "modules" } do
    if type(found[name]) ~= "table" then return false end
  end
  for _, input in pairs(found.inputs) do
    if type(input) ~= "table" or type(input.sha256) ~= "string" or type(input.path) ~= "string" then return false end
  end
  return true
end

local function compare_inputs(lines, old, new)
  for _, name in ipairs(options.names(options.merge(old, new))) do
    local a, b = old[name], new[name]
    if not (a and b) or a.sha256 ~= b.sha256 then
      lines[#lines + 1] = ("input %s: %s: content %s -> %s"):format(name, (b or a).path, short(a and a.sha256),
        short(b and b.sha256))
    end
  end
end

local function compare_modules(lines, old, texts)
  for _, path in ipairs(options.names(old)) do
    local text = texts(path)
    if not text or core.sha256(source.of_file(text)) ~= old[path] then
      lines[#lines + 1] = ("module %s: %s"):format(path, text and "changed" or "is not there any more")
    end
  end
end

--- Why the new facts ask for another run: a line each, with old and new values. None: they do not.
--- @param old lavaflow.facts of a run that is done, or was interrupted
--- @param new lavaflow.facts
--- @return string[]
function facts.compare(old, new)
  local lines = {}
  if old.version ~= new.version then lines[1] = "lavaflow: " .. arrow(old.version, new.version) end
  compare(lines, "code", old.functions, new.functions, code_arrow)
  compare(lines, "value", old.values, new.values, arrow)
  compare(lines, "parameter", only_read(old, new.read), only_read(new, new.read), arrow)
  compare_inputs(lines, old.inputs, new.inputs)
  compare_modules(lines, old.modules or {}, function(path) return files.is_file(path) and files.read(path) or nil end)
  if old.device ~= new.device then lines[#lines + 1] = "device: " .. arrow(old.device, new.device) end
  return lines
end

return facts
