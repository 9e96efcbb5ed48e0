-- Trainings on several devices at once, as scripts see them.
local lf = require "lavaflow"
local core = require "lavaflow.core"
local helper = require "helper"

local folder, data
setup(function()
  folder = helper.folder()
  helper.fixtures(folder)
  data = lf.dataset(folder .. "/good.h5")
end)
teardown(function()
  data:close()
  helper.remove(folder)
end)

local function train(given)
  local t = { model = lf.mlp { 4, 8, 3 }, data = data.train, epochs = 3, batch = 16, seed = 4 }
  for name, value in pairs(given or {}) do t[name] = value end
  return lf.train(t)
end

local function cpus(count)
  local list = {}
  for i = 1, count do list[i] = "cpu" end
  return list
end

local function fields(list, name)
  local values = {}
  for i, entry in ipairs(list) do values[i] = entry[name] end
  return values
end

describe("a training on several devices", function()
  it("gives_the_bits_of_one_device_with_as_many_shards", function()
    local one = train { devices = { "cpu" }, shards = 8, validation = data.test }
    for count = 2, 5 do
      local history = train { devices = cpus(count), shards = 8, validation = data.test }
      assert.equal(one.digest, history.digest)
      assert.same(one.loss, history.loss)
      assert.same(one.val_loss, history.val_loss)
    end
    assert.not_equal(one.digest, train { devices = { "cpu" } }.digest)
    assert.equal(one.digest, train { devices = cpus(3), shards = 8, balance = "even" }.digest)
  end)

  it("adds_up_in_any_order_where_reduce_is_fast", function()
    local function fast(devices) return train { devices = devices, shards = 8, balance = "even", reduce = "fast" } end
    local exact = train { devices = { "cpu" }, shards = 8 }
    local three = fast(cpus(3))
    assert.not_equal(exact.digest, three.digest)
    assert.equal(three.digest, fast(cpus(3)).digest)
    assert.equal(exact.digest, fast { "cpu" }.digest)
    for i, loss in ipairs(exact.loss) do assert.near(loss, three.loss[i], 1e-4) end
  end)

  it("goes_on_with_the_reduce_of_its_checkpoint", function()
    local checkpoint = folder .. "/c.h5"
    train { devices = cpus(3), max_steps = 4, checkpoint = checkpoint, reduce = "fast" }
    helper.refused("it was written with reduce fast, but this one has reduce exact", train,
      { devices = cpus(3), resume = checkpoint })
  end)

  it("says_what_each_device_did", function()
    local history = train { devices = cpus(3), shards = 8, balance = "even" }
    assert.same({ "cpu", 8, 1 }, { history.device, history.shards, history.ranks })
    assert.is_true(history.exchange_seconds >= 0 and history.exchange_seconds <= history.seconds)
    assert.same({ "cpu", "cpu", "cpu" }, fields(history.devices, "id"))
    assert.same({ 0, 1, 2 }, fields(history.devices, "opened"))
    assert.same({ false, false, false }, fields(history.devices, "lost"))
    local shards = fields(history.devices, "shards")
    assert.equal(8, shards[1] + shards[2] + shards[3])
    for i, device in ipairs(history.devices) do
      assert.is_true(device.busy > 0 and device.busy <= history.seconds)
      assert.is_true(shards[i] == 2 or shards[i] == 3)
      assert.equal(history.device_info.kernels, device.kernels)
    end
  end)

  it("has_the_least_power_of_two_of_shards_that_is_enough", function()
    for count, shards in ipairs { 1, 2, 4, 4, 8 } do
      assert.equal(shards, train { devices = cpus(count), epochs = 1 }.shards)
    end
  end)

  it("goes_on_with_the_shards_of_its_checkpoint_on_any_number_of_devices", function()
    local checkpoint = folder .. "/c.h5"
    local whole = train { devices = cpus(3) }
    for count = 1, 4 do
      train { devices = cpus(3), max_steps = 4, checkpoint = checkpoint }
      local resumed = train { devices = cpus(count), resume = checkpoint }
      assert.same({ 4, whole.digest }, { resumed.shards, resumed.digest })
    end
  end)

  it("that_was_not_divided_goes_on_so_on_any_number_of_devices", function()
    local checkpoint, whole = folder .. "/c.h5", train { device = "cpu" }
    train { device = "cpu", max_steps = 4, checkpoint = checkpoint }
    local resumed = train { devices = cpus(3), resume = checkpoint }
    assert.same({ 1, 1, whole.digest }, { resumed.shards, #resumed.devices, resumed.digest })
    helper.refused("it was written with shards 1, but this one has shards 2", train,
      { devices = { "cpu" }, shards = 2, resume = checkpoint })
  end)

  it("uses_as_many_of_them_as_there_are_shards", function()
    local history = train { devices = cpus(3), shards = 2 }
    local one = train { device = "cpu", shards = 2 }
    assert.same({ 2, 2, one.digest }, { history.shards, #history.devices, history.digest })
  end)

  it("of_a_list_of_one_is_one_on_that_device", function()
    local history = train { devices = { "cpu" } }
    assert.same({ "cpu", 1, 1 }, { history.device, history.shards, #history.devices })
    assert.equal(train { device = "cpu" }.digest, history.digest)
  end)

  it("records_them_in_its_run_file", function()
    train { devices = cpus(2), record = folder .. "/run.h5", reduce = "fast" }
    local entry = core.h5_read(folder .. "/run.h5", "/entry", 100)
    assert.equal("cpu,cpu", entry.parameters.devices)
    assert.same({ "cpu", "cpu,cpu" }, { entry.step_1.device, entry.step_1.devices })
    assert.same({ "cpu", 2 }, { entry.system.device_0.id, entry.system.device_0.count })
    assert.is_nil(entry.system.device_1)
    local attributes = entry.metrics.train
    assert.same({ 2, "cpu,cpu", "fast", "speed" },
      { attributes["@shards"], attributes["@devices"], attributes["@reduce"], attributes["@balance"] })
    assert.equal("fast", entry.parameters.reduce)
    assert.equal(2, #attributes["@busy"])
    local held = attributes["@shards_held"]
    assert.same({ 1, 1 }, { held[1], held[2] })
  end)
end)

describe("what is no training", function()
  it("uses_the_first_device_of_a_list", function()
    local model = lf.mlp { 4, 3, seed = 1 }
    assert.equal("cpu", lf.evaluate { model = model, data = data.test, devices = cpus(2) }.device)
    local outputs = lf.predict { model = model, data = data.test, device = "cpu" }
    assert.same(outputs, lf.predict { model = model, data = data.test, devices = { "cpu", "vulkan:77" } })
  end)
end)

describe("the bandwidth of an exchange", function()
  it("is_measured_for_any_number_of_devices_and_sizes", function()
    for count = 1, 5 do
      local measured = core.bandwidth(cpus(count), { 4, 4000, 1000000 })
      assert.equal(3, #measured)
      for _, seconds in ipairs(measured) do
        assert.is_true(seconds.read >= 0 and seconds.write >= 0 and seconds.sum >= 0)
      end
      assert.is_true(measured[3].read > 0 and measured[3].write > 0)
    end
    helper.refused('device "vulkan:77": there is none', core.bandwidth, { "cpu", "vulkan:77" }, { 4 })
  end)
end)
