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

function files.is_folder(name)
  local stat = uv.fs_stat(name)
  return stat ~= nil and stat.type == "directory"
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

-- A file without a name in a folder, which nothing is left of; nil where the file system has none.
local function unnamed_file(folder)
  local O_TMPFILE = 1 << 22 -- with O_DIRECTORY, on Linux
  return uv.constants.O_DIRECTORY and
    uv.fs_open(folder, O_TMPFILE | uv.constants.O_DIRECTORY | uv.constants.O_RDWR, tonumber("600", 8)) or nil
end

--- Checks that `name` can be written, and makes its folder if `make`.
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
  local handle = unnamed_file(folder)
  if not handle then
    local trial, why = folder .. "/.lavaflow-trial" -- one name, so that a kill does not leave more and more
    handle, why = uv.fs_open(trial, "w", tonumber("600", 8))
    if not handle then return nil, ("%s: cannot be written: %s"):format(name, files.reason(folder, why)) end
    uv.fs_unlink(trial)
  end
  uv.fs_close(handle)
  return true
end

--- Makes a folder and those above it, with those that were not there added to `made`.
--- @param folder string
--- @param made string[]?
--- @return true? ok
--- @return string? message
function files.make_folder(folder, made) return make_folder(folder, made or {}) end

--- Replaces a small file so that a kill leaves the old one or the new one. For files that one process writes at a time.
--- @return true? ok
--- @return string? message
function files.replace(name, text)
  local trial = name .. ".tmp"
  local file, message = io.open(trial, "wb")
  if not file then return nil, message end
  local written, why = file:write(text)
  local closed, late = file:close()
  local ok, failure = true, nil
  if written and closed then ok, failure = uv.fs_rename(trial, name) end
  if written and closed and ok then return true end
  uv.fs_unlink(trial)
  return nil, ("%s: %s"):format(name, why or late or failure)
end

--- Removes what killed writers have left of a file beside it.
function files.remove_temporary(name)
  local prefix = "." .. path.basename(name) .. "."
  for _, other in ipairs(files.list(files.folder(name))) do
    if other:sub(1, #prefix) == prefix and other:find "%.tmp$" then files.remove(files.folder(name) .. "/" .. other) end
  end
end

--- Names in a folder, sorted; none when there is no such folder.
--- @return string[]
function files.list(folder)
  local names, scan = {}, uv.fs_scandir(folder)
  for name in scan and function() return uv.fs_scandir_next(scan) end or function() end do names[#names + 1] = name end
  table.sort(names)
  return names
end

--- What is equal for two names of one file, by whatever path or link. A file that is not there yet is known by its
--- folder.
--- @param name string
--- @return string
function files.place(name)
  local stat = uv.fs_stat(name)
  if stat then return ("%d %d"):format(stat.dev, stat.ino) end
  stat = uv.fs_stat(files.folder(name))
  return ("%s %s"):format(stat and ("%d %d"):format(stat.dev, stat.ino) or files.normal(files.folder(name)),
    path.basename(name))
end

--- Whether two names are one file.
function files.same(a, b) return files.place(a) == files.place(b) end

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
