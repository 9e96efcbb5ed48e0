-- Questions to the file system, and the few changes that a run makes to it.
local uv = require "luv"
local path = require "pl.path"
local core = require "lavaflow.core"

local files = {}

--- The content of a file, or nil and a message that names it.
function files.read(name)
  local stat, why = uv.fs_stat(name)
  if not stat then return nil, files.reason(name, why) end
  if stat.type ~= "file" then return nil, ("%s: expected a file, got a %s"):format(name, stat.type) end
  local file, message = io.open(name, "rb")
  if not file then return nil, message end
  local text = file:read "a"
  file:close()
  if not text then return nil, name .. ": cannot be read" end
  return text
end

--- "ENOENT: no such file or directory: x" of luv as "x: no such file or directory".
function files.reason(name, why)
  return name .. ": " .. (why:match "^%u+: (.-): " or why:match "^%u+: (.*)" or why)
end

--- The folder that a file is in.
function files.folder(name)
  local folder = path.dirname(name)
  return folder ~= "" and folder or "."
end

function files.is_file(name)
  local stat = uv.fs_stat(name)
  return stat ~= nil and stat.type == "file"
end

--- "raw.h5:/entry/x" as the file and the object in it; the whole file is "/".
function files.split_object(name)
  local file, object = name:match "^(.+%.[%w]+):(/.*)$"
  return file or name, object or "/"
end

--- sha256 of a file's logical content (an object's, if the name has one) if it is HDF5, else of its bytes.
--- nil and a message when it cannot be read.
function files.digest(name)
  local file, object = files.split_object(name)
  local stream, message = io.open(file, "rb")
  if not stream then return nil, message end
  local signature = stream:read(8)
  stream:close()
  if signature == "\137HDF\r\n\26\n" then
    local ok, result = pcall(core.h5_digest, file, object)
    if not ok and result:find "interrupted!$" then error(result, 0) end -- Ctrl-C, which is no failure of the file
    return ok and result or nil, result
  end
  local text, why = files.read(file)
  if not text then return nil, why end
  return core.sha256(text)
end

-- Makes a folder and those above it; adds those that were not there to `made`, the outer ones first.
local function make_folder(folder, made)
  local stat = uv.fs_stat(folder)
  if stat and stat.type == "directory" then return true end
  if stat then return nil, folder .. ": is not a folder" end
  local parent = path.dirname(folder)
  if parent ~= "" and parent ~= folder then
    local ok, message = make_folder(parent, made)
    if not ok then return nil, message end
  end
  local ok, why = uv.fs_mkdir(folder, tonumber("777", 8))
  if not ok then return nil, files.reason(folder, why) end
  made[#made + 1] = folder
  return true
end

--- Checks, by making and removing a file beside it, that `name` can be written, and makes its folder if `make`.
--- @param name string
--- @param make boolean
--- @param made string[]? gets the folders that were made
--- @return true? ok
--- @return string? message
function files.prepare_output(name, make, made)
  local stat = uv.fs_stat(name)
  if stat and stat.type ~= "file" then return nil, ("%s: is a %s, not a file"):format(name, stat.type) end
  local folder = files.folder(name)
  if make then
    local ok, message = make_folder(folder, made)
    if not ok then return nil, name .. ": " .. message end
  end
  local handle, trial = uv.fs_mkstemp(folder .. "/.lavaflow-XXXXXX")
  if not handle then return nil, ("%s: cannot be written: %s"):format(name, files.reason(folder, trial)) end
  uv.fs_close(handle)
  uv.fs_unlink(trial)
  return true
end

--- Whether two names are one file, by whatever path or link. A file that is not there yet is known by its folder.
function files.same(a, b)
  local one, other = uv.fs_stat(a), uv.fs_stat(b)
  if one and other then return one.ino == other.ino and one.dev == other.dev end
  if one or other or path.basename(a) ~= path.basename(b) then return false end
  one, other = uv.fs_stat(files.folder(a)), uv.fs_stat(files.folder(b))
  return one ~= nil and other ~= nil and one.ino == other.ino and one.dev == other.dev
end

function files.remove(name)
  uv.fs_unlink(name)
end

--- Removes those of the folders that are empty, the inner ones first.
function files.remove_folders(folders)
  for i = #folders, 1, -1 do uv.fs_rmdir(folders[i]) end
end

files.normal = path.normpath

--- "workflows/mnist.lua" as "mnist".
function files.stem(name)
  return (path.splitext(path.basename(name)))
end

return files
