-- How steps run: side by side on devices of their own, after failures and crashes, and beside another run.
local core = require "lavaflow.core"
local helper = require "helper"
local uv = require "luv"

local folder
before_each(function()
  folder = helper.folder()
  helper.fixtures(folder)
end)
after_each(function() helper.remove(folder) end)

local function flow(text) helper.write(folder .. "/flow.lua", 'local lf = require "lavaflow"\n' .. text) end

local function run(...) return helper.cli(folder, "run", "flow.lua", "--record", "run.h5", ...) end

local function entry() return core.h5_read(folder .. "/run.h5", "/entry", 10000) end

local function step(name)
  local all = entry()
  for i = 1, 99 do
    local one = all["step_" .. i]
    if not one or one.name == name then return one end
  end
end

-- Process numbers of the children of a process.
local function children(pid)
  local list = {}
  for number in helper.read(("/proc/%d/task/%d/children"):format(pid, pid)):gmatch "%d+" do
    list[#list + 1] = math.tointeger(number)
  end
  return list
end

local two = [[
for _, name in ipairs { "a", "b" } do
  lf.step(name) {
    input = { data = "good.h5" },
    run = function(s)
      for _, device in ipairs(lf.devices()) do print(s.name, "sees", device.id) end
      local model = lf.mlp { 4, 8, 3, seed = 1 }
      s:train { model = model, data = lf.dataset(s.input.data).train, epochs = 2000, batch = 2 }
    end,
  }
end
]]

describe("independent steps", function()
  it("overlap_in_time_and_see_their_own_device_only", function()
    if not pcall(core.find_device, "vulkan:0") then pending "vulkan:0 is not there" return end
    flow(two)
    local result = run("-j", "2", "--device", "cpu,vulkan:0")
    assert.same({ 0, "" }, { result.code, result.err })
    local a, b = step "a", step "b"
    assert.is_true(math.max(a.t_start, b.t_start) < math.min(a.t_end, b.t_end))
    local devices = { a.device, b.device }
    table.sort(devices)
    assert.same({ "cpu", "vulkan:0" }, devices)
    for _, one in ipairs { a, b } do
      local seen = {}
      for device in result.out:gmatch(one.name .. "\tsees\t(%S+)") do seen[#seen + 1] = device end
      assert.same({ one.device }, seen)
    end
  end)

  it("share_one_slot_one_after_the_other", function()
    flow(two)
    local result = run("--device", "cpu")
    assert.same({ 0, "" }, { result.code, result.err })
    local a, b = step "a", step "b"
    assert.is_true(a.t_end <= b.t_start)
  end)

  it("give_the_bits_of_one_at_a_time", function()
    flow(two)
    assert.equal(0, run("--device", "cpu").code)
    local one = entry()
    assert.equal(0, run("--device", "cpu", "-j", "2", "--fresh").code)
    local both = entry()
    assert.same(one.digests.a.sha256, both.digests.a.sha256)
    assert.same(one.metrics.b.step_loss.value, both.metrics.b.step_loss.value)
  end)

  it("get_as_many_devices_as_they_ask_for", function()
    flow [[lf.step "both" { resources = { devices = 2 }, run = function(s) s:metric("seen", #lf.devices()) end }]]
    local result = run("--device", "cpu")
    assert.equal(2, result.code)
    helper.has(result.err,
      'flow.lua:2: step "both": resources: devices: expected at most 1, the slots there are, got 2')
    assert.equal(0, run("--device", "cpu,cpu").code)
  end)
end)

describe("a failure", function()
  local three = [[
local bad = lf.step "bad" { output = { x = "out/x.h5" }, run = function(s) s:metric("it", 1) error "on purpose" end }
lf.step "after" { input = { x = bad.output.x }, run = function(s) s:metric("it", 2) end }
lf.step "apart" { run = function(s) s:metric("it", 3) end }
]]

  it("ends_the_run", function()
    flow(three)
    local result = run "-q"
    assert.same({ 1, 'lavaflow: step "bad": flow.lua:2: on purpose\n' }, { result.code, result.err })
    assert.equal("failed", entry().status)
    assert.is_nil(step "apart")
  end)

  it("lets_others_go_on_with_k_but_not_those_that_need_it", function()
    flow(three)
    local result = run("-q", "-k")
    assert.equal(1, result.code)
    assert.equal("failed", step("bad").status)
    assert.equal("completed", step("apart").status)
    assert.is_nil(step "after")
    helper.has(run("-k", "-v").out, "apart  is up to date")
  end)

  it("leaves_no_output_and_keeps_the_old_one", function()
    flow [[
local P = lf.params { fail = true }
lf.step "make" {
  params = P, output = { model = "out/m.h5" },
  run = function(s)
    lf.mlp { 4, 3, seed = 1 }:save(s.output.model)
    if s.params.fail then error "on purpose" end
  end,
}
]]
    assert.equal(1, run().code)
    assert.is_false(helper.exists(folder .. "/out"))
    assert.equal(0, run("fail=false").code)
    local old = helper.read(folder .. "/out/m.h5")
    assert.equal(1, run().code)
    assert.equal(old, helper.read(folder .. "/out/m.h5"))
    assert.same({ "m.h5" }, helper.list(folder .. "/out"))
  end)

  it("of_an_output_that_was_not_written_says_where_it_was_expected", function()
    flow [[lf.step "make" { output = { model = "m.h5" }, run = function() lf.mlp { 4, 3, seed = 1 }:save "m.h5" end }]]
    local result = run()
    assert.equal(1, result.code)
    helper.has(result.err,
      'step "make": output model: m.h5 was not written: expected the step to write to s.output.model')
  end)

  it("by_a_signal_is_a_message_of_its_step_and_the_others_go_on", function()
    flow [[
lf.step "killed" { run = function() print "begun" while true do end end }
lf.step "apart" { run = function(s) s:metric("it", 3) end }
]]
    local killed
    local result = helper.run({ helper.lavaflow, "run", "flow.lua", "--record", "run.h5", "-k" }, {
      cwd = folder,
      on_output = function(text, process)
        if killed or not text:find "begun" then return end
        killed = children(process:get_pid())[1]
        uv.kill(killed, "sigkill")
      end,
    })
    assert.equal(1, result.code)
    helper.has(result.err, 'step "killed": its process was ended by SIGKILL')
    assert.equal("completed", step("apart").status)
    local log = entry().log
    local found
    for i, text in ipairs(log.text) do found = found or (text == "begun" and log.step[i]) end
    assert.equal("killed", found)
  end)
end)

describe("a process whose runner is killed", function()
  it("ends_by_itself_after_a_checkpoint", function()
    flow [[
lf.step "train" {
  input = { data = "good.h5" },
  run = function(s)
    local model = lf.mlp { 4, 8, 3, seed = 1 }
    s:train { model = model, data = lf.dataset(s.input.data).train, epochs = 100000000, batch = 2, device = "cpu" }
  end,
}
]]
    local child
    local result = helper.run({ helper.lavaflow, "run", "flow.lua" }, {
      cwd = folder,
      on_output = function(text, process)
        if child or not text:find "epoch 3/" then return end
        child = children(process:get_pid())[1]
        process:kill "sigkill"
      end,
    })
    assert.equal(9, result.signal)
    for _ = 1, 100 do
      if not uv.kill(child, 0) then break end
      uv.sleep(50)
    end
    assert.is_falsy(uv.kill(child, 0))
    local found
    for _, name in ipairs(helper.files(folder)) do
      found = found or name:match "^%.lavaflow/flow/train%-%x+/train%.checkpoint%.h5$"
    end
    assert.is_truthy(found)
  end)
end)

describe("two runs of one workflow at once", function()
  it("wait_for_each_other_and_do_the_work_once", function()
    flow [[
lf.step "train" {
  input = { data = "good.h5" }, output = { model = "out/m.h5" },
  run = function(s)
    local model = lf.mlp { 4, 8, 3, seed = 1 }
    s:train { model = model, data = lf.dataset(s.input.data).train, epochs = 3000, batch = 2, device = "cpu" }
    model:save(s.output.model)
  end,
}
]]
    local second
    local first = helper.run({ helper.lavaflow, "run", "flow.lua" }, {
      cwd = folder,
      on_output = function(text)
        if second or not text:find "epoch 2/" then return end
        second = { out = "", err = "" }
        local out, err = uv.new_pipe(), uv.new_pipe()
        local handle
        handle = uv.spawn(helper.lavaflow, { args = { "run", "flow.lua" }, cwd = folder, stdio = { nil, out, err } },
          function(code)
            second.code = code
            handle:close()
          end)
        out:read_start(function(_, piece) if piece then second.out = second.out .. piece else out:close() end end)
        err:read_start(function(_, piece) if piece then second.err = second.err .. piece else err:close() end end)
      end,
    })
    assert.same({ 0, "" }, { first.code, first.err })
    assert.equal(0, second.code)
    assert.is_truthy(second.err:find 'step "train": another run works on it %(pid %d+ on .-%): waiting')
    helper.has(second.out, "nothing to do: 1 steps of flow.lua are up to date")
  end)
end)

describe("a batch job", function()
  it("ends_with_a_checkpoint_on_usr1_is_put_back_into_the_queue_and_goes_on", function()
    flow [[
local P = lf.params { epochs = 40000 }
lf.step "train" {
  input = { data = "good.h5" }, output = { model = "out/m.h5" },
  run = function(s)
    local model = lf.mlp { 4, 8, 3, seed = 1 }
    s:train { model = model, data = lf.dataset(s.input.data).train, epochs = P.epochs, batch = 2, device = "cpu" }
    model:save(s.output.model)
  end,
}
]]
    helper.write(folder .. "/scontrol", '#!/bin/sh\necho "$@" >> queue\n')
    assert(uv.fs_chmod(folder .. "/scontrol", tonumber("755", 8)))
    assert(uv.fs_symlink(helper.lavaflow, folder .. "/lavaflow"))
    local sent
    local function job()
      return helper.run({ "/bin/sh", helper.source .. "/workflows/slurm.sh", "flow.lua" }, {
        cwd = folder, env = { SLURM_JOB_ID = "17", PATH = folder .. ":" .. os.getenv "PATH" },
        on_output = function(text, process)
          if sent or not text:find "epoch 3/" then return end
          sent = true
          process:kill "sigusr1"
        end,
      })
    end
    local first = job()
    assert.equal(75, first.code, first.err)
    assert.equal("requeue 17\n", helper.read(folder .. "/queue"))
    local second = job()
    assert.same({ 0, "" }, { second.code, second.err })
    assert.is_truthy(second.out:find "train  goes on after step %d+\n")
    assert.is_true(helper.exists(folder .. "/out/m.h5"))
  end)
end)
