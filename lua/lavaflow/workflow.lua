-- Loads a workflow script and puts its steps in order.
local steps = require "lavaflow.steps"
local options = require "lavaflow.options"
local files = require "lavaflow.files"

local workflow = {}

-- What a script may use: loading it only builds tables, so there is nothing that touches files or other programs.
local allowed = { "assert", "collectgarbage", "coroutine", "error", "getmetatable", "ipairs", "math", "next", "pairs",
  "pcall", "print", "rawequal", "rawget", "rawlen", "rawset", "select", "setmetatable", "string", "table", "tonumber",
  "tostring", "type", "utf8", "warn", "xpcall", "_VERSION" }
local hidden = { io = true, os = true, debug = true, package = true, _G = true }
-- Packages that a script gets from outside its folder: this one, and others that only compute.
local open_packages = { lavaflow = true, math = true, string = true, table = true, utf8 = true, coroutine = true,
  cjson = true, ["pl.tablex"] = true, ["pl.stringx"] = true, ["pl.List"] = true, ["pl.pretty"] = true,
  ["pl.seq"] = true }

-- `require` of a script: Lua files of its own folder in the script's environment, which the run file records, then what
-- is installed.
local function script_require(flow, env)
  local loaded = {}
  return function(name)
    if type(name) ~= "string" then options.fail("require: name: expected a text, got %s", options.show(name)) end
    if env[name] and hidden[name] then return env[name] end
    if hidden[name] then options.fail("require: %s: is not for workflows", name) end
    if loaded[name] ~= nil then return loaded[name] end
    local path = files.normal(files.folder(flow.path) .. "/" .. name:gsub("%.", "/") .. ".lua")
    local text = flow.sources[path] or (files.is_file(path) and assert(files.read(path)))
    if not text then
      if open_packages[name] then
        local package = require(name)
        flow.known[package] = "package " .. name
        return package
      end
      options.fail("require: %s: there is no %s, and no such package is for workflows", name, path)
    end
    flow.modules[#flow.modules + 1] = { path = path, text = text }
    flow.texts[path] = text
    local chunk, message = load(text, "@" .. path, "t", env)
    if not chunk then error(message, 0) end
    local value = chunk(name)
    loaded[name] = value == nil and true or value
    return loaded[name]
  end
end

local function environment(flow)
  local env = { os = { time = os.time, date = os.date, getenv = os.getenv, clock = os.clock, difftime = os.difftime } }
  for _, name in ipairs(allowed) do
    local value = _G[name]
    -- A copy of each library: what a script does to its `table` is no harm to the runner's.
    if type(value) == "table" then
      env[name] = {}
      flow.libraries[name] = env[name]
      for key, entry in pairs(value) do env[name][key] = entry end
    else
      env[name] = value
    end
  end
  env._G = env
  env.require = script_require(flow, env)
  for name, value in pairs(env) do
    if type(value) == "table" or type(value) == "function" then flow.known[value] = name end
    for key, entry in pairs(type(value) == "table" and value ~= env and value or {}) do
      if type(entry) == "table" or type(entry) == "function" then flow.known[entry] = name .. "." .. key end
    end
  end
  return env
end

-- Where outputs are in a folder of their own, so are the inputs that name them by their declared paths.
local function move_inputs(flow)
  for _, step in ipairs(flow.folder and flow.steps or {}) do
    for name, path in pairs(step.input) do
      local file, object = files.split_object(path)
      local moved = flow.declared[files.normal(file)]
      if moved then step.input[name] = object == "/" and moved or moved .. ":" .. object end
    end
  end
end

--- Loads a script. `overrides` are texts by parameter name.
--- @param path string
--- @param overrides table<string, string>
--- @param given { sources: table<string, string>?, folder: string?, silent: boolean? }? Lua files by path, which are
---   not read from the disk; a folder that the relative paths of outputs are put into; whether what the script prints
---   while it loads is dropped
--- @return lavaflow.workflow? # nil and a message: the script is wrong
--- @return string? message
function workflow.load(path, overrides, given)
  local sources = given and given.sources or {}
  local text, message = sources[path], nil
  if not text then text, message = files.read(path) end
  if not text then return nil, message end
  local flow = { path = path, name = files.stem(path), text = text, modules = {}, overrides = overrides,
    defaults = {}, params = {}, steps = {}, by_name = {}, makers = {},
    sources = sources, texts = { [path] = text }, tokens = {}, known = {}, libraries = {}, declared = {},
    folder = given and given.folder }
  flow.env = environment(flow)
  if given and given.silent then flow.env.print = function() end end
  local chunk, wrong = load((text:gsub("^#[^\n]*", "")), "@" .. path, "t", flow.env)
  if not chunk then return nil, wrong end
  local ok, failure = steps.collect(flow, chunk)
  if not ok then return nil, tostring(failure) end
  for _, name in ipairs(options.names(overrides)) do
    if flow.params[name] == nil then
      local near = table.concat(options.nearest(name, options.names(flow.params)), ", ")
      return nil, ("%s: has no parameter %s; it has %s"):format(path, options.show(name),
        near ~= "" and near or "none")
    end
  end
  if #flow.steps == 0 then return nil, path .. ": declares no step" end
  move_inputs(flow)
  local order, circle = workflow.select(flow, {})
  if not order then return nil, circle end
  return flow
end

--- What is said of a step that is not there.
function workflow.no_step(flow, name)
  return ('%s: has no step "%s"; it has %s'):format(flow.path, name,
    table.concat(options.nearest(name, options.names(flow.by_name)), ", "))
end

--- The steps whose outputs a step reads, in the order of its inputs' names.
function workflow.dependencies(flow, step)
  local found = {}
  for _, name in ipairs(options.names(step.input)) do
    local maker = flow.makers[files.normal(files.split_object(step.input[name]))]
    if maker then found[#found + 1] = maker end
  end
  return found
end

--- The named steps (all, if none is) and those they depend on, each after what it depends on, otherwise as in the
--- script. `only`: without those they depend on.
--- @return lavaflow.step[]? # nil and a message: no such step, or a cycle
--- @return string? message
function workflow.select(flow, names, only)
  local order, state, open = {}, {}, {}
  local function visit(step)
    if state[step] == "done" then return true end
    open[#open + 1] = step.name
    if state[step] then
      while open[1] ~= step.name do table.remove(open, 1) end
      return nil, ('%sstep "%s": depends on itself: %s'):format(step.position, step.name, table.concat(open, " <- "))
    end
    state[step] = "open"
    for _, other in ipairs(only and {} or workflow.dependencies(flow, step)) do
      local ok, message = visit(other)
      if not ok then return nil, message end
    end
    state[step] = "done"
    open[#open] = nil
    order[#order + 1] = step
    return true
  end
  local wanted = {}
  for _, name in ipairs(names) do
    if not flow.by_name[name] then return nil, workflow.no_step(flow, name) end
    wanted[name] = true
  end
  for _, step in ipairs(flow.steps) do
    if #names == 0 or wanted[step.name] then
      local ok, message = visit(step)
      if not ok then return nil, message end
    end
  end
  return order
end

return workflow
