-- `--sweep`: a workflow once for each combination of values, each with outputs and a run file of its own.
local sweep = {}

-- "1e-3,1e-2" as a list.
local function values_of(text)
  local list = {}
  for value in (text .. ","):gmatch "([^,]*)," do list[#list + 1] = value end
  return list
end

--- Every combination of the values that the overrides list.
--- @param overrides table<string, string> "1e-3,1e-2" by name
--- @param names string[] in the order in which they vary, the last one fastest
--- @return { overrides: table<string, string>, label: string }[] # "lr=1e-3,hidden=64"
function sweep.combinations(overrides, names)
  local list = { { overrides = {}, label = "" } }
  for _, name in ipairs(names) do
    local longer, values = {}, values_of(overrides[name])
    for _, entry in ipairs(list) do
      for _, value in ipairs(values) do
        local copy = { [name] = value }
        for key, other in pairs(entry.overrides) do copy[key] = other end
        local label = #values > 1 and ("%s=%s"):format(name, value) or ""
        local comma = entry.label ~= "" and label ~= "" and "," or ""
        longer[#longer + 1] = { overrides = copy, label = entry.label .. comma .. label }
      end
    end
    list = longer
  end
  return list
end

--- The folder of one combination's outputs.
--- @param flow string name of the workflow
--- @param label string
--- @return string
function sweep.folder(flow, label)
  return ("sweeps/%s/%s"):format(flow, label:gsub("[^%w=,._+-]", "_"))
end

return sweep
