-- What a step's code is, apart from how it is laid out: the tokens of its `run` and of the Lua functions that it calls,
-- and the values that they take from around them. facts.lua asks.
local lexer = require "pl.lexer"
local options = require "lavaflow.options"

local source = {}

--- @class lavaflow.code
--- @field functions table<string, string> tokens of `run` and of each function that it reaches ("util.clip")
--- @field values table<string, string> exact text of each value that these take from around them, by name
--- @field read table<string, boolean>? the fields that `run` takes of its session's params; nil: perhaps any
--- @field requires boolean one of the functions requires modules

-- What `run` itself is called: no name in a script.
local RUN = "(run)"

-- The tokens of a Lua text with the line each begins in.
local function tokenise(text)
  local tokens, line = {}, 1
  for kind, token in lexer.lua(text .. "\n", {}, {}) do
    if kind ~= "space" and kind ~= "comment" then
      tokens[#tokens + 1] = { text = token, line = line, is_name = kind == "iden" }
    end
    for _ in token:gmatch "\n" do line = line + 1 end
  end
  return tokens
end

local opens = { ["function"] = true, ["do"] = true, ["if"] = true }

-- The `end` that closes the function that begins at `first`.
local function closing(tokens, first)
  local depth = 0
  for i = first, #tokens do
    local text = tokens[i].text
    if opens[text] then
      depth = depth + 1
    elseif text == "end" then
      depth = depth - 1
      if depth == 0 then return i end
    end
  end
  return #tokens
end

-- The tokens of a function, from its `function` to its `end`; where several have the same first and last line, all of
-- these lines.
local function tokens_of(tokens, first_line, last_line)
  local from, to, count = nil, nil, 0
  for i, token in ipairs(tokens) do
    if token.line == first_line and token.text == "function" then
      local last = closing(tokens, i)
      if tokens[last].line == last_line then from, to, count = i, last, count + 1 end
    end
  end
  local found = {}
  if count == 1 then return table.move(tokens, from, to, 1, found) end
  for _, token in ipairs(tokens) do
    if token.line >= first_line and token.line <= last_line then found[#found + 1] = token end
  end
  return found
end

--- A plain value as text that tells all values apart, floats to the last bit, and that a person can read.
--- @param value nil|boolean|number|string
--- @return string
function source.exact(value)
  if math.type(value) == "float" then
    for _, format in ipairs { "%.6g", "%.15g", "%.17g" } do
      local text = format:format(value)
      if tonumber(text) == value then return math.type(tonumber(text)) == "float" and text or text .. ".0" end
    end
  end
  return type(value) == "string" and ("%q"):format(value) or tostring(value)
end

-- The uses of a variable: positions of its name where that is no field's.
local function uses_of(tokens, name)
  local list = {}
  for i, token in ipairs(tokens) do
    local before = tokens[i - 1] and tokens[i - 1].text
    if token.is_name and token.text == name and before ~= "." and before ~= ":" then list[#list + 1] = i end
  end
  return list
end

-- The name in ".NAME" at a position, when nothing is assigned to it.
local function field_at(tokens, i)
  local mark, field, after = tokens[i], tokens[i + 1], tokens[i + 2]
  if not mark or mark.text ~= "." or not field or not field.is_name then return nil end
  if after and after.text == "=" then return nil end
  return field.text
end

-- The fields that a code takes of a variable, when it takes nothing else of it; nil when it uses the whole.
local function fields_of(tokens, name)
  local fields = {}
  for _, i in ipairs(uses_of(tokens, name)) do
    local field = field_at(tokens, i + 1)
    if not field then return nil end
    fields[field] = true
  end
  return fields
end

-- The parameters that `function(s) … end` reads as `s.params.NAME`, when it does nothing else with them, nor with `s`
-- but reading fields and calling methods; nil when it does.
local function params_of(tokens)
  local open = 2
  while tokens[open] and (tokens[open].is_name or tokens[open].text == "." or tokens[open].text == ":") do
    open = open + 1 -- the function's name
  end
  if tokens[1].text ~= "function" or not tokens[open] or tokens[open].text ~= "(" then return nil end
  local session, names = tokens[open + 1], {}
  if session.text == ")" then return names end
  if not session.is_name then return nil end
  for k, i in ipairs(uses_of(tokens, session.text)) do
    local mark = k > 1 and tokens[i + 1] and tokens[i + 1].text
    if k > 1 and mark ~= ":" then
      local field = field_at(tokens, i + 1)
      local name = field == "params" and field_at(tokens, i + 3)
      if not field or (field == "params" and not name) then return nil end
      if name then names[name] = true end
    end
  end
  return names
end

local Walk = {}
Walk.__index = Walk

local function key_order(a, b)
  if type(a) == type(b) and (type(a) == "string" or type(a) == "number") then return a < b end
  return type(a) == type(b) and tostring(a) < tostring(b) or type(a) < type(b)
end

-- Handles by what they hold: a model's layers and weights, a data set's file.
local function show_handle(value)
  if options.kind(value) == "lavaflow.model" then
    return ("model %s %s"):format(value:definition(), value:initialised() and value:digest() or "without weights")
  end
  return tostring(value)
end

function Walk:table(value, path, fields)
  if self.seen[value] then
    self.code.values[path] = "as " .. self.seen[value]
    return
  end
  if not fields then self.seen[value] = path end
  local keys = {}
  for key in pairs(fields or value) do keys[#keys + 1] = key end
  table.sort(keys, key_order)
  if #keys == 0 then self.code.values[path] = "{}" end
  for _, key in ipairs(keys) do
    local plain = type(key) == "string" and key:find "^[%a_][%w_]*$"
    self:value(rawget(value, key), plain and path .. "." .. key or ("%s[%s]"):format(path, source.exact(key)))
  end
  local meta = debug.getmetatable(value)
  if meta then self:value(meta, path .. " (metatable)") end
end

-- `fields`: only these of a table.
function Walk:value(value, path, fields)
  local kind = type(value)
  if self.flow.known[value] then
    self.code.values[path] = self.flow.known[value]
  elseif kind == "function" then
    self:fn(value, path)
  elseif kind == "table" then
    self:table(value, path, fields)
  elseif kind == "userdata" or kind == "thread" then
    self.code.values[path] = show_handle(value)
  else
    self.code.values[path] = source.exact(value)
  end
end

function Walk:tokens(info)
  local name = info.source:sub(2)
  local text = self.flow.texts[name]
  if not text then return nil end
  self.flow.tokens[name] = self.flow.tokens[name] or tokenise(text)
  return tokens_of(self.flow.tokens[name], info.linedefined, info.lastlinedefined)
end

function Walk:fn(fn, path)
  if self.seen[fn] then
    self.code.values[path] = "as " .. self.seen[fn]
    return
  end
  self.seen[fn] = path
  local tokens = self:tokens(debug.getinfo(fn, "S"))
  if not tokens then -- of Lua, of this package or of an installed one
    self.code.values[path] = "a function of a package"
    return
  end
  local words = {}
  for i, token in ipairs(tokens) do words[i] = token.text end
  self.code.functions[path] = table.concat(words, " ")
  if path == RUN then self.code.read = params_of(tokens) end
  for _, token in ipairs(tokens) do self.code.requires = self.code.requires or token.text == "require" end
  local prefix = path == RUN and "" or path .. "/"
  for i = 1, 255 do
    local name, value = debug.getupvalue(fn, i)
    if not name then break end
    if name == "_ENV" then
      self:globals(tokens, value)
    else
      self:value(value, prefix .. name, type(value) == "table" and fields_of(tokens, name) or nil)
    end
  end
end

-- What a function takes of the globals that the script has set, and what this has changed in Lua's own libraries.
function Walk:globals(tokens, env)
  if env ~= self.flow.env then return end
  for _, name in ipairs(options.names(self.flow.libraries)) do
    local library = self.flow.libraries[name]
    for _, key in ipairs(options.names(library)) do
      if library[key] ~= _G[name][key] then self:value(library[key], name .. "." .. key) end
    end
  end
  for _, token in ipairs(tokens) do
    if token.text == "_G" or token.text == "_ENV" then return self:all_globals(env) end
  end
  for _, token in ipairs(tokens) do
    local value = nil
    if token.is_name then value = rawget(env, token.text) end
    if value ~= nil and not self.flow.known[value] and not self.code.values[token.text] then
      self:value(value, token.text, type(value) == "table" and fields_of(tokens, token.text) or nil)
    end
  end
end

function Walk:all_globals(env)
  for _, name in ipairs(options.names(env)) do
    if not self.flow.known[env[name]] then self:value(env[name], name) end
  end
end

--- What the code of a step is. `flow.texts` has the Lua sources by name, `flow.known` what is not the script's own.
--- @param flow lavaflow.workflow
--- @param step lavaflow.step
--- @return lavaflow.code
function source.code(flow, step)
  local code = { functions = {}, values = {}, requires = false }
  local walk = setmetatable({ flow = flow, code = code, seen = {} }, Walk)
  walk:fn(step.run, RUN)
  -- What a function requires may be there already: then all of it counts.
  for _, module in ipairs(walk.code.requires and flow.modules or {}) do
    walk.code.functions["module " .. module.path] = source.of_file(module.text)
  end
  return walk.code
end

--- The tokens of a whole file, for one that a step requires while it runs.
--- @param text string
--- @return string
function source.of_file(text)
  local words = {}
  for i, token in ipairs(tokenise(text)) do words[i] = token.text end
  return table.concat(words, " ")
end

return source
