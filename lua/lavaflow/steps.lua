-- lf.params and lf.step: what a workflow script declares while it loads. Nothing runs here.
local options = require "lavaflow.options"
local files = require "lavaflow.files"

local steps = {}

--- @class lavaflow.step
--- @field name string
--- @field input table<string, string> paths, or "file.h5:/object"
--- @field output table<string, string> paths
--- @field params table
--- @field resources { devices: integer|"all" }
--- @field checkpoint lavaflow.step_checkpoint_options
--- @field on_device boolean a change of the device makes it run again
--- @field run fun(s: lavaflow.session)
--- @field position string "FILE:LINE: " of its declaration

--- @class lavaflow.workflow
--- @field path string of the script
--- @field name string
--- @field text string the script
--- @field modules { path: string, text: string }[] Lua files that it required from its own folder
--- @field overrides table<string, string> `key=value` of the command line
--- @field defaults table<string, number|string|boolean>
--- @field params table<string, number|string|boolean> after overrides
--- @field steps lavaflow.step[] in the order of the script
--- @field by_name table<string, lavaflow.step>
--- @field makers table<string, lavaflow.step> by normal path of each output
--- @field texts table<string, string> the Lua files that were loaded, by path
--- @field known table<any, string> what is not the script's own, by what it is called
--- @field env table the script's globals
--- @field declared table<string, string> where the outputs are, by normal path as the script gives it
--- @field libraries table<string, table> Lua's own, as the script has them
--- @field folder string? that the relative paths of outputs are in

local loading -- the workflow whose script is being loaded

--- Runs `fn` with declarations going to `workflow`. Gives true, or false and the message.
function steps.collect(workflow, fn)
  loading = workflow
  local ok, message = xpcall(options.script, options.locate, fn)
  loading = nil
  return ok, message
end

--- Refuses work while a script is loaded, which happens more often than its steps run.
--- @param where string the function's name in messages
function steps.only_in_run(where)
  if loading then options.fail("%s: expected in the run of a step, since loading a workflow only declares", where) end
end

local function the_workflow(where)
  if not loading then
    options.fail("%s: expected a workflow that is being loaded: `lavaflow run FILE.lua` runs one", where)
  end
  return loading
end

local expectations = { integer = "a whole number", float = "a number", boolean = "true or false", string = "a text" }

-- The text of `key=value` as a value of the default's kind, or nil.
local function parse(text, kind)
  if kind == "string" then return text end
  if kind == "boolean" then return ({ ["true"] = true, ["false"] = false })[text] end
  local value = tonumber(text)
  if not value or value - value ~= 0 then return nil end
  if kind == "integer" then return math.tointeger(value) end
  return value + 0.0
end

--- Declares parameters with their defaults; `key=value` on the command line replaces one and must be of its type.
--- @generic T: table<string, number|string|boolean>
--- @param defaults T
--- @return T # reading a name that is not there raises
function steps.params(defaults)
  local workflow = the_workflow "lf.params"
  options.value("lf.params", "defaults", { "table", expected = "a table of parameters" }, defaults)
  local values = {}
  for name, default in pairs(defaults) do
    options.value("lf.params", "parameter " .. options.show(name), { "name" }, name)
    local kind = math.type(default) or type(default)
    if not expectations[kind] then
      options.fail("lf.params: %s: expected a number, a text, true or false, got %s", name, options.show(default))
    end
    if workflow.params[name] ~= nil then options.fail("lf.params: %s: is declared twice", name) end
    local value, text = default, workflow.overrides[name]
    if text then
      value = parse(text, kind)
      if value == nil then
        local expected = expectations[kind]
        error(("%s=%s: expected %s, as the default %s is"):format(name, text, expected, options.show(default)), 0)
      end
    end
    values[name], workflow.params[name], workflow.defaults[name] = value, value, default
  end
  return options.strict(values, "lf.params")
end

