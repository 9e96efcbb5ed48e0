-- The distillation workflow, small, on the digits that come with the project.
local core = require "lavaflow.core"
local helper = require "helper"

local folder
setup(function() folder = helper.folder() end)
teardown(function() helper.remove(folder) end)

describe("distillation", function()
  it("compares_teacher_student_and_the_student_alone", function()
    local result = helper.cli(folder, "run", helper.source .. "/workflows/distill.lua", "--device", "cpu", "-q",
      "data=" .. helper.source .. "/datasets/digits.h5", "wide=128", "narrow=64", "hidden=16", "epochs=20", "lr=5e-3",
      "teacher_batch=16", "student_batch=16", "--record", "run.h5")
    assert.same({ 0, "" }, { result.code, result.err })
    local entry = core.h5_read(folder .. "/run.h5", "/entry", 100000)
    for _, name in ipairs { "teacher", "alone", "distilled" } do
      local scores = entry.evaluations["compare." .. name]
      assert.is_true(scores.accuracy >= 0.85, ("%s: accuracy %g"):format(name, scores.accuracy))
      assert.equal(scores.accuracy, entry.metrics.compare[name .. "_accuracy"].value[1])
      assert.same({ 10, 10 }, scores.confusion.shape)
    end
    assert.equal(entry.evaluations["compare.teacher"]["@model"], entry.metrics.distilled["@teacher_1"])
    assert.equal(entry.entry_identifier_uuid, entry.metrics.distilled["@teacher_1_run"])
    assert.not_equal(entry.evaluations["compare.alone"]["@model"], entry.evaluations["compare.distilled"]["@model"])
  end)
end)
