-- Steps that train on several devices: what the command line gives them, what the run file says, devices that fail.
local cjson = require "cjson"
local core = require "lavaflow.core"
local helper = require "helper"

local folder
before_each(function()
  folder = helper.folder()
  helper.fixtures(folder)
end)
after_each(function() helper.remove(folder) end)

local function flow(resources, options)
  helper.write(folder .. "/flow.lua", ([[
local lf = require "lavaflow"
lf.step "train" {
  input = { data = "good.h5" }, output = { model = "m.h5" }, resources = { devices = %s },
  run = function(s)
    local model = lf.mlp { 4, 8, 3 }
    s:train { model = model, data = lf.dataset(s.input.data).train, epochs = 20, batch = 16, %s }
    model:save(s.output.model)
  end,
}
]]):format(resources, options))
end

local function lavaflow(env, ...)
  local result = helper.run({ helper.lavaflow, ... }, { cwd = folder, env = env })
  return result
end

local function run(env, ...)
  local result = lavaflow(env, "run", "flow.lua", "--record", "run.h5", "--fresh", ...)
  assert.equal(0, result.code, result.err)
  return core.h5_read(folder .. "/run.h5", "/entry", 1000), result
end

local CPU = { LAVAFLOW_DEVICES = "cpu" }

describe("a step", function()
  it("trains_on_the_devices_of_all_of_its_slots", function()
    flow("2", "")
    local entry, result = run(nil, "--device", "cpu,cpu")
    assert.equal("", result.err)
    helper.has(result.out, "train  on 2 devices: 2 x cpu\n")
    assert.same({ "cpu", "cpu,cpu" }, { entry.step_1.device, entry.step_1.devices })
    assert.equal(2, entry.system.device_0.count)
    assert.is_nil(entry.system.device_1)
    assert.same({ 2, "cpu,cpu" }, { entry.metrics.train["@shards"], entry.metrics.train["@devices"] })
    helper.has(helper.cli(folder, "show", "run.h5").out, " on cpu,cpu\n")
  end)

  it("may_ask_for_all_slots_there_are", function()
    flow('"all"', "")
    assert.equal("cpu,cpu,cpu", run(nil, "--device", "cpu,cpu,cpu").step_1.devices)
    assert.equal("cpu", run(nil, "--device", "cpu").step_1.device)
    local entry = run(CPU)
    assert.same({ "cpu" }, { entry.step_1.device, entry.step_1.devices })
  end)

  it("without_devices_on_the_command_line_gets_parts_of_the_processor", function()
    flow("2", "")
    assert.equal("cpu,cpu", run(CPU).step_1.devices)
  end)

  it("with_one_slot_has_one_device_of_several", function()
    flow("1", 'devices = "all"')
    local entry = run(nil, "--device", "cpu,cpu")
    assert.same({ "cpu", 1 }, { entry.step_1.device, entry.metrics.train["@shards"] })
    assert.is_nil(entry.step_1.devices)
  end)

  it("that_says_all_has_those_of_the_command_line", function()
    flow('"all"', 'devices = "all", shards = 4')
    assert.equal("cpu,cpu", run(nil, "--device", "cpu,cpu").metrics.train["@devices"])
    assert.equal("cpu", run(nil, "--device", "cpu").metrics.train["@devices"])
  end)

  it("is_not_run_again_for_another_number_of_devices", function()
    flow('"all"', "shards = 4")
    run(nil, "--device", "cpu")
    helper.has(lavaflow(nil, "run", "flow.lua", "--device", "cpu,cpu").out, "nothing to do")
  end)

  it("names_what_its_resources_may_be", function()
    flow('"some"', "")
    local result = lavaflow(nil, "run", "flow.lua")
    assert.equal(2, result.code)
    helper.has(result.err, 'resources: devices: expected a whole number in 0..64 or "all", got "some"')
    flow("-1", "")
    helper.has(lavaflow(nil, "run", "flow.lua").err, 'expected a whole number in 0..64 or "all", got -1')
  end)

  it("says_with_v_what_each_device_did", function()
    flow('"all"', 'balance = "even"')
    local _, result = run(nil, "--device", "cpu,cpu", "-v")
    assert.is_truthy(result.out:find "train  cpu: 1 of 2 shards, computed %d+ %% of the time\n")
    assert.is_truthy(result.out:find "train  cpu#2: 1 of 2 shards, computed %d+ %% of the time\n")
    assert.is_truthy(result.out:find "train  gradients on their way %d+ %% of the time\n")
  end)
end)