local resource_rules = options.declare("lf.step: resources", {
  devices = { "either", of = { { "whole", min = 0, max = 64 }, { "choice", of = { "all" } } }, default = 1,
    expected = 'a whole number in 0..64 or "all"' },
})
local checkpoint_rules = options.declare("lf.step: checkpoint", {
  seconds = { "number", above = 0 },
  steps = { "whole", min = 1 },
  keep = { "whole", min = 1 },
})
local step_rules = options.declare("lf.step", {
  input = { "table", expected = "a table of paths" },
  output = { "table", expected = "a table of paths" },
  params = { "table", expected = "a table of parameters" },
  resources = { "options", expected = "a table such as { devices = 2 }", rules = resource_rules },
  checkpoint = { "options", expected = "a table such as { seconds = 60 }", rules = checkpoint_rules },
  on_device = { "boolean", default = false },
  run = { "function", required = true },
})
local PATH = { "text", expected = "a path" }

-- `flow`: where relative paths begin is its folder's.
local function paths(where, field, given, flow)
  local checked, folder = {}, flow and flow.folder
  for name, value in pairs(given or {}) do
    options.value(where, field .. " " .. options.show(name), { "name" }, name)
    local path = options.value(where, field .. " " .. name, PATH, value)
    if folder and path:sub(1, 1) == "/" and folder:sub(1, 1) ~= "/" then
      options.fail("%s: %s %s: %s: expected a relative path, since each run of a sweep has a folder of its own",
        where, field, name, path)
    end
    checked[name] = folder and folder .. "/" .. path or path
    if flow then flow.declared[files.normal(path)] = checked[name] end
  end
  return options.strict(checked, ("%s: %s"):format(where, field))
end

-- Parameters are numbers, texts, booleans and tables of them, so that they can be compared with those of another run.
local function check_params(where, values, path, above)
  if above[values] then options.fail("%s: %s: expected a table that does not contain itself", where, path) end
  above[values] = true
  for key, value in pairs(values) do
    local name = ("%s.%s"):format(path, tostring(key))
    local kind = type(value)
    if kind == "table" then
      check_params(where, value, name, above)
    elseif kind ~= "number" and kind ~= "string" and kind ~= "boolean" then
      options.fail("%s: %s: expected a number, a text, true or false, or a table of them, got %s", where, name,
        options.show(value))
    end
  end
  above[values] = nil
end

local function declare(workflow, name, given)
  local where = ('step "%s"'):format(name)
  local step = options.check(where, step_rules, given)
  step.name, step.position = name, options.position()
  step.resources = step.resources or options.check(where, resource_rules, {})
  step.checkpoint = step.checkpoint or {}
  step.input = paths(where, "input", step.input)
  step.output = paths(where, "output", step.output, workflow)
  check_params(where, step.params or {}, "params", {})
  step.params = getmetatable(step.params) and step.params or options.strict(step.params or {}, where .. ": params")
  if workflow.by_name[name] then options.fail("%s: is declared twice", where) end
  for _, path in pairs(step.output) do
    local normal = files.normal(path)
    local other = workflow.makers[normal]
    if other then options.fail('%s: output %s: step "%s" writes it too', where, path, other.name) end
    workflow.makers[normal] = step
  end
  workflow.steps[#workflow.steps + 1] = step
  workflow.by_name[name] = step
  return step
end

--- @class lavaflow.step_resources_options
--- @field devices? integer|"all" how many device slots it holds while it runs, 1; its trainings use those of several

--- @class lavaflow.step_checkpoint_options
--- @field seconds? number between two checkpoints, 60 or what the command line says
--- @field steps? integer of training; written then too
--- @field keep? integer so many of the last ones go into the run file, for `lavaflow verify --segments`

--- @class lavaflow.step_options
--- @field input? table<string, string> what it reads, by name: paths, or "file.h5:/object"
--- @field output? table<string, string> the files it writes, by name
--- @field params? table for s.params; those that `run` reads are what it depends on
--- @field resources? lavaflow.step_resources_options
--- @field checkpoint? lavaflow.step_checkpoint_options of trainings that name none of their own
--- @field on_device? boolean another device makes it run again, false
--- @field run fun(s: lavaflow.session)

--- Declares a step: `lf.step "train" { input = {…}, output = {…}, params = P, run = function(s) … end }`. It depends on
--- the steps whose outputs are its inputs.
--- @param name string letters, digits, _ and -
--- @return fun(given: lavaflow.step_options): lavaflow.step
function steps.step(name)
  local workflow = the_workflow "lf.step"
  options.value("lf.step", "name", { "name" }, name)
  return function(given)
    if loading ~= workflow then the_workflow "lf.step" end
    return declare(workflow, name, given)
  end
end

return steps
