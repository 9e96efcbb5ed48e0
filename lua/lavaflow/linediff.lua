-- What changed between two texts, line by line.
local linediff = {}

local CONTEXT, LIMIT = 3, 4000000 -- lines; cells of the table

local function split(text)
  local lines = {}
  for line in (text:gsub("\n$", "") .. "\n"):gmatch "([^\n]*)\n" do lines[#lines + 1] = line end
  return text == "" and {} or lines
end

-- The length of the longest common subsequence of what follows line i of `a` and line j of `b`, as rows [i][j].
local function common(a, b, first, last_a, last_b)
  local rows = { [last_a + 1] = setmetatable({}, { __index = function() return 0 end }) }
  for i = last_a, first, -1 do
    local row, below = { [last_b + 1] = 0 }, rows[i + 1]
    for j = last_b, first, -1 do row[j] = a[i] == b[j] and below[j + 1] + 1 or math.max(below[j], row[j + 1]) end
    rows[i] = row
  end
  return rows
end

-- Every line of both with " ", "-" or "+".
local function edits(a, b)
  local first, last_a, last_b, list = 1, #a, #b, {}
  while first <= last_a and first <= last_b and a[first] == b[first] do first = first + 1 end
  while last_a >= first and last_b >= first and a[last_a] == b[last_b] do last_a, last_b = last_a - 1, last_b - 1 end
  local small = (last_a - first + 1) * (last_b - first + 1) <= LIMIT
  local rows = small and common(a, b, first, last_a, last_b)
  local function add(sign, line) list[#list + 1] = { sign = sign, line = line } end
  for i = 1, first - 1 do add(" ", a[i]) end
  local i, j = first, first
  while i <= last_a or j <= last_b do
    if rows and i <= last_a and j <= last_b and a[i] == b[j] then
      add(" ", a[i])
      i, j = i + 1, j + 1
    elseif i <= last_a and (j > last_b or not rows or rows[i + 1][j] >= rows[i][j + 1]) then
      add("-", a[i])
      i = i + 1
    else
      add("+", b[j])
      j = j + 1
    end
  end
  for k = last_a + 1, #a do add(" ", a[k]) end
  return list
end

local function hunk_head(list, from, to)
  local begin, count = { ["-"] = 1, ["+"] = 1 }, { ["-"] = 0, ["+"] = 0 }
  for k = 1, to do
    local sign = list[k].sign
    for _, side in ipairs { "-", "+" } do
      if sign == " " or sign == side then
        local counts = k < from and begin or count
        counts[side] = counts[side] + 1
      end
    end
  end
  local function range(side)
    return ("%s%d,%d"):format(side, begin[side] - (count[side] == 0 and 1 or 0), count[side])
  end
  return ("@@ %s %s @@"):format(range "-", range "+")
end

--- The differences as `diff -u` prints them, without the lines that name the files; none for equal texts.
--- @param old string
--- @param new string
--- @return string[]
function linediff.unified(old, new)
  local list, lines, k = edits(split(old), split(new)), {}, 1
  while k <= #list do
    if list[k].sign ~= " " then
      local from, last = math.max(1, k - CONTEXT), k
      while k <= #list and k - last <= 2 * CONTEXT do
        if list[k].sign ~= " " then last = k end
        k = k + 1
      end
      local to = math.min(#list, last + CONTEXT)
      lines[#lines + 1] = hunk_head(list, from, to)
      for at = from, to do lines[#lines + 1] = list[at].sign .. list[at].line end
      k = to + 1
    else
      k = k + 1
    end
  end
  return lines
end

return linediff