describe("a lost device", function()
  it("is_a_warning_and_the_others_give_the_same_bits", function()
    flow('"all"', "shards = 4")
    local whole = run(nil, "--device", "cpu,cpu")
    local entry, result = run({ LAVAFLOW_FAULT = "cpu#2@step=20" }, "--device", "cpu,cpu")
    local warning = "^lavaflow: warning: train: device cpu#2 is lost at step 20: .+; the others go on\n$"
    assert.is_truthy(result.err:find(warning), result.err)
    assert.same(whole.digests.train, entry.digests.train)
    assert.same(whole.metrics.train.step_loss.value, entry.metrics.train.step_loss.value)
    assert.equal("cpu#2", entry.metrics.train["@lost"])
    local told
    for i, text in ipairs(entry.log.text) do
      if text:find "device cpu#2 is lost" then told = entry.log.level[i] end
    end
    assert.equal("warn", told)
  end)
end)

describe("a step that has lost all of its devices", function()
  it("goes_on_with_its_shards_on_another_number_of_devices", function()
    flow('"all" }, checkpoint = { steps = 4', "")
    local whole = run(nil, "--device", "cpu,cpu,cpu")
    local lost = { LAVAFLOW_FAULT = "cpu@step=21,cpu#2@step=30,cpu#3@step=30" }
    local failed = lavaflow(lost, "run", "flow.lua", "--device", "cpu,cpu,cpu", "--fresh")
    assert.equal(1, failed.code)
    helper.has(failed.err, "device cpu is lost at step 21")
    local result = lavaflow(nil, "run", "flow.lua", "--record", "run.h5", "--device", "cpu,cpu")
    assert.same({ 0, "" }, { result.code, result.err })
    helper.has(result.out, "train  goes on after step 28\n")
    local entry = core.h5_read(folder .. "/run.h5", "/entry", 1000)
    assert.same({ 4, "cpu,cpu" }, { entry.metrics.train["@shards"], entry.metrics.train["@devices"] })
    assert.same(whole.digests.train.sha256, entry.digests.train.sha256)
    assert.same(whole.metrics.train.step_loss.value, entry.metrics.train.step_loss.value)
  end)
end)

