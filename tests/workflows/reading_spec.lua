-- The commands that show runs, also such as go on: runs, log, watch, recover, show.
local cjson = require "cjson"
local core = require "lavaflow.core"
local helper = require "helper"
local reading = require "reading"

local lavaflow, output, refused, lines_of = reading.lavaflow, reading.output, reading.refused, reading.lines

local folder
setup(function() folder = reading.setup() end)
teardown(reading.teardown)

-- A run that goes on: its record, its live file, and a lock that this process holds.
local function begin(name)
  local stem = folder .. "/" .. name
  local it = { run = core.run(), lock_file = stem .. ".lock", live = stem .. ".live.h5", final = stem .. ".h5",
    step = 0 }
  it.lock = core.lock(it.lock_file)
  it.run:set("program_name", "lavaflow")
  it.run:set("step_1/name", "train")
  it.run:set("step_1/t_start", 0.0)
  it.run:log("info", "it begins", "train")
  function it:show() self.run:live(self.live, { lock = self.lock_file }) end
  function it:epoch(loss)
    self.step = self.step + 4
    self.run:series("train", "loss", { self.step }, { self.step / 10 }, { loss })
    self:show()
  end
  function it:finish()
    self.run:log("error", "it ends", "train")
    self.run:save(self.final, "failed", 1)
    self.run:live_close()
    helper.remove(self.live)
    self:leave()
  end
  function it:leave()
    self.lock:close()
    helper.remove(self.lock_file)
  end
  it:epoch(0.5)
  return it
end

