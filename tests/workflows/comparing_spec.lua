-- The commands that compare runs and take values out of them: diff, export, plot.
local core = require "lavaflow.core"
local helper = require "helper"
local linediff = require "lavaflow.linediff"
local reading = require "reading"

local run, lavaflow, output, refused = reading.run, reading.lavaflow, reading.output, reading.refused
local lines_of = reading.lines

local folder
setup(function() folder = reading.setup() end)
teardown(reading.teardown)

describe("lavaflow diff", function()
  it("finds_none_between_equal_runs", function()
    run("other/again.h5")
    assert.equal("no differences\n", output("diff", "runs/flow/a.h5", "other/again.h5"))
    assert.equal(0, lavaflow("diff", "runs/flow/a.h5", "other/again.h5", "--exit-code").code)
  end)

  it("tells_parameters_steps_metrics_weights_and_evaluations", function()
    local text = output("diff", "runs/flow/a.h5", "runs/flow/b.h5")
    helper.has(text, "--- runs/flow/a.h5\n+++ runs/flow/b.h5\n\nparameters\n  lr: 0.01 -> 0.02\n\ninputs\n")
    assert.is_truthy(text:find "steps\n  train: key %x+ %-> %x+\n")
    assert.is_truthy(text:find "\n  train%.lr: 0%.01 %-> 0%.02\n")
    assert.is_truthy(text:find "\nweights\n  train: after training step 6: %x+ %-> %x+\n")
    assert.is_truthy(text:find "\nevaluations\n  evaluate%.loss: [%d.]+ %-> [%d.]+\n")
    for _, part in ipairs { "program\n", "script\n", "devices\n", "code" } do
      assert.is_nil(text:find(part, 1, true))
    end
    assert.equal(1, lavaflow("diff", "runs/flow/a.h5", "runs/flow/b.h5", "--exit-code").code)
  end)

  it("names_the_first_training_step_that_differs", function()
    local a = core.h5_read(folder .. "/runs/flow/a.h5", "/entry/metrics/train/step_loss", 100).value
    local b = core.h5_read(folder .. "/runs/flow/b.h5", "/entry/metrics/train/step_loss", 100).value
    local first = 1
    while a[first] == b[first] do first = first + 1 end
    assert.is_true(first > 1)
    helper.has(output("diff", "runs/flow/a.h5", "runs/flow/b.h5"),
      ("train.step_loss: from training step %d on: %.6g -> %.6g\n"):format(first, a[first], b[first]))
  end)

  it("shows_the_script_s_lines_and_weights_that_are_equal", function()
    helper.write(folder .. "/flow.lua", (reading.script:gsub('print "one\\ntwo"', 'print "three"')))
    run("other/edited.h5")
    helper.write(folder .. "/flow.lua", reading.script)
    local text = output("diff", "runs/flow/a.h5", "other/edited.h5")
    helper.has(text, [[
script
  --- flow.lua
  +++ flow.lua
  @@ -10,7 +10,7 @@
       end
       train(s.params.epochs)
       train(2, "teacher")
  -    print "one\ntwo"
  +    print "three"
       model:save(s.output.model)
     end,
   }

]])
    assert.is_truthy(text:find "\nsteps\n  train: code %x+ %-> %x+\n  train: key ")
    assert.is_truthy(text:find "\nweights\n  train: equal, %x+\n  train%.teacher: equal, %x+\n")
    assert.is_nil(text:find("metrics", 1, true))
  end)

  it("tells_what_only_one_run_has", function()
    run("other/part.h5", "train")
    local text = output("diff", "runs/flow/a.h5", "other/part.h5")
    helper.has(text, "\n  evaluate: completed -> not there\n")
    assert.is_truthy(text:find "\n  evaluate%.test_loss: [%d.]+ %-> not there\n")
    assert.is_truthy(text:find "\n  evaluate%.accuracy: [%d.]+ %-> not there\n")
    refused(1, "nope.h5: cannot open", "diff", "runs/flow/a.h5", "nope.h5")
  end)
end)

