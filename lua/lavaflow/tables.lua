-- Numbers, columns and lines on standard output, as the commands that read run files print them.
local tables = {}

--- Writes to standard output; raises when it cannot be written.
function tables.write(...)
  local ok, why = io.stdout:write(...)
  if not ok then error("standard output: " .. why, 0) end
end

--- Brings what was written to its reader.
function tables.flush()
  local ok, why = io.stdout:flush()
  if not ok then error("standard output: " .. why, 0) end
end

local function special(value)
  if value ~= value then return "nan" end
  return value == math.huge and "inf" or value == -math.huge and "-inf" or nil
end

--- A number for people: six digits.
function tables.number(value)
  return math.type(value) == "integer" and tostring(value) or special(value) or ("%.6g"):format(value)
end

--- A number with all of its digits.
function tables.exact(value)
  return math.type(value) == "integer" and tostring(value) or special(value) or ("%.17g"):format(value)
end

--- A number or a text.
function tables.text(value)
  return type(value) == "number" and tables.number(value) or tostring(value)
end

--- How many columns a text takes.
function tables.width(text) return utf8.len(text) or #text end

--- Rows as lines: columns as wide as their widest cell, two spaces between.
--- @param rows string[][]
--- @return string[]
function tables.lines(rows)
  local widths, lines = {}, {}
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do widths[i] = math.max(widths[i] or 0, tables.width(cell)) end
  end
  for i, row in ipairs(rows) do
    local cells = {}
    for j, cell in ipairs(row) do cells[j] = cell .. (" "):rep(widths[j] - tables.width(cell)) end
    lines[i] = (table.concat(cells, "  "):gsub(" +$", ""))
  end
  return lines
end

--- Writes rows as lines.
--- @param rows string[][]
--- @param indent string
function tables.write_rows(rows, indent)
  for _, line in ipairs(tables.lines(rows)) do tables.write(indent, line, "\n") end
end

return tables