describe("lavaflow runs", function()
  it("lists_the_newest_first_with_the_parameters_that_differ", function()
    local lines = lines_of(output "runs")
    assert.equal(4, #lines)
    assert.is_truthy(lines[1]:find "^file +status +.*lr +val_accuracy +test_loss")
    assert.is_nil(lines[1]:find("epochs", 1, true))
    assert.is_nil(lines[1]:find("note", 1, true))
    assert.is_truthy(lines[2]:find "^runs/flow/c%.h5 +completed .* 0%.002 ")
    assert.is_truthy(lines[4]:find "^runs/flow/a%.h5 .* 0%.01 ")
    assert.equal(2, #lines_of(output("runs", "--limit", "1")))
    assert.is_truthy(lines_of(output("runs", "--reverse"))[2]:find "^runs/flow/a%.h5")
  end)

  it("sorts_losses_upwards_and_accuracies_downwards", function()
    local values = {}
    for _, one in ipairs(cjson.decode(output("runs", "--json"))) do values[one.file] = one.metrics end
    local function check(sort, metric, falling, ...)
      local found, last = {}, nil
      for i, line in ipairs(lines_of(output("runs", "--sort", sort, ...))) do
        local value = i > 1 and values[line:match "^(%S+)"][metric]
        if value and last then assert.is_true(falling and value >= last or not falling and value <= last, sort) end
        last, found[#found + 1] = value or nil, value or nil
      end
      assert.equal(3, #found)
      assert.is_true(found[1] ~= found[3])
    end
    check("val_loss", "train.teacher.val_loss", true)
    check("train.val_loss", "train.val_loss", true)
    check("train.val_loss", "train.val_loss", false, "--reverse")
    check("train.accuracy", "train.accuracy", false)
    check("evaluate.test_loss", "evaluate.test_loss", true)
    refused(2, "--sort speed: no run has such a metric; they have val_accuracy, test_loss, ", "runs", "--sort", "speed")
    refused(2, "expected a whole number above 0", "runs", "--limit", "0")
  end)

  it("fits_a_terminal", function()
    if not helper.has_terminals() then pending "no terminals here: /dev/pts is not mounted" return end
    local result = helper.run({ helper.python, "-c", [[
import fcntl, os, pty, struct, sys, termios
pid, fd = pty.fork()
if pid == 0:
    fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 50, 0, 0))
    os.execv(sys.argv[1], sys.argv[1:])
data = b""
while True:
    try: piece = os.read(fd, 4096)
    except OSError: break
    if not piece: break
    data += piece
os.waitpid(pid, 0)
sys.stdout.write(data.decode())
]], helper.lavaflow, "runs" },
      { cwd = folder, plain = true, env = { TERM = "xterm", LD_PRELOAD = os.getenv "LD_PRELOAD" } })
    local lines = lines_of((result.out:gsub("\r\n", "\n")))
    assert.equal(4, #lines, result.out)
    for _, line in ipairs(lines) do assert.is_true(#line <= 50, line) end
    helper.has(lines[1], "val_accuracy")
    helper.has(lines[1], "lr")
    assert.is_nil(lines[1]:find("start", 1, true))
  end)

  it("gives_every_metric_as_json", function()
    local list = cjson.decode(output("runs", "runs/flow/a.h5", "--json"))
    assert.equal(1, #list)
    local entry = core.h5_read(folder .. "/runs/flow/a.h5", "/entry", 1000)
    assert.equal(entry.entry_identifier_uuid, list[1].uuid)
    assert.same({ "flow.lua", "completed", 0.01 }, { list[1].workflow, list[1].status, list[1].parameters.lr })
    helper.near(entry.metrics.train.val_loss.value[3], list[1].metrics["train.val_loss"], 1e-12)
    helper.near(entry.evaluations.evaluate.loss, list[1].evaluations["evaluate.loss"], 1e-12)
    assert.equal("[]\n", output("runs", "out", "--json"))
  end)

  it("warns_of_each_file_that_cannot_be_read_and_goes_on", function()
    local whole = helper.read(folder .. "/runs/flow/a.h5")
    helper.write(folder .. "/other/cut.h5", whole:sub(1, #whole // 2))
    helper.write(folder .. "/other/text.h5", "no HDF5")
    helper.write(folder .. "/other/data.h5", helper.read(folder .. "/good.h5")) -- no run file, and nobody said so
    helper.write(folder .. "/other/good.h5", whole)
    local result = lavaflow("runs", "other")
    assert.equal(0, result.code)
    assert.is_truthy(result.out:find "^file [^\n]*\nother/good%.h5 [^\n]*\n$")
    local warnings = lines_of(result.err)
    assert.equal(2, #warnings, result.err)
    helper.has(warnings[1], "lavaflow: other/cut.h5: ")
    helper.has(warnings[2], "lavaflow: other/text.h5: is not an HDF5 file")
    helper.has(refused(1, "nope.h5: cannot open", "runs", "nope.h5", "runs/flow/a.h5").out, "\nruns/flow/a.h5 ")
    refused(1, "good.h5: expected a run file, but it has no /entry", "runs", "good.h5")
    helper.has(lavaflow("runs", "out").err, "lavaflow: no run files below out")
  end)
end)

describe("lavaflow log", function()
  it("prints_time_level_step_and_text", function()
    local text = output("log", "runs/flow/a.h5")
    assert.is_truthy(text:find "^ +%d+%.%d%d%d  info   train     step train starts: ")
    assert.is_truthy(text:find "\n +%d+%.%d%d%d  out    train     one\n +two\n")
    helper.has(text, "info   evaluate  step evaluate: completed\n")
  end)

  it("prints_the_lines_of_one_step", function()
    local all = lines_of(output("log", "runs/flow/a.h5"))
    local train, evaluate = lines_of(output("log", "runs/flow/a.h5", "train")),
      lines_of(output("log", "runs/flow/a.h5", "evaluate"))
    assert.equal(#all, #train + #evaluate)
    helper.has(evaluate[#evaluate], "info   step evaluate: completed")
    refused(2, 'runs/flow/a.h5: has no step "trian"; it has train, evaluate', "log", "runs/flow/a.h5", "trian")
  end)

  it("follows_a_run_that_goes_on_until_it_ends", function()
    local it = begin "followed"
    assert.is_truthy(output("log", "followed.h5"):find "^ +%d+%.%d%d%d  info   train  it begins\n$")
    local seen = 0
    local function answer(text)
      local count = select(2, text:gsub("\n", ""))
      if count > seen and seen < 3 then
        seen = count
        if seen < 3 then
          it.run:log("warn", "line " .. seen, "train")
          it:show()
        else
          it:finish()
        end
      end
    end
    local result = helper.run({ helper.lavaflow, "log", "-f", "followed.h5" }, { cwd = folder, on_output = answer })
    assert.same({ 0, "" }, { result.code, result.err })
    local texts = {}
    for _, line in ipairs(lines_of(result.out)) do texts[#texts + 1] = line:match "train  (.*)$" end
    assert.same({ "it begins", "line 1", "line 2", "it ends" }, texts)
    assert.equal(result.out, output("log", "--follow", "followed.h5"))
  end)

  it("is_refused_without_a_run", function()
    refused(1, "nope.h5: cannot open", "log", "nope.h5")
    refused(1, "nope.h5: no such file, and no live file beside it", "log", "-f", "nope.h5")
    refused(1, "not_hdf5.h5: is not an HDF5 file", "log", "not_hdf5.h5")
  end)
end)

describe("lavaflow watch", function()
  it("prints_new_epochs_and_the_status_at_the_end", function()
    local it = begin "watched"
    local seen = 0
    local result = helper.run({ helper.lavaflow, "watch", "watched.h5" }, { cwd = folder, on_output = function(text)
      local epoch = tonumber(text:match ".*epoch (%d+)")
      if not epoch or epoch <= seen then return end
      seen = epoch
      if seen < 3 then it:epoch(0.5 / 2 ^ seen) else it:finish() end
    end })
    assert.same({ 0, "" }, { result.code, result.err })
    assert.same({ "watching watched.live.h5", "train  epoch 1  loss 0.5", "train  epoch 2  loss 0.25",
      "train  epoch 3  loss 0.125", "error  it ends", "failed: watched.h5" }, lines_of(result.out))
  end)

  it("takes_the_newest_live_file_and_says_when_a_run_was_killed", function()
    refused(1, "no run goes on below runs", "watch")
    local it = begin "runs/flow/newest"
    local result = helper.run({ helper.lavaflow, "watch" }, { cwd = folder, on_output = function(text)
      if text:find "epoch 1" and it then
        it.lock:close()
        it = nil
      end
    end })
    assert.equal(1, result.code)
    helper.has(result.out, "watching runs/flow/newest.live.h5")
    helper.has(result.err, "runs/flow/newest.live.h5: its run was killed; lavaflow recover makes a run file of it")
    helper.remove(folder .. "/runs/flow/newest.live.h5")
    helper.remove(folder .. "/runs/flow/newest.lock")
  end)
end)

describe("a live file", function()
  it("is_shown_and_listed_as_what_it_is", function()
    local it = begin "live"
    local text = output("show", "live.h5")
    helper.has(text, "run         live.live.h5\nstatus      running\n")
    helper.has(text, "steps       train  running\n")
    helper.has(text, "  epoch  loss\n  1      0.5\n")
    assert.is_truthy(output("runs", "live.live.h5"):find "\nlive%.live%.h5 +running ")
    it:leave()
    helper.write(it.lock_file, "")
    helper.has(output("show", "live.live.h5"), "status      killed\n")
    assert.is_truthy(output("runs", "live.live.h5"):find "\nlive%.live%.h5 +killed ")
    helper.remove(it.lock_file)
    helper.remove(it.live)
  end)

  it("is_not_listed_beside_the_run_file_of_its_run", function()
    local it = begin "other/ended"
    it.run:save(it.final, "completed", 0)
    local text = lavaflow("runs", "other").out
    assert.is_truthy(text:find "\nother/ended%.h5 +completed ")
    assert.is_nil(text:find("ended.live", 1, true))
    it:finish()
  end)

  it("becomes_a_run_file_once_its_run_is_gone", function()
    local it = begin "dead"
    it:epoch(0.25)
    refused(1, "dead.live.h5: its run goes on (pid ", "recover", "dead.live.h5")
    it.run:close()
    it.lock:close()
    local before = helper.files(folder)
    refused(2, "dead.h5: expected a live file, NAME.live.h5, or -o", "recover", "dead.h5")
    refused(2, "-o ./dead.live.h5: would replace the run file", "recover", "dead.live.h5", "-o", "./dead.live.h5")
    refused(1, "runs/flow/a.h5: its run has ended", "recover", "runs/flow/a.h5", "-o", "x.h5")
    helper.write(it.final, "mine")
    refused(1, "dead.h5: is there already; -o names another file", "recover", "dead.live.h5")
    assert.equal("mine", helper.read(it.final))
    helper.remove(it.final)
    assert.same(before, helper.files(folder))
    assert.equal("saved.h5\n", output("recover", "dead.live.h5", "-o", "saved.h5"))
    assert.is_false(helper.exists(it.live))
    local entry = core.h5_read(folder .. "/saved.h5", "/entry", 100)
    assert.same({ "killed", 137 }, { entry.status, entry.exit_code })
    assert.equal(0.25, entry.metrics.train.loss.value[2])
    helper.has(output("show", "saved.h5"), "status      killed, exit status 137\n")
    helper.remove(it.lock_file)
  end)
end)

describe("lavaflow show", function()
  it("tells_of_errors_and_of_steps_that_did_not_run_again", function()
    output("run", "flow.lua", "--device", "cpu", "-q", "--record", "other/whole.h5")
    output("run", "flow.lua", "--device", "cpu", "-q", "-f", "evaluate", "--record", "other/forced.h5")
    local from = core.h5_read(folder .. "/other/forced.h5", "/entry", 1).step_1.from_run
    assert.equal(36, #from)
    helper.has(output("show", "other/forced.h5"), "steps       train  up to date, ran in run " .. from .. "\n")
    helper.write(folder .. "/fails.lua", [[
local lf = require "lavaflow"
lf.step "fails" { run = function() error "on purpose" end }
]])
    assert.equal(1, lavaflow("run", "fails.lua", "-q", "--record", "other/fails.h5").code)
    local text = output("show", "other/fails.h5")
    helper.has(text, "status      failed, exit status 1\n")
    assert.is_truthy(text:find "\nerror       step \"fails\": fails%.lua:2: on purpose\n")
  end)
end)