describe("verify", function()
  local function verify(...)
    local result = lavaflow(nil, "verify", "run.h5", ...)
    assert.same({ 0, "" }, { result.code, result.err })
    return result.out
  end

  it("repeats_the_shards_on_any_number_of_devices_of_one_kind", function()
    flow('"all"', "")
    local entry = run(nil, "--device", "cpu,cpu,cpu")
    assert.equal(4, entry.metrics.train["@shards"])
    for _, devices in ipairs { "cpu", "cpu,cpu", "cpu,cpu,cpu,cpu,cpu" } do
      helper.has(verify("--device", devices), "verified: the same bits on cpu (")
    end
    helper.has(verify(), "verified: the same bits on cpu (")
  end)

  it("does_not_divide_what_was_not_divided", function()
    flow('"all"', "")
    run(nil, "--device", "cpu")
    helper.has(verify("--device", "cpu,cpu"), "verified: the same bits on cpu (")
  end)

  it("promises_the_bits_of_fast_sums_on_as_many_devices_alone", function()
    local bits, bound = "verified: the same bits on cpu (", "verified: the bound of another device"
    flow('"all"', 'shards = 8, reduce = "fast", balance = "even"')
    run(nil, "--device", "cpu,cpu,cpu")
    helper.has(verify(), bits)
    helper.has(verify("--device", "cpu,cpu,cpu"), bits)
    for _, devices in ipairs { "cpu", "cpu,cpu" } do helper.has(verify("--device", devices), bound) end
    flow('"all"', 'shards = 8, reduce = "fast"') -- who has which shard goes by the clock
    run(nil, "--device", "cpu,cpu,cpu")
    helper.has(verify(), bound)
    run(nil, "--device", "cpu")
    helper.has(verify(), bits)
    helper.has(verify("--device", "cpu,cpu,cpu"), bound)
  end)

  it("keeps_to_the_bound_where_the_devices_were_of_several_kinds", function()
    if not pcall(core.find_device, "vulkan:0") then pending "vulkan:0 is not there" return end
    flow('"all"', "")
    local entry = run(nil, "--device", "cpu,vulkan:0")
    assert.same({ "cpu,vulkan:0", "cpu", "vulkan:0" },
      { entry.step_1.devices, entry.system.device_0.id, entry.system.device_1.id })
    helper.has(verify(), "verified: the bound of another device")
    helper.has(verify("--device", "cpu"), "verified: the bound of another device")
  end)
end)

describe("workflows/data_parallel.lua", function()
  it("gives_one_model_on_any_number_of_devices", function()
    helper.write(folder .. "/flow.lua", helper.read(helper.source .. "/workflows/data_parallel.lua"))
    local arguments = { "data=" .. helper.source .. "/datasets/digits.h5", "batch=64", "epochs=10", "lr=0.005" }
    local one = run(nil, "--device", "cpu", table.unpack(arguments))
    assert.is_true(one.metrics.evaluate.test_accuracy.value[1] >= 0.9)
    local three, result = run(nil, "--device", "cpu,cpu,cpu", table.unpack(arguments))
    helper.has(result.out, "rows/s, devices: 3\n")
    assert.same(one.digests.train, three.digests.train)
    local named = run(CPU, "devices=cpu,cpu", table.unpack(arguments))
    assert.equal("cpu,cpu", named.metrics.train["@devices"])
    assert.same(one.digests.train, named.digests.train)
    assert.equal("cpu", run(CPU, table.unpack(arguments)).metrics.train["@devices"])
  end)
end)

describe("lavaflow explain --program", function()
  it("shows_a_batch_in_shards", function()
    flow("1", "shards = 4")
    local result = lavaflow(nil, "explain", "flow.lua", "--program", "--device", "cpu,cpu")
    assert.same({ 0, "" }, { result.code, result.err })
    helper.has(result.out, "4 shards of 4 rows\n")
  end)
end)

describe("lavaflow devices --bandwidth", function()
  it("measures_every_device_and_what_they_exchange", function()
    local usable = {}
    for _, device in ipairs(core.devices()) do
      if not device.unavailable then usable[#usable + 1] = device.id end
    end
    local count, entries = #usable, cjson.decode(lavaflow(nil, "devices", "--bandwidth", "--json").out)
    assert.equal(count + count * (count - 1) // 2 + (count > 2 and 1 or 0), #entries)
    for i, id in ipairs(usable) do assert.same({ id }, entries[i].devices) end
    for _, entry in ipairs(entries) do
      assert.equal(3, #entry.exchanges, entry.failure)
      for _, seconds in ipairs(entry.exchanges) do
        assert.is_true(seconds.read > 0 and seconds.write > 0 and seconds.sum >= 0)
      end
    end
    local result = lavaflow(CPU, "devices", "--bandwidth")
    assert.same({ 0, "" }, { result.code, result.err })
    helper.has(result.out, "cpu write ")
    helper.has(result.out, "cpu read ")
    assert.is_falsy(result.out:find("exchange", 1, true))
  end)
end)
