-- The reference page and the comments that editors read, held against the rules that the functions check options by.
local lf = require "lavaflow"
local options = require "lavaflow.options"
local session = require "lavaflow.session"
local helper = require "helper"

local function lines_of(path)
  local lines = {}
  for line in (helper.read(path):gsub("\r", "") .. "\n"):gmatch "(.-)\n" do lines[#lines + 1] = line end
  return lines
end

local page = lines_of(helper.source .. "/lua/REFERENCE.md")

-- The cells of a row of a table, or nil.
local function cells(line)
  local inner = line:match "^|(.*)|$"
  if not inner then return nil end
  local row = {}
  for cell in (inner .. "|"):gmatch "(.-)|" do row[#row + 1] = cell:match "^%s*(.-)%s*$" end
  return row
end

-- The lines under the heading that names something, up to the next heading.
local function section(name)
  local found
  for _, line in ipairs(page) do
    if line:find "^#" then
      if found then return found end
      if line:find(name, 1, true) then found = {} end
    elseif found then
      found[#found + 1] = line
    end
  end
  return found or error("the page has no heading with " .. name)
end

-- The rows of a section's tables by the names in the first cell; `column` names the cell that holds defaults.
local function rows_of(lines, column)
  local rows, at = {}, nil
  for _, line in ipairs(lines) do
    local row = cells(line)
    if not row then
      at = nil
    elseif not at then
      for i, title in ipairs(row) do
        if title == column then at = i end
      end
      at = at or 0
    elseif at > 0 then
      local name = row[1]:match "^`([%w_]+)`$"
      if name then rows[name] = row[at] end
    end
  end
  return rows
end

-- A rule's default as a cell says it.
local function agrees(rule, cell)
  if rule.required then return cell == "required" end
  local default = rule.default
  if default == nil then return cell == "–" end
  if type(default) == "number" then return tonumber(cell) == default end
  if type(default) == "boolean" then return cell == tostring(default) end
  return cell == ('`"%s"`'):format(default)
end

local headings = {
  ["lf.dataset: split"] = "`split` of `lf.dataset`", ["lf.distill: hints"] = "`hints` of `lf.distill`",
  ["lf.step: resources"] = "`resources` of `lf.step`", ["lf.step: checkpoint"] = "`checkpoint` of `lf.step`",
}
local optimizers = { "sgd", "adam", "adamw", "rmsprop", "lion", "lamb" }

local function is_optimizer(where)
  for _, kind in ipairs(optimizers) do
    if where == "lf." .. kind then return true end
  end
  return false
end

-- Names that the section need not list, since they are another function's.
local function borrowed(lines)
  local names = {}
  local other = table.concat(lines, "\n"):match "Options as `([%w_.:]+)`"
  for name, rule in pairs(other and options.declared[other] or {}) do names[name] = rule end
  return names
end

describe("the reference", function()
  for where, rules in pairs(options.declared) do
    if where:find "^schedule" then
      it("has_the_options_of_" .. where, function()
        local kind, own, common = where:match '"(.*)"', nil, {}
        for _, line in ipairs(section "Schedules") do
          local row = cells(line)
          if row and row[1] == ('`"%s"`'):format(kind) then own = row[3] end
          if line:find "Every kind takes" or next(common) then common[#common + 1] = line end
        end
        assert.is_truthy(own, "no row for " .. kind)
        for name, rule in pairs(rules) do
          local text = (name == "per" or name == "warmup") and table.concat(common, " ") or own
          local value = text:match("`" .. name .. "` `?([%w.\"/-]+)")
          assert.is_truthy(value, ("%s: no %s"):format(where, name))
          value = value:gsub("[.,;]$", "")
          local same = rule.default == nil or tonumber(value) == rule.default or value == ('"%s"'):format(rule.default)
          assert.is_true(same and (not rule.required or value == "required"),
            ("%s: %s is %s on the page, %s in the rules"):format(where, name, value, rule.default or "required"))
        end
      end)
    else
      it("has_every_option_of_" .. where .. "_with_its_default", function()
        local lines = section(headings[where] or is_optimizer(where) and "Optimizers" or "`" .. where .. "`")
        local rows = rows_of(lines, is_optimizer(where) and "`" .. where .. "`" or "default")
        local others = borrowed(lines)
        for name, rule in pairs(rules) do
          local cell = rows[name]
          if cell == nil then
            assert.equal(rule, others[name], ("%s: the page does not have %s"):format(where, name))
          else
            assert.is_true(agrees(rule, cell), ("%s: %s is %s on the page, %s in the rules"):format(where, name, cell,
              rule.required and "required" or rule.default))
          end
        end
        for name, cell in pairs(rows) do
          local stale = not rules[name] and cell ~= "" and (cell == "required" or is_optimizer(where) or #cell > 0)
          assert.is_false(stale, ("%s: %s is on the page alone"):format(where, name))
        end
      end)
    end
  end

  it("has_every_public_function_and_method", function()
    local text = table.concat(page, "\n")
    for name in pairs(lf) do helper.has(text, "`lf." .. name .. "`") end
    for name in pairs(getmetatable(lf.mlp { 1, 1 }).__index) do helper.has(text, "`model:" .. name .. "(") end
    for name, value in pairs(session.methods) do
      if type(value) == "function" then helper.has(text, "`s:" .. name .. "`") end
    end
    for _, name in ipairs { "train", "valid", "test", "file", "close()" } do helper.has(text, "`data" ..
      (name == "close()" and ":" or ".") .. name .. "`") end
  end)

  it("names_every_choice", function()
    for _, rules in pairs(options.declared) do
      for _, rule in pairs(rules) do
        for _, choice in ipairs(rule[1] == "choice" and rule.of or {}) do
          helper.has(table.concat(page, "\n"), ('"%s"'):format(choice))
        end
      end
    end
  end)

  it("links_to_headings_that_are_there", function()
    local anchors = {}
    for _, line in ipairs(page) do
      local title = line:match "^#+ (.*)$"
      if title then anchors[title:lower():gsub("[^%w%s_-]", ""):gsub("%s", "-")] = true end
    end
    for _, line in ipairs(page) do
      for anchor in line:gmatch "%]%(#(.-)%)" do assert.is_true(anchors[anchor], anchor) end
    end
  end)

  it("keeps_to_120_columns_outside_tables", function()
    for number, line in ipairs(page) do
      assert.is_true(line:find "^|" ~= nil or utf8.len(line) <= 120, ("line %d is too long"):format(number))
    end
  end)
end)

-- Fields of every class in the comments: name -> { fields, parents }.
local function annotated()
  local classes, current = {}, nil
  local folder = helper.source .. "/lua/lavaflow"
  for _, file in ipairs(helper.list(folder)) do
    for _, line in ipairs(lines_of(folder .. "/" .. file)) do
      local class, parents = line:match "^%-%-%- @class ([%w_.]+):?(.*)$"
      local field, optional = line:match "^%-%-%- @field ([%w_]+)(%??) "
      if class then
        assert(not classes[class], "two classes " .. class)
        current = { fields = {}, parents = {} }
        classes[class] = current
        for parent in parents:gmatch "[%w_.]+" do current.parents[#current.parents + 1] = parent end
      elseif field and current then
        current.fields[field] = optional == "?" and "optional" or "required"
      elseif not line:find "^%-%-%-" then
        current = nil
      end
    end
  end
  return classes
end

local function fields_of(classes, name, found)
  local class = classes[name] or error("there is no class " .. name)
  for _, parent in ipairs(class.parents) do fields_of(classes, parent, found) end
  for field, kind in pairs(class.fields) do found[field] = kind end
  return found
end

describe("the comments for editors", function()
  local classes = annotated()

  it("have_a_field_for_every_option", function()
    local schedule = {}
    for where, rules in pairs(options.declared) do
      if where:find "^schedule" then
        for name in pairs(rules) do schedule[name] = "optional" end
      else
        local class = "lavaflow." .. where:gsub("^lf%.", ""):gsub("%W+", "_") .. "_options"
        local only_name = rules.name and not next(rules, next(rules))
        local found = fields_of(classes, only_name and "lavaflow.name_options" or class, {})
        local expected = {}
        for name, rule in pairs(rules) do expected[name] = rule.required and "required" or "optional" end
        assert.same(expected, found, where)
      end
    end
    assert.same(schedule, fields_of(classes, "lavaflow.schedule", {}))
  end)

  it("inherit_from_classes_that_are_there", function()
    for _, class in pairs(classes) do
      for _, parent in ipairs(class.parents) do assert.is_truthy(classes[parent], parent) end
    end
  end)
end)
