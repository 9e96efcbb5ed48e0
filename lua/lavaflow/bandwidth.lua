-- `lavaflow devices --bandwidth`: how fast gradients move between devices and the host, and how long an exchange takes.
local cjson = require "cjson"
local core = require "lavaflow.core"
local tables = require "lavaflow.tables"

local bandwidth = {}

local SIZES = { 1000000, 10000000, 100000000 } -- bytes

-- The list of a device, of each pair and, where there are more than two, of all.
local function lists_of(devices)
  local lists = {}
  for _, device in ipairs(devices) do lists[#lists + 1] = { device } end
  for i, one in ipairs(devices) do
    for j = i + 1, #devices do lists[#lists + 1] = { one, devices[j] } end
  end
  if #devices > 2 then lists[#lists + 1] = devices end
  return lists
end

local function measure(devices)
  local ids = {}
  for i, device in ipairs(devices) do ids[i] = device.id end
  local entry = { devices = ids }
  local ok, found = pcall(core.bandwidth, ids, SIZES)
  if not ok then
    if tostring(found):find "interrupted!$" then error(found, 0) end -- Ctrl-C, which is no failure of the devices
    entry.failure = found
    return entry
  end
  entry.exchanges = found
  for i, seconds in ipairs(found) do
    seconds.bytes = SIZES[i]
    seconds.seconds = seconds.read + seconds.sum + seconds.write
  end
  return entry
end

local function gigabytes(bytes, seconds) return seconds > 0 and ("%.2f"):format(bytes / seconds / 1e9) or "" end

local function milliseconds(seconds) return ("%.2f"):format(seconds * 1e3) end

local function sizes_of(title, unit)
  local row = { title }
  for _, bytes in ipairs(SIZES) do row[#row + 1] = ("%s MB, %s"):format(bytes // 1000000, unit) end
  return row
end

local function add_row(rows, name, entry, text)
  local row = { name }
  if entry.failure then row[2] = entry.failure end
  for _, seconds in ipairs(entry.exchanges or {}) do row[#row + 1] = text(seconds) end
  rows[#rows + 1] = row
end

local function write_tables(entries)
  local transfers, exchanges = { sizes_of("transfer", "GB/s") }, { sizes_of("exchange of gradients", "ms") }
  for _, entry in ipairs(entries) do
    local name = table.concat(entry.devices, ",")
    if #entry.devices == 1 then
      add_row(transfers, name .. " write", entry, function(s) return gigabytes(s.bytes, s.write) end)
      add_row(transfers, name .. " read", entry, function(s) return gigabytes(s.bytes, s.read) end)
    else
      add_row(exchanges, name, entry, function(s) return milliseconds(s.seconds) end)
      local first = entry.exchanges and entry.exchanges[1]
      if first and first.linked then
        add_row(exchanges, name .. " linked", entry, function(s) return milliseconds(s.linked) end)
      end
    end
  end
  tables.write_rows(transfers, "")
  if #exchanges == 1 then return end
  tables.write "\n"
  tables.write_rows(exchanges, "")
end

--- Measures every usable device, every pair of them, and all together, and prints it.
--- @param json boolean?
function bandwidth.print(json)
  local usable, entries = {}, {}
  for _, device in ipairs(core.devices()) do
    if not device.unavailable then usable[#usable + 1] = device end
  end
  for i, devices in ipairs(lists_of(usable)) do entries[i] = measure(devices) end
  if json then
    tables.write(cjson.encode(entries), "\n")
  else
    write_tables(entries)
  end
end

return bandwidth