describe("line differences", function()
  it("keep_what_is_between_two_changes", function()
    local old = { "a", "1", "2", "3", "4", "5", "6", "7", "b" }
    local new = { "A", "1", "2", "3", "4", "5", "6", "7", "B" }
    assert.same({ "@@ -1,4 +1,4 @@", "-a", "+A", " 1", " 2", " 3", "@@ -6,4 +6,4 @@", " 5", " 6", " 7", "-b", "+B" },
      linediff.unified(table.concat(old, "\n") .. "\n", table.concat(new, "\n") .. "\n"))
  end)

  it("are_as_diff_u_prints_them", function()
    local words = { "a", "b", "c", "d", "e" }
    math.randomseed(1)
    local function text()
      local lines = {}
      for i = 1, math.random(0, 40) do lines[i] = words[math.random(#words)] .. "\n" end
      return table.concat(lines)
    end
    for _ = 1, 20 do
      local old, new = text(), text()
      helper.write(folder .. "/old", old)
      local patch = table.concat(linediff.unified(old, new), "\n") .. "\n"
      helper.write(folder .. "/patch", "--- old\n+++ old\n" .. patch)
      if old == new then
        assert.equal("\n", patch)
      else
        local patched = helper.run({ helper.python, "-c", [[
import re, sys
old, patch = open("old").read().splitlines(True), open("patch").read().splitlines(True)[2:]
new, at, i = [], 0, 0
while i < len(patch):
    a, n, b, m = map(int, re.match(r"@@ -(\d+),(\d+) \+(\d+),(\d+) @@", patch[i]).groups())
    begin = a - 1 if n else a
    new += old[at:begin]
    assert len(new) == (b - 1 if m else b), patch[i]
    at, i, before, after = begin, i + 1, 0, len(new)
    while i < len(patch) and patch[i][0] != "@":
        sign, line = patch[i][0], patch[i][1:]
        if sign != "+":
            assert old[at] == line, (at, line)
            at, before = at + 1, before + 1
        if sign != "-": new.append(line)
        i += 1
    assert (before, len(new) - after) == (n, m)
sys.stdout.write("".join(new + old[at:]))
]] }, { cwd = folder, plain = true })
        assert.equal("", patched.err)
        assert.equal(new, patched.out)
      end
    end
  end)
end)

describe("lavaflow export", function()
  it("has_every_value_with_all_digits", function()
    local lines = lines_of(output("export", "runs/flow/a.h5", "--csv"))
    assert.equal("training,metric,step,time,value", lines[1])
    local metrics, count = core.h5_read(folder .. "/runs/flow/a.h5", "/entry/metrics", 1000), 0
    for i = 2, #lines do
      local training, name, step, time, value = lines[i]:match "^([%w.]+),([%w_]+),(%d+),([^,]+),([^,]+)$"
      local series, at = metrics[training][name], nil
      for j, one in ipairs(series.step) do at = one == tonumber(step) and j or at end
      assert.same({ series.time[at], series.value[at] }, { tonumber(time), tonumber(value) })
    end
    for _, training in ipairs { "train", "train.teacher", "evaluate" } do
      for name, series in pairs(metrics[training]) do count = count + (name:find "@" and 0 or #series.value) end
    end
    assert.equal(count + 1, #lines)
  end)

  it("quotes_names_and_spells_what_is_no_number", function()
    local one = core.run()
    one:series('a "b", c', "loss", { 1, 2, 3 }, { 0, 0, 0 }, { 0 / 0, math.huge, -math.huge })
    one:save(folder .. "/odd.h5", "completed", 0)
    local quoted = '"a ""b"", c",loss,'
    assert.equal(("training,metric,step,time,value\n%s1,0,nan\n%s2,0,inf\n%s3,0,-inf\n"):format(quoted, quoted, quoted),
      output("export", "odd.h5"))
  end)

  it("writes_a_file_or_into_a_folder", function()
    local text = output("export", "runs/flow/a.h5", "--metric", "train.loss,test_loss")
    assert.equal(1 + 3 + 1, #lines_of(text))
    assert.equal("other/x.csv\n", output("export", "runs/flow/a.h5", "--metric", "train.loss", "--metric", "test_loss",
      "-o", "other/x.csv"))
    assert.equal(text, helper.read(folder .. "/other/x.csv"))
    assert.equal("other/a.csv\n", output("export", "runs/flow/a.h5", "-o", "other/"))
    assert.equal(output("export", "runs/flow/a.h5"), helper.read(folder .. "/other/a.csv"))
    local before = helper.read(folder .. "/runs/flow/a.h5")
    refused(2, "-o runs/flow/a.h5: would replace the run file", "export", "runs/flow/a.h5", "-o", "runs/flow/a.h5")
    assert.equal(before, helper.read(folder .. "/runs/flow/a.h5"))
    refused(1, "nowhere/x.csv: cannot be written", "export", "runs/flow/a.h5", "-o", "nowhere/x.csv")
    refused(2, "--metric speed: no such metric in runs/flow/a.h5", "export", "runs/flow/a.h5", "--metric", "speed")
    local full = helper.run({ "/bin/sh", "-c", '"$0" export runs/flow/a.h5 >/dev/full', helper.lavaflow },
      { cwd = folder })
    assert.same({ 1, "lavaflow: standard output: No space left on device\n" }, { full.code, full.err })
  end)
end)

describe("lavaflow plot", function()
  it("draws_several_runs_into_one_picture_by_its_extension", function()
    local begins = { svg = "<?xml", png = "\137PNG", pdf = "%PDF" }
    for kind, head in pairs(begins) do
      local name = "other/plot." .. kind
      assert.equal(name .. "\n", output("plot", "runs/flow/a.h5", "runs/flow/b.h5", "-o", name))
      assert.equal(head, helper.read(folder .. "/" .. name):sub(1, #head))
    end
    local svg = helper.read(folder .. "/other/plot.svg")
    for _, part in ipairs { ">a lr=0.01  train<", ">b lr=0.02  train.teacher<", "loss, dashed: val_loss",
      "accuracy, dashed: val_accuracy", "training step" } do
      helper.has(svg, part)
    end
    assert.is_nil(svg:find("test_loss", 1, true))
    output("plot", "runs/flow/a.h5", "-o", "other/one.svg", "--metric", "train.step_loss", "--log")
    svg = helper.read(folder .. "/other/one.svg")
    helper.has(svg, ">step_loss<")
    assert.is_nil(svg:find("teacher", 1, true))
  end)

  it("draws_into_the_terminal_within_80_columns", function()
    local text = output("plot", "runs/flow/a.h5")
    helper.has(text, "loss, val_loss")
    helper.has(text, "train.teacher  val_accuracy")
    for _, line in ipairs(lines_of(text)) do assert.is_true(#line < 80, line) end
  end)

  it("leaves_out_what_is_no_number", function()
    local one = core.run()
    one:series("t", "loss", { 1, 2, 3, 4, 5 }, { 0, 0, 0, 0, 0 }, { 1, 0.9, 0 / 0, 0.5, 0.4 })
    one:series("t", "accuracy", { 1 }, { 0 }, { 0 / 0 })
    one:save(folder .. "/holes.h5", "completed", 0)
    output("plot", "holes.h5", "-o", "other/holes.svg", "--log")
    local svg = helper.read(folder .. "/other/holes.svg")
    assert.is_truthy(svg:find(("M[%d.]+,[%d.]+ L[%d.]+,[%d.]+ +"):rep(3) .. "'")) -- the legend's line, and two
    assert.is_nil(svg:find("accuracy", 1, true))
    refused(2, "--metric accuracy: no such metric", "plot", "holes.h5", "--metric", "accuracy")
  end)

  it("says_what_is_missing", function()
    refused(2, "-o x.gif: expected a name that ends in .svg, .png or .pdf", "plot", "runs/flow/a.h5", "-o", "x.gif")
    refused(2, "--metric speed: no such metric in runs/flow/a.h5", "plot", "runs/flow/a.h5", "--metric", "speed")
    refused(1, "nope.h5: cannot open", "plot", "runs/flow/a.h5", "nope.h5", "-o", "x.svg")
    refused(1, "nowhere/x.svg: cannot be written", "plot", "runs/flow/a.h5", "-o", "nowhere/x.svg")
    local without = helper.run({ helper.lavaflow, "plot", "runs/flow/a.h5" },
      { cwd = folder, env = { PATH = "/nowhere" } })
    assert.equal(1, without.code)
    helper.has(without.err, "lavaflow: gnuplot is not installed")
    helper.has(without.err, "gnuplot-nox")
    assert.is_false(helper.exists(folder .. "/x.svg"))
  end)
end)
