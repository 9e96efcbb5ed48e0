local options = require "lavaflow.options"
local helper = require "helper"

local rules = {
  batch = { "whole", min = 1, max = 100, default = 64 },
  lr = { "number", min = 0, below = 1 },
  loss = { "choice", of = { "mse", "cross_entropy" }, default = "mse" },
  shuffle = { "boolean", default = true },
  path = { "text", required = true, expected = "a path" },
}

local function check(given)
  given.path = given.path or "x"
  return options.check("f", rules, given)
end

describe("options", function()
  it("defaults_fill_what_is_absent", function()
    assert.same({ batch = 64, loss = "mse", shuffle = true, path = "x" }, check {})
  end)

  it("false_is_a_value", function()
    assert.is_false(check { shuffle = false }.shuffle)
  end)

  it("whole_floats_become_integers", function()
    assert.equal("integer", math.type(check { batch = 32.0 }.batch))
  end)

  it("a_message_names_argument_expectation_and_value", function()
    for given, expected in pairs {
      [{ batch = 0 }] = "f: batch: expected a whole number of at least 1, got 0",
      [{ batch = 101 }] = "f: batch: expected a whole number of at most 100, got 101",
      [{ batch = 1.5 }] = "f: batch: expected a whole number of at least 1, got 1.5",
      [{ batch = "64" }] = 'f: batch: expected a whole number of at least 1, got "64"',
      [{ lr = -1 }] = "f: lr: expected a number of at least 0 and below 1, got -1",
      [{ lr = 0 / 0 }] = "f: lr: expected a number of at least 0 and below 1, got nan",
      [{ loss = "x" }] = 'f: loss: expected one of mse, cross_entropy, got "x"',
      [{ shuffle = 1 }] = "f: shuffle: expected true or false, got 1",
      [{ path = {} }] = "f: path: expected a path, got a table",
    } do
      helper.has(helper.message(check, given), expected)
    end
    helper.has(helper.message(options.check, "f", rules, {}), "f: path: expected a path, got nothing")
  end)

  it("a_message_begins_with_the_line_of_the_caller", function()
    local line
    local message = helper.message(function()
      line = debug.getinfo(1, "l").currentline + 1
      options.fail("here %d", 3)
    end)
    helper.has(message, ("options_spec.lua:%d: here 3"):format(line))
  end)

  it("a_script_function_that_ends_in_a_tail_call_is_named_by_its_first_line", function()
    local line = debug.getinfo(1, "l").currentline + 1
    local ok, message = xpcall(options.script, options.locate, function()
      return options.fail "here"
    end)
    assert.is_false(ok)
    helper.has(message, ("options_spec.lua:%d: here"):format(line))
  end)

  it("an_unknown_name_lists_the_nearest_first", function()
    helper.has(helper.message(check, { bacth = 3 }), 'f: unknown option "bacth"; nearest: batch, ')
    helper.has(helper.message(check, { [1] = 3 }), "f: unknown option 1; nearest: ")
  end)

  it("nearest_counts_a_swap_as_one_edit", function()
    assert.same({ "batch", "watch", "epochs" }, options.nearest("bacth", { "epochs", "watch", "batch" }))
  end)

  it("a_strict_table_gives_options_and_a_handle_does_not", function()
    assert.equal(8, options.check("f", rules, options.strict({ batch = 8, path = "x" }, "P")).batch)
    helper.has(helper.message(options.check, "f", rules, setmetatable({}, { __name = "lavaflow.layer" })),
      "f: expected a table of options, got a layer")
  end)

  it("a_strict_table_names_what_it_has", function()
    local t = options.strict({ data = 1, model = 2 }, "input")
    assert.equal(1, t.data)
    helper.has(helper.message(function() return t.dato end), 'input has no "dato"; it has data, model')
  end)

  it("a_call_adds_the_line_to_a_message_without_one_and_keeps_other_errors", function()
    local message = helper.message(function()
      options.call(error, "no position", 0)
    end)
    assert.is_truthy(message:find "options_spec.lua:%d+: no position$")
    assert.equal("x.lua:3: here", helper.message(options.call, error, "x.lua:3: here", 0))
    local object = {}
    assert.equal(object, helper.message(options.call, error, object))
  end)
end)
