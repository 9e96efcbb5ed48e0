-- What the Lua tests share: the environment's paths, folders that vanish, processes, fixtures.
local uv = require "luv"

local helper = {}

local function environment(name)
  return assert(os.getenv(name), name .. " is not set; run the tests with ctest")
end

helper.source = environment "LAVAFLOW_SOURCE"
helper.lavaflow = environment "LAVAFLOW_BIN"
helper.lua = environment "LAVAFLOW_LUA"
helper.python = environment "LAVAFLOW_PYTHON"
helper.test_data = environment "LAVAFLOW_TEST_DATA"

--- The device that a test runs on, and whether this machine has it.
helper.device = os.getenv "LAVAFLOW_TEST_DEVICE" or "cpu"
helper.device_present = false
for _, info in ipairs(require("lavaflow.core").devices()) do
  if info.id == helper.device and not info.unavailable then helper.device_present = true end
end

--- A new folder, which `helper.remove` removes with all that is in it.
function helper.folder()
  return assert(uv.fs_mkdtemp((os.getenv "TMPDIR" or "/tmp") .. "/lavaflow-test-XXXXXX"))
end

function helper.remove(path)
  local stat = uv.fs_lstat(path)
  if not stat then return end
  if stat.type ~= "directory" then
    assert(uv.fs_unlink(path))
    return
  end
  for _, name in ipairs(helper.list(path)) do helper.remove(path .. "/" .. name) end
  assert(uv.fs_rmdir(path))
end

--- Names in a folder, sorted.
function helper.list(path)
  local names, scan = {}, assert(uv.fs_scandir(path))
  for name in function() return uv.fs_scandir_next(scan) end do names[#names + 1] = name end
  table.sort(names)
  return names
end

--- Paths of the files below a folder, relative to it, sorted.
function helper.files(path, prefix, found)
  prefix, found = prefix or "", found or {}
  for _, name in ipairs(helper.list(path .. "/" .. prefix)) do
    local below = prefix .. name
    if uv.fs_stat(path .. "/" .. below).type == "directory" then
      helper.files(path, below .. "/", found)
    else
      found[#found + 1] = below
    end
  end
  return found
end

function helper.exists(path)
  return uv.fs_stat(path) ~= nil
end

function helper.read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read "a"
  file:close()
  return text
end

function helper.write(path, text)
  local file = assert(io.open(path, "wb"))
  assert(file:write(text))
  assert(file:close())
  return path
end

-- Other programs run without the sanitizer that the plugin may need.
local function child_environment(given)
  local values, list = uv.os_environ(), {}
  if given.plain then values.LD_PRELOAD = nil end
  for name, value in pairs(given.env or {}) do values[name] = value end
  for name, value in pairs(values) do list[#list + 1] = name .. "=" .. value end
  return list
end

--- Runs a program to its end.
--- @param command string[]
--- @param given { cwd: string?, env: table?, plain: boolean?, detached: boolean?,
---   on_output: fun(text: string, process: userdata)?, on_start: fun(process: userdata)? }?
--- @return { code: integer, signal: integer, out: string, err: string }
function helper.run(command, given)
  given = given or {}
  local out, err = uv.new_pipe(), uv.new_pipe()
  local result, text = {}, { [out] = {}, [err] = {} }
  local process, why
  process, why = uv.spawn(command[1], {
    args = table.move(command, 2, #command, 1, {}), stdio = { nil, out, err }, cwd = given.cwd,
    env = child_environment(given), detached = given.detached,
  }, function(code, signal)
    result.code, result.signal = code, signal
    process:close()
  end)
  assert(process, ("%s: %s"):format(command[1], why))
  if given.on_start then given.on_start(process) end
  for pipe, pieces in pairs(text) do
    pipe:read_start(function(_, piece)
      if not piece then
        pipe:close()
        return
      end
      pieces[#pieces + 1] = piece
      if pipe == out and given.on_output then given.on_output(table.concat(pieces), process) end
    end)
  end
  uv.run()
  result.out, result.err = table.concat(text[out]), table.concat(text[err])
  return result
end

--- Whether this machine has terminals to give (a mounted /dev/pts).
function helper.has_terminals()
  return helper.run({ helper.python, "-c", "import os; os.openpty()" }, { plain = true }).code == 0
end

--- Runs the command line in a folder.
function helper.cli(folder, ...)
  return helper.run({ helper.lavaflow, ... }, { cwd = folder })
end

--- Small data set files, right and wrong (make_data.py), in a folder.
function helper.fixtures(folder)
  local made = helper.run({ helper.python, helper.source .. "/tests/lua/make_data.py", folder }, { plain = true })
  assert(made.code == 0, made.err)
end

--- The message that a function raises; fails when it raises none.
function helper.message(fn, ...)
  local ok, message = pcall(fn, ...)
  assert(not ok, "expected an error")
  return message
end

--- Fails unless the function raises a message that holds `part`.
function helper.refused(part, fn, ...)
  local ok, message = pcall(fn, ...)
  if ok then error(("expected an error with\n  %s"):format(part), 2) end
  if not tostring(message):find(part, 1, true) then
    error(("expected an error with\n  %s\ngot\n  %s"):format(part, message), 2)
  end
end

--- Fails unless two numbers, or arrays of numbers, differ by at most `bound`.
function helper.near(expected, got, bound, what)
  if type(expected) == "table" then
    if #expected ~= #got then error(("%s: expected %d values, got %d"):format(what or "", #expected, #got), 2) end
    for i, value in ipairs(expected) do helper.near(value, got[i], bound, ("%s[%d]"):format(what or "", i)) end
  elseif got ~= got or math.abs(expected - got) > bound then
    error(("%s: expected %.9g within %g, got %.9g"):format(what or "", expected, bound, got), 2)
  end
end

--- Fails unless `text` holds `part` as it stands.
function helper.has(text, part)
  if not text:find(part, 1, true) then error(("expected a text with\n  %s\ngot\n  %s"):format(part, text), 2) end
end

return helper
